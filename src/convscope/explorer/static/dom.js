// Elements in a few words, numbers for readers, and small drawings.

/** An element: properties by name (on… are listeners, data-… and aria-… attributes), then children. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style" && typeof value === "object") Object.assign(element.style, value);
    else if (name in element && !name.includes("-") && !["list", "form", "width", "height"].includes(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat());
  return element;
}

export function replace(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const percent = (share) => {
  if (share === 0 || share === 1) return `${100 * share} %`;
  if (share > 0 && share < 0.001) return "<0.1 %";
  if (share < 1 && share > 0.999) return ">99.9 %";
  return `${(100 * share).toFixed(share > 0.0995 && share < 0.9995 ? 0 : 1)} %`;
};

export const number = (value) => {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e5)) return value.toExponential(1).replace("-", "−");
  return Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 4 }).replace("-", "−");
};

export const readable = (label) => label.replaceAll("_", " ");

export const duration = (seconds) => (seconds < 100 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`);

/** Calls that come too fast are answered once, with the last of them. */
export function settled(act, milliseconds = 60) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), milliseconds);
  };
}

/** A line through values, as wide as its place. */
export function line(values, title) {
  const [width, height] = [320, 90];
  if (values.length < 2) return h("p", { className: "soft" }, "No curve yet.");
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  const points = values.map((v, i) => `${((i / (values.length - 1)) * width).toFixed(1)},${(height - 4 - ((v - low) / span) * (height - 8)).toFixed(1)}`);
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "line", role: "img", "aria-label": `${title}: from ${number(values[0])} to ${number(values.at(-1))}`, preserveAspectRatio: "none" },
    svg("polyline", { points: points.join(" "), "vector-effect": "non-scaling-stroke" }));
  return h("figure", { className: "plot" }, h("figcaption", {}, h("strong", {}, title), h("span", {}, `${number(values[0])} → ${number(values.at(-1))}`)), drawn);
}

/** Bars over the edges between them; both ends are written. */
export function histogram(counts, edges, title) {
  const used = counts.map((count, i) => [count, i]).filter(([count]) => count > 0).map(([, i]) => i);
  if (!used.length) return h("p", { className: "soft" }, "Nothing was counted.");
  const [first, last] = [used[0], used.at(-1)];
  const shown = counts.slice(first, last + 1);
  const most = Math.max(...shown);
  const [width, height] = [320, 90];
  const step = width / shown.length;
  const bars = shown.map((count, i) => svg("rect", { x: (i * step).toFixed(2), width: Math.max(0.5, step - 1).toFixed(2), y: (height - (count / most) * height).toFixed(2), height: ((count / most) * height).toFixed(2) }));
  const ends = [edges[first], edges[last + 1] ?? edges.at(-1)].map((edge) => number(edge));
  return h("figure", { className: "plot" }, h("figcaption", {}, h("strong", {}, title)),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "bars", role: "img", "aria-label": `${title}, from ${ends[0]} to ${ends[1]}`, preserveAspectRatio: "none" }, bars),
    h("div", { className: "ticks" }, h("span", {}, ends[0]), h("span", {}, ends[1])));
}
