// The map of codes: every scanned picture a point. Bokeh pans, zooms and selects; the points are drawn by plane.js beneath
// it, a frame each time that Bokeh paints. Map, table and grid share one selection, and the address holds it.

import { floats, get, post } from "../api.js";
import { h, number, percent, readable, replace, settled } from "../dom.js";
import { packed, Plane, simplified } from "../plane.js";
import { go, here, path, say, state } from "../state.js";

const COLUMNS = 5; // x, y, label, predicted, id
const FINE = 10_000; // steps across the map in which the address tells places
const SLACK = 20; // of these steps, by which a lasso in the address may differ from the line that was drawn
const SHOWN = 60; // pictures of a selection that are drawn
const MOST = 5000; // that are told of
const BUDGET = 25; // milliseconds a drawing may take while the map moves; where all points take longer, fewer move
const COLOURS = ["#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#86bcb6", "#8cd17d", "#d37295"];
const [RIGHT, WRONG, UNKNOWN] = ["#4e79a7", "#f28e2b", "#888888"];

const COLOURINGS = ["true class", "predicted class", "right or wrong"];
const HINT = "Point at a picture, click it, or draw a lasso or a box around several; with Shift another beside it.";
const CHOICE = ["at", "lasso", "only"]; // what of the address is the selection

let loading = null;
/** Bokeh's own scripts, from the installed package, once. */
function bokeh() {
  const script = (name) => new Promise((done, failed) => document.head.append(h("script", { src: `/bokeh/${name}.min.js`, onload: done, onerror: () => failed(new Error("Bokeh is not installed: pip install 'convscope[index]'")) })));
  loading ??= script("bokeh").then(() => script("bokeh-api")).then(() => window.Bokeh);
  return loading;
}

export async function render(main, leaving, staying) {
  const { index } = await get("index");
  if (!index) throw new Error("There is no index here; scan a folder: convscope scan photos/ -o photos.index, then convscope explore photos.index");
  const result = here().query.get("result");
  const place = h("div", { className: "map", role: "application", tabIndex: 0, "aria-label": `Map of ${index.pictures} pictures by their codes. Arrow keys move it, plus and minus zoom, enter chooses the picture in the middle, escape chooses none.` });
  const side = h("aside", { "aria-live": "polite" }, h("p", { className: "soft" }, HINT));
  const placed = state.techniques.filter((each) => each.index && !each.pictures);
  const colouring = h("select", { id: "colour" }, COLOURINGS.map((each) => h("option", { value: each, selected: each === here().query.get("colour") }, each)));
  const legend = h("span", { className: "soft legend" });
  replace(main, h("h1", {}, index.path), h("p", { className: "lead" }, `${index.pictures.toLocaleString("en")} pictures by what the network makes of them, at ${index.code_layers[0]}${result ? "" : ", along the two directions in which they differ most (PCA)"}.`),
    h("p", { className: "buttons" }, h("label", {}, "Colour by ", colouring), legend, result && h("a", { href: path(["index"]) }, "PCA")),
    h("p", { className: "buttons" }, h("span", { className: "soft" }, "Ask the index: "), placed.map((each) => h("a", { className: "quiet", href: path(["techniques", each.name]) }, each.name))),
    h("div", { className: "split map-split" }, place, side));
  const [Bokeh, points] = await Promise.all([bokeh(), floats(`index/points${result ? `?result=${encodeURIComponent(result)}` : ""}`)]);
  const count = points.length / COLUMNS;
  const [x, y, label, predicted, id] = [0, 1, 2, 3, 4].map((i) => points.subarray(i * count, (i + 1) * count));
  const named = (i) => readable(state.network.labels[i] ?? "no class");
  const places = new Map(Array.from(id, (each, i) => [each, i]));
  const map = await chart(Bokeh, place, x, y, (i) => [`/api/index/pictures/${id[i]}.webp`, `${named(label[i])}, taken for ${named(predicted[i])}`]);
  let left = false;
  leaving(() => { left = true; map.close(); });
  if (left) return null; // another page was asked for meanwhile

  const nameless = label.reduce((sum, each) => sum + (each < 0), 0);
  const usual = COLOURINGS[2 * nameless > count ? 1 : 0];
  const recolour = (by) => {
    const of = by === "predicted class" ? predicted : label;
    const colour = by === "right or wrong" ? (i) => (label[i] < 0 ? UNKNOWN : label[i] === predicted[i] ? RIGHT : WRONG) : (i) => (of[i] < 0 ? UNKNOWN : COLOURS[of[i] % COLOURS.length]);
    map.paint(Uint32Array.from(id, (_, i) => packed(colour(i))));
    const grey = nameless > 0 && by !== "predicted class" && [UNKNOWN, "class not known"];
    const swatch = ([is, what]) => h("span", {}, h("i", { style: { background: is } }), what);
    replace(legend, by === "right or wrong" ? [[RIGHT, "right"], [WRONG, "wrong"]].map(swatch) : state.network.labels.length > COLOURS.length ? `${COLOURS.length} colours, which several classes share` : state.network.labels.map((each, i) => swatch([COLOURS[i], readable(each)])), grey && swatch(grey));
  };
  /** Goes to an address that differs in this. */
  const move = (changed, how) => go(path(["index"], { ...Object.fromEntries(here().query), view: map.view(), ...changed }), how);
  const choose = (wanted) => move({ ...Object.fromEntries(CHOICE.map((name) => [name, ""])), ...wanted });
  const all = Array.from(id, (_, i) => ({ predicted: named(predicted[i]), correct: label[i] < 0 ? null : label[i] === predicted[i] }));
  const lassos = () => here().query.get("lasso") ?? "";
  let shown = null; // what of the selection and the colours is drawn
  /** Draws what the address says; false where that is another map. */
  const follow = () => {
    const { page, query } = here();
    if (page !== "index" || query.get("result") !== result) return false;
    const by = COLOURINGS.includes(query.get("colour")) ? query.get("colour") : usual;
    if (by !== shown?.by) { recolour(by); colouring.value = by; }
    const key = CHOICE.map((name) => query.get(name) ?? "").join("|");
    if (key !== shown?.key) select(query);
    shown = { by, key };
    map.look(query.get("view"));
    return true;
  };
  const select = (query) => {
    const rings = (query.get("lasso") ?? "").split("*").map((text) => map.unfolded(text)).filter((ring) => ring.length > 2);
    const only = query.get("only");
    const at = (query.get("at") ?? "").split(",").filter(Boolean).map(Number).filter((each) => places.has(each));
    const flags = new Uint8Array(count);
    for (const ring of rings) map.within(ring, flags);
    for (const each of at) flags[places.get(each)] = 1;
    if (only && !rings.length) flags.fill(1);
    if (only) for (let i = 0; i < count; i++) if (named(predicted[i]) !== only) flags[i] = 0;
    const ids = Array.from(id).filter((_, i) => flags[i]);
    map.mark(ids.length || rings.length || only ? flags : null, rings);
    return tell(side, ids, { rings, only, choose, all, near: (more) => { for (const each of more) if (places.has(each)) flags[places.get(each)] = 1; map.mark(flags, rings); } });
  };
  map.on({
    lasso: (ring, more) => choose({ lasso: [more && lassos(), map.folded(ring)].filter(Boolean).join("*") }),
    tap: (i, more) => {
      const before = more ? (here().query.get("at") ?? "").split(",").filter(Boolean) : [];
      if (i >= 0 || lassos() || here().query.get("at") || here().query.get("only")) choose({ at: i < 0 ? "" : [...new Set([...before, String(id[i])])].join(",") });
    },
    view: () => { if (here().page === "index") move({}, { instead: true }); },
  });
  colouring.addEventListener("change", () => move({ colour: colouring.value }, { instead: true }));
  staying(follow);
  follow();
  place.dataset.drawn = "";
  return "Map";
}

/** The plot: Bokeh's tools and ranges over a plane of points. */
async function chart(Bokeh, place, x, y, tip) {
  const bound = (values) => values.reduce(([low, high], each) => [Math.min(low, each), Math.max(high, each)], [Infinity, -Infinity]);
  const [[left, right], [bottom, top]] = [bound(x), bound(y)];
  const [across, along] = [right - left || 1, top - bottom || 1];
  const canvas = h("canvas", { className: "points", "aria-hidden": "true" });
  const bubble = h("div", { className: "tip", hidden: true }, h("img", { alt: "" }), h("span"));
  const plane = new Plane(canvas, x, y);
  const ranges = [new Bokeh.Range1d({ start: left, end: right }), new Bokeh.Range1d({ start: bottom, end: top })];
  const plot = Bokeh.Plotting.figure({ x_range: ranges[0], y_range: ranges[1], sizing_mode: "stretch_both", toolbar_location: "above", tools: ["pan", "wheel_zoom", "box_zoom", "lasso_select", "box_select", "tap", "reset"], background_fill_color: null, border_fill_color: null, outline_line_color: null });
  for (const tool of plot.toolbar.tools) {
    if (tool.type === "WheelZoomTool") plot.toolbar.active_scroll = tool;
    if (tool.type === "BoxZoomTool") tool.match_aspect = true;
  }
  plot.toolbar.logo = null;
  for (const axis of [plot.xaxis, plot.yaxis].flat()) axis.visible = false;
  for (const grid of [plot.xgrid, plot.ygrid].flat()) grid.visible = false;
  place.append(canvas);
  const view = [await Bokeh.Plotting.show(plot, place)].flat()[0];
  place.append(bubble);
  let act = {};
  let rings = [];
  let size = null; // of the frame when it was drawn last
  let wanted = null; // a view of the address that is not drawn yet
  let shift = false;
  let painted = false;
  let [moving, fine] = [false, 0]; // and how many milliseconds it takes to draw all points

  const frame = () => view.frame.bbox;
  const fit = () => Math.max(across / frame().width, along / frame().height) * 1.08; // what a pixel spans when all is seen
  const set = (cx, cy, unit) => {
    const { width, height } = frame();
    ranges[0].setv({ start: cx - (unit * width) / 2, end: cx + (unit * width) / 2 });
    ranges[1].setv({ start: cy - (unit * height) / 2, end: cy + (unit * height) / 2 });
  };
  const middle = () => [(ranges[0].start + ranges[0].end) / 2, (ranges[1].start + ranges[1].end) / 2];
  const unit = () => (ranges[0].end - ranges[0].start) / frame().width;
  const home = () => [(left + right) / 2, (bottom + top) / 2, fit()];
  const told = () => { const [cx, cy] = middle(); return [...fold([cx, cy]), Math.round((100 * fit()) / unit())].join("."); };
  const usual = () => { const [cx, cy] = home(); return [...fold([cx, cy]), 100].join("."); };
  const fold = ([px, py]) => [Math.round(((px - left) / across) * FINE), Math.round(((py - bottom) / along) * FINE)];
  const unfold = ([px, py]) => [left + (px / FINE) * across, bottom + (py / FINE) * along];
  const pixel = ([px, py]) => [(px - ranges[0].start) / unit(), (ranges[1].end - py) / unit()];
  const rested = settled(() => { moving = false; if (fine > BUDGET) again(); }, 150);
  const moved = settled(() => act.view?.(), 250);
  const draw = () => {
    const { width, height } = frame();
    if (width < 8 || height < 8) return;
    if (size !== `${width} ${height}`) { // laid out anew: what is in the middle stays there, and circles stay round
      const [cx, cy, span] = wanted ? [...unfold(wanted), fit() / (wanted[2] / 100)] : size ? [...middle(), unit()] : home();
      const first = size === null;
      size = `${width} ${height}`;
      wanted = null;
      [ranges[0].reset_start, ranges[0].reset_end] = [home()[0] - (fit() * width) / 2, home()[0] + (fit() * width) / 2];
      [ranges[1].reset_start, ranges[1].reset_end] = [home()[1] - (fit() * height) / 2, home()[1] + (fit() * height) / 2];
      set(cx, cy, span);
      if (!first) return; // setting has asked for a painting
    }
    if (!painted) return;
    Object.assign(canvas.style, { left: `${frame().left}px`, top: `${frame().top}px` });
    const base = x.length > 50_000 ? 2.5 : x.length > 5_000 ? 4 : 7;
    const finest = window.devicePixelRatio || 1;
    const quick = moving && fine > BUDGET ? { ratio: 1, step: Math.max(1, Math.ceil(fine / finest ** 2 / BUDGET)) } : { ratio: finest, step: 1 };
    const began = performance.now();
    plane.draw({ left: ranges[0].start, top: ranges[1].end, unit: unit() }, width, height, Math.min(Math.max(base, 10), base * Math.max(1, fit() / unit()) ** 0.4), getComputedStyle(document.documentElement).getPropertyValue("--paper").trim(), quick);
    if (quick.ratio === finest && quick.step === 1) fine = performance.now() - began;
    outline();
  };
  const outline = () => {
    const { pen, ratio } = plane;
    pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
    pen.lineWidth = 1.5 * ratio;
    for (const ring of rings) {
      pen.beginPath();
      for (const corner of ring) pen.lineTo(...pixel(corner).map((each) => each * ratio));
      pen.closePath();
      pen.stroke();
    }
  };
  let asked = 0;
  const again = () => { asked ||= requestAnimationFrame(() => { asked = 0; draw(); }); };

  let under = -1; // the point whose picture is shown
  const show = (i, column, row) => {
    bubble.hidden = i < 0;
    if (i < 0) { under = -1; return; }
    if (i !== under) {
      const [source, text] = tip(i);
      under = i;
      bubble.firstChild.src = source;
      bubble.lastChild.textContent = text;
    }
    const { width, height, left: by, top: down } = frame();
    Object.assign(bubble.style, { left: `${by + (column < width / 2 ? column + 14 : column - 14)}px`, top: `${down + (row < height / 2 ? row + 14 : row - 14)}px`, transform: `translate(${column < width / 2 ? 0 : "-100%"}, ${row < height / 2 ? 0 : "-100%"})` });
  };
  const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  const inside = ([column, row]) => column >= 0 && row >= 0 && column < frame().width && row < frame().height;
  place.addEventListener("pointermove", (event) => { shift = event.shiftKey; const spot = at(event); show(event.buttons || !inside(spot) ? -1 : plane.pick(...spot), ...spot); }, true);
  place.addEventListener("pointerup", (event) => { shift = event.shiftKey; }, true);
  place.addEventListener("pointerleave", () => show(-1));
  place.addEventListener("wheel", () => show(-1), { passive: true, capture: true });
  const centre = () => [frame().width / 2, frame().height / 2];
  place.addEventListener("keydown", (event) => {
    const [cx, cy] = middle();
    const step = unit() * 60;
    const go_ = { ArrowLeft: [cx - step, cy, unit()], ArrowRight: [cx + step, cy, unit()], ArrowUp: [cx, cy + step, unit()], ArrowDown: [cx, cy - step, unit()], "+": [cx, cy, unit() / 1.3], "=": [cx, cy, unit() / 1.3], "-": [cx, cy, unit() * 1.3], 0: home() }[event.key];
    if (event.target !== place || event.ctrlKey || event.metaKey || event.altKey) return;
    if (go_) { set(...go_); setTimeout(() => show(plane.pick(...centre(), 60), ...centre()), 60); } else if (event.key === "Enter") act.tap?.(plane.pick(...centre(), 60), event.shiftKey);
    else if (event.key === "Escape") act.tap?.(-1, false);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  place.addEventListener("blur", () => show(-1));
  view.repainted.connect(draw);
  for (const range of ranges) range.change.connect(() => { moving = true; rested(); moved(); });
  plot.on_event("selectiongeometry", ({ geometry, final }) => {
    if (!final) return;
    if (geometry.type === "point") act.tap?.(plane.pick(geometry.sx - frame().left, geometry.sy - frame().top), shift);
    else if (geometry.type === "rect") act.lasso?.([[geometry.x0, geometry.y0], [geometry.x1, geometry.y0], [geometry.x1, geometry.y1], [geometry.x0, geometry.y1]], shift);
    else if (geometry.x.length > 2) act.lasso?.(Array.from(geometry.x, (each, i) => [each, geometry.y[i]]), shift);
  });
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", again);
  draw();
  return {
    on: (acts) => { act = acts; },
    view: () => (!size || told() === usual() ? "" : told()),
    paint: (colours) => { plane.colours = colours; painted = true; again(); },
    mark: (flags, lines) => { plane.chosen = flags; rings = lines; again(); },
    within: (ring, flags) => plane.within(ring, flags),
    /** A ring as the address tells it, and back. */
    folded: (ring) => {
      const [steps, half] = [ring.map(fold), ring.length >> 1];
      const corners = [...simplified(steps.slice(0, half + 1), SLACK).slice(0, -1), ...simplified(steps.slice(half), SLACK)].map((each) => each.join("."));
      return corners.filter((each, i) => i === 0 || (each !== corners[i - 1] && (i < corners.length - 1 || each !== corners[0]))).join("_");
    },
    unfolded: (text) => text.split("_").map((each) => each.split(".").map(Number)).filter((each) => each.length === 2 && each.every(Number.isFinite)).map(unfold),
    /** Goes to the view that the address tells of, where it is another. */
    look: (text) => {
      const found = (text || (size ? usual() : "")).split(".").map(Number);
      if (found.length !== 3 || !found.every(Number.isFinite) || found[2] <= 0 || (size && found.join(".") === told())) return;
      if (size) set(...unfold(found), fit() / (found[2] / 100));
      else wanted = found;
    },
    close: () => { scheme.removeEventListener("change", again); plot.document?.clear(); place.replaceChildren(); act = {}; },
  };
}

/** What the side says of the pictures that are chosen. */
async function tell(side, ids, chosen) {
  tell.turn = (tell.turn ?? 0) + 1;
  const { turn } = tell;
  try {
    const drawn = ids.length === 1 && !chosen.only && !chosen.rings.length ? await one(ids[0], chosen) : ids.length || chosen.only || chosen.rings.length ? await several(ids, chosen) : [h("p", { className: "soft" }, HINT), counted(chosen.all, chosen)];
    if (turn === tell.turn) replace(side, drawn);
  } catch (error) {
    say(error.message);
  }
}

const thumbnail = (each, words, { choose }) => h("a", { href: path(["index"], { ...Object.fromEntries(here().query), lasso: "", only: "", at: each.id }), title: each.title, onclick: (event) => { event.preventDefault(); choose({ at: String(each.id) }); } },
  h("img", { src: `/api/index/pictures/${each.id}.webp`, alt: each.title, loading: "lazy" }), h("span", { className: "soft" }, words));

async function one(id, chosen) {
  const found = await get(`index/pictures/${id}`);
  const open = async () => { try { const made = await post(`index/pictures/${id}`, {}); state.pictures = [made, ...state.pictures.filter((each) => each.id !== made.id)]; go(path(["pictures", made.id], { picture: "" })); } catch (error) { say(error.message); } };
  chosen.near(found.neighbours.map((each) => each.id));
  return [h("h2", {}, found.title), h("img", { className: "chosen", src: `/api/index/pictures/${id}.webp`, alt: found.title }),
    h("p", {}, found.label && `It is ${readable(found.label)}. `, `Taken for ${readable(found.predicted)}, ${percent(found.probability)}.`), h("p", { className: "buttons" }, h("button", { type: "button", className: "main", onclick: open }, "Look into it")),
    h("h3", {}, "Nearest to it"), h("p", { className: "soft" }, "With their distances between codes; the map shows them, too."), h("div", { className: "grid-of" }, found.neighbours.map((each) => thumbnail(each, number(each.distance), chosen)))];
}

/** How many are right, and what they are taken for; each class narrows the choice to its pictures. */
function counted(rows, { choose }) {
  const right = rows.filter((each) => each.correct).length;
  const known = rows.filter((each) => each.correct !== null).length;
  const sums = new Map();
  for (const each of rows) sums.set(each.predicted, (sums.get(each.predicted) ?? 0) + 1);
  const tally = [...sums].sort(([, a], [, b]) => b - a);
  const query = Object.fromEntries(CHOICE.map((name) => [name, here().query.get(name) ?? ""]));
  return [known > 0 && h("p", {}, `${percent(right / known)} of ${known < rows.length ? `the ${known.toLocaleString("en")}` : "those"} with a known class are right.`),
    h("div", { className: "scroll", tabIndex: 0 }, h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "taken for"), h("th", { className: "number" }, "pictures"))), h("tbody", {}, tally.map(([name, sum]) => h("tr", {}, h("td", {}, h("button", { type: "button", className: "plain", title: "Only these", onclick: () => choose({ ...query, only: readable(name) }) }, readable(name))), h("td", { className: "number" }, String(sum)))))))];
}

async function several(ids, chosen) {
  const { rows } = await post("index/rows", { ids: ids.slice(0, MOST) });
  const text = () => ["id,path,label,predicted,probability", ...rows.map((each) => [each.id, ...[each.path, each.label ?? "", each.predicted].map((part) => (/[",\n]/.test(part) ? `"${part.replaceAll('"', '""')}"` : part)), each.probability.toFixed(4)].join(","))].join("\n");
  const save = () => { const link = h("a", { href: URL.createObjectURL(new Blob([text()], { type: "text/csv" })), download: "selection.csv" }); link.click(); URL.revokeObjectURL(link.href); };
  const query = Object.fromEntries(CHOICE.map((name) => [name, here().query.get(name) ?? ""]));
  return [h("h2", {}, `${ids.length.toLocaleString("en")} ${ids.length === 1 ? "picture" : "pictures"}`), chosen.only && h("p", {}, `Those taken for ${chosen.only}. `, h("button", { type: "button", className: "plain", onclick: () => chosen.choose({ ...query, only: "" }) }, "All of them")),
    ids.length > MOST && h("p", { className: "soft" }, `The first ${MOST.toLocaleString("en")} are told of and saved.`),
    h("p", { className: "buttons" }, h("button", { type: "button", onclick: save }, "Save the selection as CSV"), h("button", { type: "button", onclick: () => chosen.choose({}) }, "Choose none")), counted(rows, chosen),
    h("div", { className: "grid-of" }, rows.slice(0, SHOWN).map((each) => thumbnail(each, readable(each.predicted), chosen))), rows.length > SHOWN && h("p", { className: "soft" }, `The first ${SHOWN} are shown.`)];
}
