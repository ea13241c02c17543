// The map of codes: every scanned picture a point, drawn by Bokeh from typed columns; selection shared with a grid and a table.

import { floats, get, post } from "../api.js";
import { h, number, percent, readable, replace } from "../dom.js";
import { go, here, path, say, state } from "../state.js";

const COLUMNS = 5; // x, y, label, predicted, id
const MOVED = 10_000; // points that are drawn while the map moves, where the processor draws
const SHOWN = 60; // pictures of a selection that are drawn
const MOST = 5000; // that are told of
const COLOURS = ["#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#86bcb6", "#8cd17d", "#d37295"];

const COLOURINGS = ["true class", "predicted class", "right or wrong"];
const HINT = "Point at a picture, click it, or draw a lasso or a box around several.";

/** Whether a graphics card draws WebGL: a processor is quicker without it, with fewer points while the map moves. */
function accelerated() {
  const gl = document.createElement("canvas").getContext("webgl");
  const info = gl?.getExtension("WEBGL_debug_renderer_info");
  return Boolean(gl) && !/swiftshader|llvmpipe|software|basic render/i.test(info ? gl.getParameter(info.UNMASKED_RENDERER_WEBGL) : "");
}

let loading = null;
/** Bokeh's own scripts, from the installed package, once. */
function bokeh() {
  const script = (name) => new Promise((done, failed) => document.head.append(h("script", { src: `/bokeh/${name}.min.js`, onload: done, onerror: () => failed(new Error("Bokeh is not installed: pip install 'convscope[index]'")) })));
  loading ??= script("bokeh").then(() => Promise.all(["bokeh-gl", "bokeh-api"].map(script))).then(() => window.Bokeh);
  return loading;
}

export async function render(main, leaving) {
  const { query } = here();
  const { index } = await get("index");
  if (!index) throw new Error("There is no index here; scan a folder: convscope scan photos/ -o photos.index, then convscope explore photos.index");
  const result = query.get("result");
  const place = h("div", { className: "map", role: "group", "aria-label": `Map of ${index.pictures} pictures by their codes` });
  const side = h("aside", { "aria-live": "polite" }, h("p", { className: "soft" }, HINT));
  const placed = state.techniques.filter((each) => each.index && !each.pictures);
  replace(main, h("h1", {}, index.path), h("p", { className: "lead" }, `${index.pictures.toLocaleString("en")} pictures by what the network makes of them, at ${index.code_layers[0]}${result ? "" : ", along the two directions in which they differ most (PCA)"}.`),
    h("p", { className: "buttons" }, h("label", {}, "Colour by ", h("select", { id: "colour" }, COLOURINGS.map((each) => h("option", { value: each, selected: each === query.get("colour") }, each)))),
      result && h("a", { href: path(["index"]) }, "PCA"), h("span", { className: "soft" }, "Ask the index: "), placed.map((each) => h("a", { className: "quiet", href: path(["techniques", each.name]) }, each.name))),
    h("div", { className: "split map-split" }, place, side));
  const [Bokeh, points] = await Promise.all([bokeh(), floats(`index/points${result ? `?result=${encodeURIComponent(result)}` : ""}`)]);
  const count = points.length / COLUMNS;
  const column = (i) => points.subarray(i * count, (i + 1) * count);
  const [x, y, label, predicted, id] = [0, 1, 2, 3, 4].map(column);
  const colours = (by) => Array.from(id, (_, i) => (by === "right or wrong" ? (label[i] < 0 ? "#888888" : label[i] === predicted[i] ? "#59a14f" : "#e15759") : ((by === "predicted class" ? predicted[i] : label[i]) < 0 ? "#888888" : COLOURS[(by === "predicted class" ? predicted[i] : label[i]) % COLOURS.length])));
  const said = (i) => readable(state.network.labels[i] ?? "no class");
  const source = new Bokeh.ColumnDataSource({ data: { x, y, id: Array.from(id), colour: colours(query.get("colour") ?? COLOURINGS[0]), said: Array.from(predicted, (i) => said(i)), label: Array.from(label, (i) => said(i)) } });
  const hover = new Bokeh.HoverTool({ tooltips: '<div class="tip"><img src="/api/index/pictures/@id{0}.webp" alt="" width="96"><span>@label, taken for @said</span></div>', mode: "mouse", limit: 1 });
  const plot = Bokeh.Plotting.figure({ output_backend: accelerated() ? "webgl" : "canvas", lod_threshold: MOVED, lod_factor: Math.max(10, Math.ceil(count / MOVED)), sizing_mode: "stretch_both", toolbar_location: "above", tools: ["pan", "wheel_zoom", "box_zoom", "lasso_select", "box_select", "tap", "reset"], match_aspect: true });
  plot.add_tools(hover);
  const wheel = plot.toolbar.tools.find((tool) => tool.type === "WheelZoomTool");
  if (wheel) plot.toolbar.active_scroll = wheel;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  for (const axis of [plot.xaxis, plot.yaxis].flat()) axis.visible = false;
  for (const grid of [plot.xgrid, plot.ygrid].flat()) grid.visible = false;
  plot.background_fill_color = plot.border_fill_color = dark ? "#17181c" : "#fdfcfa";
  plot.outline_line_color = null;
  plot.scatter({ x: { field: "x" }, y: { field: "y" }, source, size: count > 20_000 ? 3 : 6, fill_color: { field: "colour" }, line_color: null, fill_alpha: 0.75, nonselection_fill_alpha: 0.12 });
  const views = await Bokeh.Plotting.show(plot, place);
  place.dataset.drawn = "";
  leaving(() => { for (const view of [views].flat()) view.model?.document?.clear?.(); place.replaceChildren(); });
  document.getElementById("colour").addEventListener("change", (event) => {
    source.data = { ...source.data, colour: colours(event.target.value) };
    history.replaceState({}, "", path(["index"], { ...Object.fromEntries(here().query), colour: event.target.value }));
  });
  const places = new Map(Array.from(id, (each, i) => [each, i]));
  let own = false; // what the table and the grid mark is not asked for again
  const map = {
    /** Marks these pictures and leaves the rest faint. */
    mark: (ids) => { own = true; source.selected.indices = ids.map((each) => places.get(each)).filter((i) => i !== undefined); own = false; },
    /** Chooses them, as a lasso does. */
    choose: (ids) => { map.mark(ids); return chosen(side, ids, map); },
  };
  source.selected.change.connect(() => own || chosen(side, [...source.selected.indices].map((i) => id[i]), map));
  if (query.get("at")) await map.choose([Number(query.get("at"))]);
  return "Map";
}

async function chosen(side, ids, map) {
  const query = { ...Object.fromEntries(here().query), at: ids.length === 1 ? ids[0] : "" };
  history.replaceState({}, "", path(["index"], query));
  if (!ids.length) return replace(side, h("p", { className: "soft" }, HINT));
  try {
    return ids.length === 1 ? await one(side, ids[0], map) : await several(side, ids, map);
  } catch (error) {
    return say(error.message);
  }
}

const thumbnail = (each, words, map) => h("a", { href: path(["index"], { at: each.id }), title: each.title, onclick: (event) => { event.preventDefault(); event.stopPropagation(); map.choose([each.id]); } },
  h("img", { src: `/api/index/pictures/${each.id}.webp`, alt: each.title, loading: "lazy" }), h("span", { className: "soft" }, words));

async function one(side, id, map) {
  const found = await get(`index/pictures/${id}`);
  const open = async () => { try { const made = await post(`index/pictures/${id}`, {}); state.pictures = [made, ...state.pictures.filter((each) => each.id !== made.id)]; go(path(["pictures", made.id], { picture: "" })); } catch (error) { say(error.message); } };
  map.mark([id, ...found.neighbours.map((each) => each.id)]);
  replace(side, h("h2", {}, found.title), h("img", { className: "chosen", src: `/api/index/pictures/${id}.webp`, alt: found.title }),
    h("p", {}, found.label && `It is ${readable(found.label)}. `, `Taken for ${readable(found.predicted)}, ${percent(found.probability)}.`), h("p", { className: "buttons" }, h("button", { type: "button", className: "main", onclick: open }, "Look into it")),
    h("h3", {}, "Nearest to it"), h("p", { className: "soft" }, "With their distances between codes; the map shows them, too."), h("div", { className: "grid-of" }, found.neighbours.map((each) => thumbnail(each, number(each.distance), map))));
}

async function several(side, ids, map) {
  const { rows } = await post("index/rows", { ids: ids.slice(0, MOST) });
  const right = rows.filter((each) => each.correct).length;
  const known = rows.filter((each) => each.correct !== null).length;
  const tally = Object.entries(rows.reduce((sums, each) => ({ ...sums, [each.predicted]: (sums[each.predicted] ?? 0) + 1 }), {})).sort(([, a], [, b]) => b - a);
  const text = () => ["id,path,label,predicted,probability", ...rows.map((each) => [each.id, `"${each.path.replaceAll('"', '""')}"`, each.label ?? "", each.predicted, each.probability.toFixed(4)].join(","))].join("\n");
  const save = () => { const link = h("a", { href: URL.createObjectURL(new Blob([text()], { type: "text/csv" })), download: "selection.csv" }); link.click(); URL.revokeObjectURL(link.href); };
  replace(side, h("h2", {}, `${ids.length.toLocaleString("en")} pictures`), known > 0 && h("p", {}, `${percent(right / known)} of those with a known class are right.`),
    ids.length > MOST && h("p", { className: "soft" }, `The first ${MOST.toLocaleString("en")} are told of and saved.`), h("p", { className: "buttons" }, h("button", { type: "button", onclick: save }, "Save the selection as CSV")),
    h("div", { className: "scroll", tabIndex: 0 }, h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "taken for"), h("th", { className: "number" }, "pictures"))), h("tbody", {}, tally.slice(0, 20).map(([name, sum]) => h("tr", {}, h("td", {}, h("button", { type: "button", className: "plain", title: "Only these", onclick: () => map.choose(rows.filter((each) => each.predicted === name).map((each) => each.id)) }, readable(name))), h("td", { className: "number" }, String(sum))))))),
    h("div", { className: "grid-of" }, rows.slice(0, SHOWN).map((each) => thumbnail(each, readable(each.predicted), map))), rows.length > SHOWN && h("p", { className: "soft" }, `The first ${SHOWN} are shown.`));
}
