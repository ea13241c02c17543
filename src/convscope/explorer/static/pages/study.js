// Two small studies: label pictures under the network's conditions, or guess what it will say, with its explanation or without.

import { get, post } from "../api.js";
import { h, readable, replace } from "../dom.js";
import { go, here, path, state } from "../state.js";

const TOLD = {
  label: ["You against the network", "You see what the network sees, cut and scaled as it is, and choose among the same names. At the end both scores stand beside each other, with whether you err on the same pictures."],
  predict: ["Does the explanation help?", "Guess what the network answers, which need not be right. Half of the pictures come with its explanation. If that tells how it decides, you guess better with it."],
};

export async function render(main, leaving) {
  const { page, rest: [id] } = here();
  const [title, lead] = TOLD[page];
  if (!id) {
    begin(main, page, title, lead);
    return title;
  }
  const place = h("div", { className: "study" });
  replace(main, h("h1", {}, title), place);
  await ask(place, await get(`studies/${id}`), leaving);
  return title;
}

function begin(main, kind, title, lead) {
  const maps = state.techniques.filter((each) => each.family === "attribute" && each.pictures && each.network);
  const name = h("input", { id: "who", value: "me", maxLength: 60 });
  const limit = h("input", { id: "limit", type: "number", min: 2, max: 200, value: 20 });
  const method = h("select", { id: "method" }, maps.map((each) => h("option", { value: each.name, selected: each.name === "gradcam" }, each.name)));
  const trouble = h("p", { className: "failed", hidden: true });
  const start = async () => {
    try {
      const made = await post("studies", { kind, subject: name.value || "me", limit: Number(limit.value), method: method.value, seed: Math.floor(Math.random() * 1e9) });
      go(path([kind, made.id]));
    } catch (error) { trouble.textContent = error.message; trouble.hidden = false; }
  };
  replace(main, h("h1", {}, title), h("p", { className: "lead" }, lead),
    h("form", { className: "options narrow", onsubmit: (event) => { event.preventDefault(); start(); } },
      h("div", { className: "field" }, h("label", { htmlFor: "who" }, "Your name in the table"), name),
      h("div", { className: "field" }, h("label", { htmlFor: "limit" }, "Pictures"), limit),
      kind === "predict" && h("div", { className: "field" }, h("label", { htmlFor: "method" }, "Explained by"), method),
      h("p", { className: "buttons" }, h("button", { className: "main" }, "Begin")), trouble));
}

async function ask(place, told, leaving) {
  if (!told.names.length) return replace(place, h("ul", { className: "scores" }, told.scores.map((line) => h("li", {}, line))), h("p", { className: "buttons" }, h("a", { href: `/api/studies/${told.id}/answers.csv`, download: "answers.csv" }, "Save the answers as CSV"), h("a", { href: path([told.kind]) }, "Once more")));
  const began = performance.now();
  const feedback = h("p", { className: "soft", role: "status" });
  const give = async (name) => {
    removeEventListener("keydown", keys);
    try {
      const next = await post(`studies/${told.id}/${told.number}`, { answer: name, seconds: (performance.now() - began) / 1000 });
      const word = `${next.correct ? "Right" : "No"}: ${told.kind === "label" ? "it is" : "it answers"} ${readable(next.right)}.`;
      await ask(place, next, leaving);
      place.prepend(h("p", { className: "soft", role: "status" }, told.kind === "label" ? `${word} The network said ${readable(next.network)}.` : word));
    } catch (error) { feedback.textContent = error.message; }
  };
  const keys = (event) => { const name = told.names[Number(event.key) - 1]; if (name && !event.target.closest?.("input, select")) give(name); };
  addEventListener("keydown", keys);
  leaving(() => removeEventListener("keydown", keys));
  replace(place, h("p", { className: "soft" }, `${told.number + 1} of ${told.count}${told.explained ? ", with the network's explanation" : ""}`),
    h("img", { src: `/api/studies/${told.id}/${told.number}.png`, alt: "The picture to answer" }),
    h("div", { className: "buttons answers" }, told.names.map((name, i) => h("button", { type: "button", onclick: () => give(name) }, i < 9 && h("kbd", {}, String(i + 1)), " ", readable(name)))), feedback);
}
