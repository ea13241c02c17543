// The lines that repeat what a page shows at once, without a run: for a shell and in Python.

import { h } from "./dom.js";
import { lines } from "./panel.js";
import { state } from "./state.js";

const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`);
const file = (id) => `${state.pictures.find((each) => each.id === id)?.title ?? "picture"}.png`;

/** The first technique of the registry that looks inside at a picture, and has that option or has it not. */
export const looks = (option, has) => state.techniques.find((each) => each.family === "look" && each.pictures && each.options.some(({ name }) => name === option) === has);

export const command = (technique, id, ...words) => (technique ? ["convscope", technique.name, ...(id ? [file(id)] : []), ...words, ...state.network.loaded].map((word) => quoted(String(word))).join(" ") : "");

export const python = (id, ...more) => ["import convscope", "", `network = convscope.load_network(${state.network.spec})`, ...(id ? [`image = network.prepare(convscope.read_image(${JSON.stringify(file(id))}))`] : []), ...more].join("\n");

/** Both, folded; `draw` fills them in again. */
export function repeat(...given) {
  const place = h("div");
  const draw = (shell, code) => place.replaceChildren(...[shell && lines("On the command line", shell), lines("In Python", code)].filter(Boolean));
  if (given.length) draw(...given);
  return { element: h("details", { className: "again" }, h("summary", {}, "The lines that repeat it"), place), draw };
}
