// The classes that the network knows; one of them with every technique that can be asked about it.

import { h, readable, replace } from "../dom.js";
import { panel } from "../panel.js";
import { here, path, state } from "../state.js";

export async function render(main, leaving) {
  const { rest: [text] } = here();
  const { labels } = state.network;
  if (text === undefined) {
    const list = h("ul", { className: "classes" });
    const draw = (wanted) => replace(list, labels.map((label, i) => [readable(label), i]).filter(([label]) => label.toLowerCase().includes(wanted)).map(([label, i]) => h("li", {}, h("a", { href: path(["classes", String(i)]) }, label), h("span", { className: "soft number" }, String(i)))));
    draw("");
    replace(main, h("h1", {}, `${labels.length} classes`), h("p", { className: "buttons" }, h("label", {}, "Find ", h("input", { type: "search", oninput: (event) => draw(event.target.value.toLowerCase()) }))), list);
    return "Classes";
  }
  const index = Number(text);
  if (!labels[index]) throw new Error(`The network has classes 0 to ${labels.length - 1}.`);
  const asks = state.techniques.filter((each) => each.options.some((option) => option.kind === "target"));
  const draws = asks.find((each) => each.family === "synthesize" && !each.pictures);
  const quick = draws ? Object.fromEntries(Object.entries(draws.example).filter(([name]) => name !== "target")) : {};
  const run = draws && panel(draws, { options: { ...quick, target: labels[index] }, lazy: true });
  leaving(() => run?.close());
  replace(main, h("p", { className: "crumbs" }, h("a", { href: path(["classes"]) }, "Classes")), h("h1", {}, readable(labels[index])),
    h("div", { className: "split wide" },
      h("nav", { className: "more", "aria-label": "Ask about this class" }, h("h2", {}, "Ask about this class"), h("ul", {}, asks.map((each) => h("li", {}, h("a", { href: path(["techniques", each.name], { target: labels[index] }) }, each.name), " ", h("span", { className: "soft" }, each.summary))))),
      run ? h("section", {}, h("h2", {}, "What the network looks for"), run.element) : null));
  return readable(labels[index]);
}
