// The address is the state: which page, of what, with which picture.

export const state = { network: null, techniques: [], families: {}, pictures: [], index: null };

export function here() {
  const [page = "", ...rest] = location.pathname.split("/").filter(Boolean).map(decodeURIComponent);
  return { page, rest, query: new URLSearchParams(location.search) };
}

/** A path with its parts escaped; the picture goes along unless another is named. */
export function path(parts, query = {}) {
  const kept = new URLSearchParams();
  const picture = query.picture ?? here().query.get("picture");
  if (picture) kept.set("picture", picture);
  for (const [name, value] of Object.entries(query)) if (name !== "picture" && value !== undefined && value !== null && value !== "") kept.set(name, value);
  const text = kept.toString();
  return `/${parts.map((part) => encodeURIComponent(part)).join("/")}${text ? `?${text}` : ""}`;
}

const listeners = new Set();
export const onMove = (act) => listeners.add(act);

export function go(address, { instead = false } = {}) {
  if (address === location.pathname + location.search) return;
  history[instead ? "replaceState" : "pushState"]({}, "", address);
  for (const act of listeners) act();
}
addEventListener("popstate", () => listeners.forEach((act) => act()));

/** Links within the explorer move without loading a page. */
addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || link.target || link.hasAttribute("download") || url.pathname.startsWith("/api/")) return;
  if (url.pathname === location.pathname && url.hash) return;
  event.preventDefault();
  go(url.pathname + url.search);
});

export const picture = () => {
  const named = here().page === "pictures" ? here().rest[0] : here().query.get("picture");
  return named ?? state.pictures[0]?.id ?? null;
};

export function say(sentence) {
  const place = document.getElementById("said");
  place.textContent = sentence;
  place.classList.toggle("shown", Boolean(sentence));
  clearTimeout(say.timer);
  if (sentence) say.timer = setTimeout(() => say(""), 8000);
}
