// One picture: what the network says, what it looked at, and what it says when the picture is changed.

import { get, post } from "../api.js";
import { h, percent, readable, replace, settled } from "../dom.js";
import { panel } from "../panel.js";
import { go, here, path, say, state } from "../state.js";

const BRUSH = 1 / 14; // of the shorter side
const STEP = 1 / 255;
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
  const change = changes(found);
  const maps = h("section", { className: "family" }, h("h2", {}, "What it looked at"));
  replace(main, h("h1", {}, readable(found.prediction[0].label)), h("p", { className: "lead" }, `${state.network.name} is ${percent(found.prediction[0].probability)} sure of it. Cover parts of the picture, move it against its class or paint it in another texture, and see what becomes of the answer.`),
    h("div", { className: "split" }, change.stage, h("div", {}, change.bars, change.tools)), maps);
  attributions(maps, found, Number(query.get("maps") ?? CHEAP), closing);
  return readable(found.prediction[0].label);
}

function changes(found) {
  const { width, height, id } = found;
  const side = Math.max(4, Math.round(Math.min(width, height) * BRUSH));
  const now = { boxes: [], fill: "mean", epsilon: 0, style: null, strength: 1 };
  const canvas = h("canvas", { width, height, tabIndex: 0, role: "img", "aria-label": "The picture, to paint over. Arrow keys move a cover, space sets it, backspace clears all." });
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d");
  const clean = h("img", { src: `/api/pictures/${id}.png`, alt: "The picture as it was", width, height });
  const words = h("p", { className: "soft under", role: "status" }, "Paint on the left picture; the right one stays as it was.");
  const bars = h("div", { className: "changed", "aria-live": "polite" });
  let shown = clean;
  let cursor = null;
  const draw = () => {
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
  };
  if (clean.complete && clean.naturalWidth) begin();
  else clean.addEventListener("load", begin, { once: true });
  let asked = null;
  const ask = settled(async () => {
    asked?.abort();
    asked = new AbortController();
    try {
      const { mean, ...wanted } = now;
      const began = performance.now();
      const answer = await post(`pictures/${id}/changes`, wanted, asked.signal);
      if (answer.picture) { const made = new Image(); made.onload = () => { shown = made; draw(); }; made.src = answer.picture; } else { shown = clean; draw(); }
      drawBars(bars, answer.classes);
      const saved = answer.saved > 0 ? `, ${percent(answer.saved)} of the arithmetic saved by computing only what changed` : "";
      words.textContent = now.boxes.length || now.epsilon || now.style ? `Answered in ${Math.round(performance.now() - began)} ms${saved}.` : "Paint on the left picture; the right one stays as it was.";
    } catch (error) {
      if (error.name !== "AbortError") say(error.message);
    }
  }, 30);
  const cover = (y, x) => {
    const top = Math.min(height - side, Math.max(0, Math.round(y / side - 0.5) * side));
    const left = Math.min(width - side, Math.max(0, Math.round(x / side - 0.5) * side));
    if (now.boxes.some(([t, l]) => t === top && l === left) || now.boxes.length >= 400) return;
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
  const epsilonOut = h("span", { className: "number" }, "0");
  const tools = h("div", { className: "tools" },
    h("label", {}, "Cover with ", h("select", { onchange: (event) => { now.fill = event.target.value; draw(); ask(); } }, [["mean", "the mean colour"], ["grey", "grey"], ["black", "black"]].map(([value, text]) => h("option", { value }, text)))),
    h("button", { type: "button", onclick: () => { now.boxes = []; draw(); ask(); } }, "Uncover"),
    h("label", {}, "Move against its class, ε = ", epsilonOut, " / 255 ", h("input", { type: "range", min: 0, max: 16, step: 0.5, value: 0, oninput: (event) => { epsilonOut.textContent = event.target.value; now.epsilon = Number(event.target.value) * STEP; ask(); } })),
    state.network.styles.length > 0 && h("label", {}, "Texture of ", h("select", { onchange: (event) => { now.style = event.target.value || null; ask(); } }, h("option", { value: "" }, "its own"), state.network.styles.map((style) => h("option", { value: style }, style)))),
    state.network.styles.length > 0 && h("label", {}, "this much ", h("input", { type: "range", min: 0, max: 1, step: 0.05, value: 1, oninput: (event) => { now.strength = Number(event.target.value); if (now.style) ask(); } })));
  const stage = h("div", { className: "look" }, h("div", { className: "pair" }, h("div", { className: "stage" }, canvas), h("div", { className: "stage" }, clean)), words);
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
      const shown = panel(technique, { pictures: [found.id], options: technique.example, control, lazy: true });
      closing.push(shown.close);
      replace(made, shown.element);
    };
    run(false);
    const beside = h("label", { className: "switch" }, h("input", { type: "checkbox", onchange: (event) => run(event.target.checked) }), " beside the same with random weights, on one scale");
    return h("article", {}, h("h3", {}, h("a", { href: path(["techniques", technique.name]) }, technique.name)), h("p", { className: "claim" }, technique.summary), beside, made, h("p", { className: "soft" }, technique.caution));
  };
  const rest = attribute.slice(count);
  place.append(...attribute.slice(0, count).map(show), rest.length ? h("p", { className: "buttons" }, h("span", { className: "soft" }, "And by "), rest.map((technique) => {
    const button = h("button", { type: "button", className: "quiet", onclick: () => { place.insertBefore(show(technique), button.closest("p")); button.remove(); } }, technique.name);
    return button;
  })) : "");
}
