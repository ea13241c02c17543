// All techniques by the question that they answer, or one with its form, its result and what to make of it.

import { h, replace } from "../dom.js";
import { form, given } from "../form.js";
import { get, post } from "../api.js";
import { panel } from "../panel.js";
import { go, here, path, picture, state } from "../state.js";

export async function render(main, leaving) {
  const { rest: [name], query } = here();
  if (!name) return all(main);
  const technique = state.techniques.find((each) => each.name === name);
  if (!technique) throw new Error(`There is no technique ${name}.`);
  const told = Object.fromEntries([...query].filter(([key]) => technique.options.some((option) => option.name === key)));
  const place = h("div", { className: "place" });
  let run = null;
  leaving(() => run?.close());
  const fields = form(technique, told, (values) => {
    const text = Object.fromEntries(Object.entries(values).map(([key, value]) => [key, String(value)]));
    history.replaceState({}, "", path(["techniques", name], { picture: picture(), ...text }));
  });
  const start = () => {
    if (!fields.valid()) return;
    run?.close();
    run = panel(technique, { options: fields.values(), pictures: given(technique), onDone: (job) => offer(place, technique, job, fields, resumed), again: start, changed });
    replace(place, run.element);
  };
  const resumed = (job) => {
    run?.close();
    run = panel(technique, { job, onDone: (each) => offer(place, technique, each, fields, resumed), changed });
    replace(place, run.element);
  };
  /** A halted run goes on with what the form says now: it is stopped, which keeps what it has, and taken up. */
  const changed = async (job) => {
    if (!fields.valid()) return;
    await post(`jobs/${job.id}`, { word: "cancel" });
    let now = job;
    while (["running", "paused"].includes(now.state)) { await new Promise((done) => setTimeout(done, 100)); now = await get(`jobs/${job.id}`); }
    if (now.stopped) resumed(await goneOn(technique, now, fields));
  };
  replace(main,
    h("p", { className: "crumbs" }, h("a", { href: path(["techniques"]) }, "Techniques")), h("h1", {}, technique.name),
    h("p", { className: "lead" }, technique.summary),
    h("div", { className: "split wide" },
      h("div", {}, fields.element, h("p", { className: "buttons" }, h("button", { type: "button", className: "main", onclick: start }, "Run"))),
      h("div", {}, place,
        h("div", { className: "notes" }, h("p", {}, h("b", {}, "What to see"), technique.see), h("p", { className: "caution" }, h("b", {}, "What it does not prove"), technique.caution)),
        technique.paper && h("p", { className: "soft" }, technique.paper))));
  if (!technique.pictures || picture()) replace(place, h("p", { className: "soft" }, technique.pictures ? "It runs on the picture that is marked above." : "It needs no picture."));
  return technique.name;
}

const goneOn = (technique, job, fields) => post("jobs", { technique: technique.name, options: fields.values(), pictures: job.pictures, resume: job.id });

/** A stopped run can be gone on with, also with other options. */
function offer(place, technique, job, fields, resumed) {
  if (!job.stopped) return;
  place.append(h("p", { className: "buttons" }, h("button", { type: "button", onclick: async () => {
    try { resumed(await goneOn(technique, job, fields)); } catch (error) { place.append(h("p", { className: "failed" }, error.message)); }
  } }, "Go on from here with the options above")));
}

function all(main) {
  const sections = Object.entries(state.families).map(([family, question]) => {
    const members = state.techniques.filter((each) => each.family === family);
    return members.length > 0 && h("section", {}, h("h2", {}, question), h("ul", { className: "techniques" }, members.map((each) =>
      h("li", {}, h("a", { href: path(["techniques", each.name]) }, h("strong", {}, each.name), h("span", {}, each.summary))))));
  });
  replace(main, h("h1", {}, "Techniques"), h("p", { className: "lead" }, "Each answers a question about the network; each says what its picture does not prove."), sections);
  return "Techniques";
}
