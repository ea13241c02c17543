// A unit card on one screen: filter, strongest patches, where it fires, numbers, and the picture that excites it most.

import { get } from "../api.js";
import { h, histogram, number, percent, readable, replace } from "../dom.js";
import { panel, repeat } from "../panel.js";
import { go, here, path, picture, state } from "../state.js";
import { look } from "./layers.js";

export async function render(main, leaving) {
  const { rest: [name, text] } = here();
  const channel = Number(text);
  const layer = state.network.layers.find((each) => each.name === name);
  if (!layer) throw new Error(`${state.network.name} has no layer ${name}.`);
  const at = `layers/${encodeURIComponent(name)}`;
  const id = picture();
  const unit = await get(`${at}/units/${channel}${id ? `?picture=${id}` : ""}`);
  const keys = (event) => {
    if (event.target.closest?.("input, textarea, select")) return;
    const next = channel + { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (next >= 0 && next < unit.channels) go(path(["units", name, String(next)]));
  };
  addEventListener("keydown", keys);
  const view = id && layer.spatial ? look(id, layer) : null;
  const closing = [];
  leaving(() => { removeEventListener("keydown", keys); closing.forEach((close) => close()); });
  replace(main,
    h("p", { className: "crumbs" }, h("a", { href: path(["layers"]) }, "Layers"), " / ", h("a", { href: path(["layers", name]) }, name)),
    h("div", { className: "title" }, h("h1", {}, `${name} · ${channel}`), unit.class && h("a", { className: "class", href: path(["classes", String(channel)]) }, readable(unit.class)), step(name, channel - 1, unit, "‹ before"), step(name, channel + 1, unit, "after ›"),
      unit.silent && h("strong", { className: "flag" }, unit.scanned && unit.statistics?.silent === 1 ? "dead: never above zero" : "silent on all of these pictures")),
    h("div", { className: "card" },
      h("section", {}, h("h2", {}, "Where it fires"), view ? view.element : h("p", { className: "soft" }, "It has no place in the picture."), unit.filter && filter(at, channel, name),
        unit.python && repeat(unit).element),
      h("section", {}, h("h2", {}, "What excites it most"), patches(unit), h("p", { className: "soft" }, source(unit), " Below each what in it excites the unit, by guided backpropagation.")),
      h("section", {}, h("h2", {}, "The picture it is looking for"), optimised(name, channel, closing)),
      unit.statistics && h("section", {}, h("h2", {}, "In numbers"), numbers(unit))),
    more(name, channel, layer));
  view?.show(channel, `Channel ${channel} on this picture`);
  return `${name} · ${channel}`;
}

const step = (name, channel, unit, text) =>
  channel >= 0 && channel < unit.channels && h("a", { className: "quiet", href: path(["units", name, String(channel)]) }, text);

const filter = (at, channel, name) => h("figure", { className: "filter" }, h("img", { className: "pixelated", src: `/api/${at}/filters/${channel}.png`, alt: `Filter ${channel} of ${name}` }),
  h("figcaption", {}, "Its filter: warm above zero, cold below; of deeper layers the strongest eight input channels."));

const source = (unit) => (unit.scanned ? `The strongest place in each of ${unit.pictures.toLocaleString("en")} scanned pictures.` : `The strongest place in each of the ${unit.pictures} open pictures; an index of a folder (convscope scan) says more.`);

function patches(unit) {
  const best = unit.patches.filter((each) => each.value > 0 || !unit.silent);
  if (!best.length) return h("p", { className: "soft" }, "Nothing does.");
  return h("div", { className: "patches" }, best.map((each) => {
    const [top, left, bottom, right] = each.box;
    const [height, width] = unit.size;
    const from = each.picture ? `/api/pictures/${each.picture}.png` : `/api/index/pictures/${each.place}/prepared.png`;
    const [high, wide] = [bottom - top, right - left];
    const fitted = { aspectRatio: `${wide} / ${high}`, width: `${100 * Math.min(1, wide / high)}%` }; // at the picture's border less is seen
    const scale = { width: `${(100 * width) / (right - left)}%`, left: `${(-100 * left) / (right - left)}%`, top: `${(-100 * top) / (bottom - top)}%` };
    const address = each.picture ? path(["units", unit.layer, String(unit.channel)], { picture: each.picture }) : path(["index"], { at: each.place });
    const from_ = new URLSearchParams({ row: each.row, column: each.column, ...(each.picture ? { picture: each.picture } : { place: each.place }) });
    const seen = `/api/layers/${encodeURIComponent(unit.layer)}/units/${unit.channel}/seen.png?${from_}`;
    return h("a", { href: address, title: `${number(each.value)} at ${each.row}, ${each.column}` },
      h("span", { className: "square" }, h("span", { className: "patch", style: fitted }, h("img", { src: from, alt: `Patch with activation ${number(each.value)}`, style: scale, loading: "lazy" }))),
      h("span", { className: "square" }, h("img", { className: "guided", src: seen, alt: "What in it excites the unit", loading: "lazy", style: fitted })),
      h("span", { className: "soft" }, number(each.value)));
  }));
}

/** The first technique of the registry that draws a unit from nothing. */
function optimised(layer, channel, closing) {
  const draws = state.techniques.find((each) => each.family === "synthesize" && !each.pictures && ["layer", "unit"].every((name) => each.options.some((option) => option.name === name)));
  if (!draws) return h("p", { className: "soft" }, "No technique that is installed draws it.");
  const made = panel(draws, { options: { ...quick(draws), layer, unit: String(channel) }, small: true, lazy: true });
  closing.push(made.close);
  return made.element;
}

const quick = (technique) => Object.fromEntries(Object.entries(technique.example).filter(([name]) => !["target", "layer", "unit"].includes(name)));

function numbers({ statistics: found, scanned, pictures }) {
  const rows = [["zero on", percent(found.zeros)], ["silent pictures", percent(found.silent)], ["mean", number(found.mean)], ["spread", number(found.spread)], ["maximum", number(found.maximum)]];
  return h("div", {}, h("dl", { className: "facts" }, rows.flatMap(([what, value]) => [h("dt", {}, what), h("dd", {}, value)])), histogram(found.histogram, found.edges, `Its values over ${scanned ? "all" : `the ${pictures} open`} pictures`));
}

/** Every technique that asks about a unit, one click away. */
function more(layer, channel) {
  const found = state.techniques.filter((each) => ["layer", "unit"].every((name) => each.options.some((option) => option.name === name)));
  return h("nav", { className: "more", "aria-label": "Ask more about this unit" }, h("h2", {}, "Ask more about this unit"), h("ul", {}, found.map((each) =>
    h("li", {}, h("a", { href: path(["techniques", each.name], { layer, unit: channel }) }, each.name), " ", h("span", { className: "soft" }, each.summary)))));
}
