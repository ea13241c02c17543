// One picture: what the network says, what it looked at, and what it says when the picture is changed.

import { get, post } from "../api.js";
import { h, percent, readable, replace, settled } from "../dom.js";
import { panel, repeat } from "../panel.js";
import { go, here, path, say, state } from "../state.js";

const BRUSH = 1 / 14; // of the shorter side
const STEP = 1 / 255;
const MOST = 400; // squares of a cover
const FILLS = [["mean", "the mean colour"], ["grey", "grey"], ["black", "black"]];
const CHEAP = 4; // maps that are made without being asked for

export async function render(main, leaving) {
  const { rest: [id], query } = here();
  if (!id) {
    if (state.pictures[0]) go(path(["pictures", state.pictures[0].id], { picture: "" }), { instead: true });
    else replace(main, h("h1", {}, "No picture yet"), h("p", { className: "lead" }, "Drop one here, paste one, or press o."));
    return "Picture";
  }
  const found = await get(`pictures/${id}`);
  const closing = [];
  leaving(() => closing.forEach((close) => close()));
  const change = changes(found, query);
  const maps = h("section", { className: "family" }, h("h2", {}, "What it looked at"));
  replace(main, h("h1", {}, readable(found.prediction[0].label)), h("p", { className: "lead" }, `That is what ${state.network.name} takes “${found.title}” for, with ${percent(found.prediction[0].probability)}. Cover parts of the picture, move it against its class or paint it in another texture, and see what becomes of the answer.`),
    h("div", { className: "split" }, change.stage, h("div", {}, change.bars, change.tools)), maps);
  attributions(maps, found, Number(query.get("maps") ?? CHEAP), closing);
  return readable(found.prediction[0].label);
}

/** What of the address says how the picture is changed, and the other way round. */
const read = (query, side) => ({
  boxes: (query.get("cover") ?? "").split("-").map((each) => each.split(".").map(Number)).filter((each) => each.length === 2 && each.every(Number.isInteger)).slice(0, MOST).map(([top, left]) => [top, left, side, side]),
  fill: FILLS.map(([name]) => name).find((name) => name === query.get("fill")) ?? "mean", epsilon: Math.min(16, Math.max(0, Number(query.get("epsilon")) || 0)) * STEP,
  style: state.network.styles.find((name) => name === query.get("style")) ?? null, strength: Math.min(1, Math.max(0, Number(query.get("strength") ?? 1) || 0)),
});
const written = ({ boxes, fill, epsilon, style, strength }) => ({
  cover: boxes.map(([top, left]) => `${top}.${left}`).join("-"), fill: boxes.length && fill !== "mean" ? fill : "", epsilon: epsilon ? epsilon / STEP : "", style, strength: style && strength < 1 ? strength : "",
});

function changes(found, query) {
  const { width, height, id } = found;
  const side = Math.max(4, Math.round(Math.min(width, height) * BRUSH));
  const now = read(query, side);
  const canvas = h("canvas", { width, height, tabIndex: 0, role: "img", "aria-label": "The picture, to paint over. Arrow keys move a cover, space sets it, backspace clears all." });
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d");
  const clean = h("img", { src: `/api/pictures/${id}.png`, alt: "The picture as it was", width, height });
  const words = h("p", { className: "soft under", role: "status" }, "Paint on the left picture; the right one stays as it was.");
  const bars = h("div", { className: "changed", "aria-live": "polite" });
  let shown = clean;
  let cursor = null;
  const saved = settled(() => { save.href = canvas.toDataURL(); }, 200);
  const draw = () => {
    saved();
    pen.drawImage(shown, 0, 0, width, height);
    pen.fillStyle = { mean: now.mean ?? "#808080", grey: "#808080", black: "#000" }[now.fill];
    for (const [top, left, high, wide] of now.boxes) pen.fillRect(left, top, wide, high);
    if (cursor) { pen.strokeStyle = "#fff"; pen.lineWidth = Math.max(1, width / 160); pen.strokeRect(cursor[1], cursor[0], side, side); }
  };
  const begin = () => {
    pen.drawImage(clean, 0, 0, width, height);
    const { data } = pen.getImageData(0, 0, width, height);
    const sums = [0, 0, 0];
    for (let i = 0; i < data.length; i += 4) for (let c = 0; c < 3; c++) sums[c] += data[i + c];
    now.mean = `rgb(${sums.map((sum) => Math.round(sum / (data.length / 4))).join(" ")})`;
    draw();
    if (told()) ask();
  };
  let asked = null;
  const again = repeat(found);
  const save = h("a", { download: "changed.png", hidden: true }, "Save the changed picture");
  const told = () => {
    const any = now.boxes.length > 0 || now.epsilon > 0 || now.style !== null;
    save.hidden = !any;
    return any;
  };
  const ask = settled(async () => {
    if (here().page !== "pictures" || here().rest[0] !== id) return;
    history.replaceState({}, "", path(["pictures", id], { picture: "", maps: here().query.get("maps"), ...written(now) }));
    const any = told();
    asked?.abort();
    asked = new AbortController();
    try {
      const { mean, ...wanted } = now;
      const began = performance.now();
      const answer = await post(`pictures/${id}/changes`, wanted, asked.signal);
      if (answer.picture) { const made = new Image(); made.onload = () => { shown = made; draw(); }; made.src = answer.picture; } else { shown = clean; draw(); }
      drawBars(bars, answer.classes);
      again.draw(answer);
      const saved = answer.saved > 0 ? `, ${percent(answer.saved)} of the arithmetic saved by computing only what changed` : "";
      words.textContent = any ? `Answered in ${Math.round(performance.now() - began)} ms${saved}.` : "Paint on the left picture; the right one stays as it was.";
    } catch (error) {
      if (error.name !== "AbortError") say(error.message);
    }
  }, 30);
  const cover = (y, x) => {
    const top = Math.min(height - side, Math.max(0, Math.round(y / side - 0.5) * side));
    const left = Math.min(width - side, Math.max(0, Math.round(x / side - 0.5) * side));
    if (now.boxes.some(([t, l]) => t === top && l === left) || now.boxes.length >= MOST) return;
    now.boxes.push([top, left, side, side]);
    draw();
    ask();
  };
  const at = (event) => { const box = canvas.getBoundingClientRect(); return [((event.clientY - box.top) / box.height) * height, ((event.clientX - box.left) / box.width) * width]; };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); cover(...at(event)); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) cover(...at(event)); });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (move) { cursor = cursor ?? [0, 0]; cursor = [Math.min(height - side, Math.max(0, cursor[0] + move[0] * side)), Math.min(width - side, Math.max(0, cursor[1] + move[1] * side))]; } else if (event.key === " ") cover(...(cursor ?? [0, 0]).map((edge) => edge + side / 2));
    else if (event.key === "Backspace") now.boxes = [];
    else return;
    event.preventDefault();
    event.stopPropagation();
    draw();
    ask();
  });
  canvas.addEventListener("blur", () => { cursor = null; draw(); });
  drawBars(bars, found.prediction.map((each) => ({ ...each, before: each.probability, after: each.probability })));
  const epsilonOut = h("span", { className: "number" }, String(now.epsilon / STEP));
  const tools = h("div", { className: "tools" },
    h("p", { className: "buttons" }, h("label", {}, "Cover with ", h("select", { onchange: (event) => { now.fill = event.target.value; draw(); ask(); } }, FILLS.map(([value, text]) => h("option", { value, selected: value === now.fill }, text)))), h("button", { type: "button", onclick: () => { now.boxes = []; draw(); ask(); } }, "Uncover")),
        h("label", {}, "Move against its class, ε = ", epsilonOut, " / 255 ", h("input", { type: "range", min: 0, max: 16, step: 0.5, value: now.epsilon / STEP, oninput: (event) => { epsilonOut.textContent = event.target.value; now.epsilon = Number(event.target.value) * STEP; ask(); } })),
    state.network.styles.length > 0 && h("label", {}, "Texture of ", h("select", { onchange: (event) => { now.style = event.target.value || null; ask(); } }, h("option", { value: "" }, "its own"), state.network.styles.map((style) => h("option", { value: style, selected: style === now.style }, readable(style))))),
    state.network.styles.length > 0 && h("label", {}, "this much ", h("input", { type: "range", min: 0, max: 1, step: 0.05, value: now.strength, oninput: (event) => { now.strength = Number(event.target.value); if (now.style) ask(); } })),
    h("p", { className: "buttons" }, h("button", { type: "button", onclick: () => go(path(["pictures", id], { picture: "" })) }, "As it was"), save), again.element);
  const stage = h("div", { className: "look" }, h("div", { className: "pair" }, h("div", { className: "stage" }, canvas), h("div", { className: "stage" }, clean)), words);
  if (clean.complete && clean.naturalWidth) begin();
  else clean.addEventListener("load", begin, { once: true });
  return { stage, bars, tools };
}

/** Before and after of each class, on one scale. */
function drawBars(place, classes) {
  replace(place, h("ol", { className: "ranks" }, classes.map((each) => {
    const moved = each.after - each.before;
    return h("li", {}, h("a", { href: path(["classes", String(each.index)]) }, readable(each.label)),
      h("span", { className: "number" }, percent(each.after), Math.abs(moved) >= 0.0005 && h("em", { className: moved > 0 ? "up" : "down" }, ` ${moved > 0 ? "+" : "−"}${(100 * Math.abs(moved)).toFixed(1)}`)),
      h("i", { className: "track" }, h("i", { className: "was", style: { width: `${100 * each.before}%` } }), h("i", { className: "is", style: { width: `${100 * each.after}%` } })));
  })));
}

/** Heat maps one after another, beside the same technique on random weights where that is asked for. */
function attributions(place, found, count, closing) {
  const attribute = state.techniques.filter((each) => each.family === "attribute" && each.pictures && each.network);
  const show = (technique) => {
    const made = h("div");
    const run = (control) => {
      const shown = panel(technique, { pictures: [found.id], options: technique.example, control, lazy: true, folded: true });
      closing.push(shown.close);
      replace(made, shown.element);
    };
    run(false);
    const beside = h("label", { className: "switch" }, h("input", { type: "checkbox", onchange: (event) => run(event.target.checked) }), " beside the same with random weights, on one scale");
    return h("article", {}, h("h3", {}, h("a", { href: path(["techniques", technique.name]) }, technique.name)), h("p", { className: "claim" }, technique.summary), beside, made, h("p", { className: "soft" }, technique.caution));
  };
  const rest = attribute.slice(count);
  const maps = h("div", { className: "maps" }, attribute.slice(0, count).map(show));
  place.append(maps, rest.length ? h("p", { className: "buttons" }, h("span", { className: "soft" }, "And by "), rest.map((technique) => {
    const button = h("button", { type: "button", className: "quiet", onclick: () => { maps.append(show(technique)); button.remove(); } }, technique.name);
    return button;
  })) : "");
}
