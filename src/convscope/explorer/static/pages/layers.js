// All layers at a glance, or one layer with its feature maps: every map a link to its unit.

import { get, once } from "../api.js";
import { h, number, percent, replace } from "../dom.js";
import { repeat } from "../panel.js";
import { go, here, path, picture, say, state } from "../state.js";

export async function render(main, leaving) {
  const { rest, query } = here();
  return rest[0] ? one(main, rest[0], Number(query.get("page") ?? 0), leaving) : all(main);
}

function all(main) {
  const { network } = state;
  const leaves = network.layers.filter((each) => each.leaf);
  const parts = h("label", { className: "switch" }, h("input", { type: "checkbox", onchange: (event) => draw(event.target.checked) }), " blocks, too");
  const list = h("ol", { className: "layers" });
  const draw = (blocks) => replace(list, (blocks ? network.layers : leaves).map(row));
  draw(false);
  replace(main,
    h("h1", {}, network.name),
    h("p", { className: "lead" }, `${network.parameters.toLocaleString("en")} parameters, ${leaves.length} layers, ${network.classes} classes, pictures of ${network.input_size.join(" × ")} pixels. Drop a picture anywhere on the page, or choose one above.`),
    first(), h("h2", {}, "Layer by layer"), parts, list);
  return network.name;
}

/** Where to begin. */
const first = () => h("nav", { className: "first", "aria-label": "Where to begin" }, [
  [["pictures"], "What did it look at?", "Heat maps of the picture; cover a part of it and watch the answer change."],
  [["units", state.network.default_layer, "0"], "What is one unit looking for?", "Where it fires, what excites it, and the picture that it would like best."],
  [["classes"], "What does it expect of a class?", "A picture made from noise for any class that it knows."],
  [["techniques"], "Everything else", "Fool it, paint with it, test it: every technique has a form."],
].map(([parts, question, answer]) => h("a", { href: path(parts) }, h("strong", {}, question), h("span", { className: "soft" }, answer))));

function row(layer) {
  const size = layer.grid ? `${layer.channels} × ${layer.grid.join(" × ")}` : layer.shape.join(" × ");
  const id = picture();
  const strip = id && layer.spatial
    ? h("img", { src: `/api/pictures/${id}/maps/${encodeURIComponent(layer.name)}/0.png`, alt: "", loading: "lazy", width: 56, height: 56 })
    : h("span", { className: "blank" });
  return h("li", {}, h("a", { href: path(["layers", layer.name]) }, strip,
    h("strong", {}, layer.name), h("span", { className: "soft" }, layer.kind), h("span", { className: "soft number" }, size),
    h("span", { className: "soft number" }, layer.parameters ? layer.parameters.toLocaleString("en") : "")));
}

async function one(main, name, page, leaving) {
  const layer = state.network.layers.find((each) => each.name === name);
  if (!layer) throw new Error(`${state.network.name} has no layer ${name}.`);
  const id = picture();
  const head = [h("p", { className: "crumbs" }, h("a", { href: path(["layers"]) }, "Layers")), h("h1", {}, layer.name), h("p", { className: "lead" }, told(layer))];
  if (!id) {
    replace(main, head, h("p", {}, "Open a picture to see what this layer makes of it."));
    return layer.name;
  }
  const at = `pictures/${id}/maps/${encodeURIComponent(name)}`;
  const about = await get(`${at}?page=${page}`);
  const keys = (event) => {
    if (event.target.closest?.("input, textarea, select")) return;
    const next = page + { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (next >= 0 && next < about.pages) go(path(["layers", name], { page: next }));
  };
  addEventListener("keydown", keys);
  leaving(() => removeEventListener("keydown", keys));
  const view = look(id, layer);
  replace(main, head,
    h("div", { className: "split" }, view.element,
      h("div", {},
        sheet(`/api/${at}/sheet.png?page=${page}`, about, layer, view),
        h("p", { className: "soft" }, about.remark || `One scale for all: ${number(about.low)} to ${number(about.high)}. Channels ${about.first} to ${about.first + about.count - 1} of ${about.channels}.`),
        about.pages > 1 && h("nav", { className: "pages", "aria-label": "Pages of channels" }, Array.from({ length: about.pages }, (_, i) =>
          h("a", { href: path(["layers", name], { page: i }), "aria-current": i === page ? "page" : null }, String(i + 1)))),
        repeat(about).element)));
  return layer.name;
}

function told(layer) {
  const grid = layer.spatial ? `${layer.channels} channels of ${layer.grid.join(" × ")} units` : `${layer.channels} units`;
  const own = layer.parameters ? `, ${layer.parameters.toLocaleString("en")} parameters` : "";
  return `${layer.kind}, ${grid}${own}.`;
}

/** The picture, over which a channel is laid, and where the pixels that a unit sees are framed. */
export function look(id, layer) {
  let fields = null; // the first time they take a moment, and nothing waits for them
  const [height, width] = state.network.input_size;
  const overlay = h("img", { className: "over", alt: "", hidden: true });
  const frame = h("div", { className: "frame", hidden: true });
  const words = h("p", { className: "soft under", role: "status" }, "Point at a map, or at the picture.");
  once(`layers/${encodeURIComponent(layer.name)}/fields`).then((found) => {
    fields = found.fields;
    if (fields && overlay.hidden) words.textContent = fields.whole ? "A unit sees the whole picture." : `A unit sees ${fields.size.join(" × ")} pixels. Point at the picture.`;
  }).catch(() => {});
  const stage = h("div", { className: "stage" }, h("img", { src: `/api/pictures/${id}.png`, alt: "The picture", width, height }), overlay, frame);
  const place = (top, left, bottom, right) => Object.assign(frame.style, { top: `${(100 * top) / height}%`, left: `${(100 * left) / width}%`, height: `${(100 * (bottom - top)) / height}%`, width: `${(100 * (right - left)) / width}%` });
  stage.addEventListener("pointermove", (event) => {
    if (!fields || !layer.grid) return;
    const box = stage.getBoundingClientRect();
    const row = Math.min(layer.grid[0] - 1, Math.floor(((event.clientY - box.top) / box.height) * layer.grid[0]));
    const column = Math.min(layer.grid[1] - 1, Math.floor(((event.clientX - box.left) / box.width) * layer.grid[1]));
    if (row < 0 || column < 0) return;
    const [[top, bottom], [left, right]] = [fields.rows[row], fields.columns[column]];
    place(top, left, bottom, right);
    frame.hidden = false;
    words.textContent = `Unit ${row}, ${column} sees rows ${top} to ${bottom - 1} and columns ${left} to ${right - 1}.`;
  });
  stage.addEventListener("pointerleave", () => { frame.hidden = true; });
  return {
    element: h("div", { className: "look" }, stage, words),
    show: (channel, text) => { overlay.src = `/api/pictures/${id}/maps/${encodeURIComponent(layer.name)}/${channel}.png`; overlay.hidden = false; words.textContent = text; },
    hide: () => { overlay.hidden = true; },
    box: (box) => { frame.hidden = !box; if (box) place(...box); },
  };
}

/** The sheet of maps as one picture, with a link over each. */
function sheet(source, about, layer, view) {
  const image = h("img", { src: source, alt: `Feature maps ${about.first} to ${about.first + about.count - 1} of ${layer.name}`, onerror: () => say("The maps could not be drawn.") });
  const links = about.maxima.map((most, i) => {
    const channel = about.first + i;
    const text = `Channel ${channel}: at most ${number(most)}${about.zeros[i] ? `, silent on ${percent(about.zeros[i])}` : ""}`;
    return h("a", { href: path(["units", layer.name, String(channel)]), title: text, "aria-label": text, className: most <= 0 && about.low >= 0 ? "silent" : "",
      onpointerenter: () => view.show(channel, text), onfocus: () => view.show(channel, text), onpointerleave: view.hide, onblur: view.hide });
  });
  return h("div", { className: "sheet", style: { "--columns": about.columns, aspectRatio: `${about.columns * about.width} / ${about.rows * about.height}` } }, image, h("div", { className: "cells", style: { gridTemplateColumns: `repeat(${about.columns}, 1fr)`, gridTemplateRows: `repeat(${about.rows}, 1fr)` } }, links));
}
