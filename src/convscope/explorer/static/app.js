// The frame around all pages: navigation, the tray of pictures, keys, and which page the address names.

import { get, once, send } from "./api.js";
import { shoot, there } from "./camera.js";
import { h, percent, readable, replace } from "./dom.js";
import { go, here, onMove, path, picture, say, state } from "./state.js";

const PAGES = {
  "": () => import("./pages/layers.js"),
  layers: () => import("./pages/layers.js"),
  units: () => import("./pages/unit.js"),
  pictures: () => import("./pages/picture.js"),
  classes: () => import("./pages/classes.js"),
  techniques: () => import("./pages/techniques.js"),
  jobs: () => import("./pages/jobs.js"),
  index: () => import("./pages/map.js"),
  label: () => import("./pages/study.js"),
  predict: () => import("./pages/study.js"),
};
const NAMES = [["layers", "Layers"], ["pictures", "Picture"], ["classes", "Classes"], ["techniques", "Techniques"], ["index", "Map"], ["jobs", "Runs"], ["label", "Label"], ["predict", "Predict"]];
const KEYS = [["/", "go to a layer, class or technique"], ["← →", "the unit or page before and after"], ["↑ ↓", "the layer before and after"], ["[ ]", "the picture before and after"], ["o", "open a picture"], ["?", "these keys"]];

const main = document.getElementById("main");
let leave = null;
let stay = null; // of a page that can follow the address by itself: whether it did
let shown = 0;

async function show() {
  const turn = ++shown;
  const { page } = here();
  navigation(page);
  tray();
  leave?.();
  leave = stay = null;
  const sheet = h("div"); // of its own, so that a page that comes late overwrites nothing
  new MutationObserver((_, watch) => { watch.disconnect(); if (turn === shown) main.replaceChildren(sheet); }).observe(sheet, { childList: true });
  const wait = setTimeout(() => turn === shown && main.setAttribute("aria-busy", "true"), 150);
  try {
    const module = await (PAGES[page] ?? PAGES[""])();
    if (turn !== shown) return;
    const leaving = (act) => (turn === shown ? (leave = act) : act()); // what is made for a page that was left ends at once
    const made = await module.render(sheet, leaving, (act) => { if (turn === shown) stay = act; });
    if (turn === shown && made) document.title = `${made} · convscope`;
  } catch (error) {
    if (turn === shown) replace(main, h("h1", {}, "Not here"), h("p", {}, error.message), h("p", {}, h("a", { href: path(["layers"]) }, "All layers")));
  }
  clearTimeout(wait);
  if (turn === shown) main.removeAttribute("aria-busy");
}

function navigation(page) {
  const nav = document.getElementById("nav");
  const entries = NAMES.filter(([name]) => name !== "index" || state.network?.index);
  replace(nav, entries.map(([name, label]) => {
    const address = name === "pictures" && picture() ? path(["pictures", picture()], { picture: "" }) : path([name]);
    return h("a", { href: address, "aria-current": (page || "layers") === name || (name === "layers" && page === "units") ? "page" : null }, label);
  }));
}

/** The same page with another picture. */
function withPicture(id) {
  const { page, rest, query } = here();
  if (page === "pictures") return path(["pictures", id], { picture: "" });
  return path([page || "layers", ...rest].filter(Boolean), { ...Object.fromEntries(query), picture: id });
}

function tray() {
  const now = picture();
  const chooser = h("input", { type: "file", accept: "image/*", id: "open", "aria-label": "Open a picture", className: "hidden", onchange: (event) => opened([...event.target.files]) });
  const camera = h("input", { type: "file", accept: "image/*", capture: "environment", id: "shoot", "aria-label": "Take a photograph", className: "hidden", onchange: (event) => opened([...event.target.files]) });
  replace(document.getElementById("tray"),
    h("label", { className: "open", htmlFor: "open", title: "Open a picture (o), or drop or paste one" }, h("span", { "aria-hidden": "true" }, "+"), h("span", { className: "hidden" }, "Open a picture")), chooser,
    there() ? h("button", { type: "button", className: "open", title: "Take a photograph", "aria-label": "Take a photograph", onclick: () => shoot(opened) }, "◉")
      : [h("label", { className: "open shoot", htmlFor: "shoot", title: "Take a photograph" }, h("span", { "aria-hidden": "true" }, "◉"), h("span", { className: "hidden" }, "Take a photograph")), camera],
    state.pictures.map((each) => h("a", { href: withPicture(each.id), "aria-current": each.id === now ? "true" : null, title: each.title },
      h("img", { src: `/api/pictures/${each.id}.png`, alt: each.title, width: 48, height: 48, loading: "lazy" }))));
}

async function opened(files) {
  for (const file of files.filter((each) => each.type.startsWith("image/") || /\.(jpe?g|png|webp|gif|tiff?|bmp|ppm)$/i.test(each.name))) {
    try {
      const found = await send(file, (file.name ?? "picture").replace(/\.[^.]*$/, "") || "picture");
      state.pictures = [found, ...state.pictures.filter((each) => each.id !== found.id)];
      say(`${found.title}: ${readable(found.prediction[0].label)}, ${percent(found.prediction[0].probability)}`);
      go(path(["pictures", found.id], { picture: "" }));
      tray();
    } catch (error) {
      say(error.message);
    }
  }
}

addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => { event.preventDefault(); opened([...event.dataTransfer.files]); });
addEventListener("paste", (event) => opened([...event.clipboardData.files]));

function jump(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return;
  const [layer, channel] = wanted.split(/[:#\s]+/);
  const found = state.network.layers.find((each) => each.name.toLowerCase() === layer);
  if (found) return go(channel ? path(["units", found.name, channel]) : path(["layers", found.name]));
  const technique = state.techniques.find((each) => each.name === wanted);
  if (technique) return go(path(["techniques", technique.name]));
  const label = state.network.labels.findIndex((each) => readable(each).toLowerCase() === wanted.replaceAll("_", " "));
  if (label >= 0) return go(path(["classes", String(label)]));
  say(`There is no layer, class or technique called “${text}”.`);
}

function keys(event) {
  if (event.target.closest?.("input, textarea, select, [contenteditable]") || event.ctrlKey || event.metaKey || event.altKey) return;
  const { page, rest } = here();
  const leaves = state.network?.layers.filter((each) => each.leaf) ?? [];
  const act = {
    "/": () => document.getElementById("jump-to").focus(),
    "?": () => document.getElementById("keys").showModal(),
    o: () => document.getElementById("open").click(),
    "[": () => neighbour(-1), "]": () => neighbour(1),
    ArrowUp: () => layer(-1), ArrowDown: () => layer(1),
  }[event.key];
  const neighbour = (step) => {
    const at = state.pictures.findIndex((each) => each.id === picture());
    const next = state.pictures[at + step];
    if (next) go(withPicture(next.id));
  };
  const layer = (step) => {
    if (!["layers", "units"].includes(page) || !rest[0]) return false;
    const next = leaves[leaves.findIndex((each) => each.name === rest[0]) + step];
    if (next) go(page === "units" ? path(["units", next.name, "0"]) : path(["layers", next.name]));
  };
  if (act && act() !== false) event.preventDefault();
}

async function start() {
  try {
    const [network, techniques, pictures] = await Promise.all([once("network"), once("techniques"), get("pictures")]);
    Object.assign(state, { network, techniques: techniques.techniques, families: techniques.families, pictures: pictures.pictures });
  } catch (error) {
    return replace(main, h("h1", {}, "The server does not answer"), h("p", {}, error.message));
  }
  const names = [...state.network.layers.map((each) => each.name), ...state.techniques.map((each) => each.name), ...state.network.labels.map(readable)];
  replace(document.getElementById("jump-list"), names.map((name) => h("option", { value: name })));
  document.getElementById("jump").addEventListener("submit", (event) => { event.preventDefault(); const box = document.getElementById("jump-to"); jump(box.value); box.value = ""; box.blur(); });
  replace(document.querySelector("#keys dl"), KEYS.flatMap(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)]));
  addEventListener("keydown", keys);
  onMove(() => {
    if (stay?.()) { navigation(here().page); tray(); return; }
    scrollTo({ top: 0 });
    show();
  });
  await show();
}
start();
