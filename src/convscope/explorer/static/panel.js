// A run of a technique: started here or elsewhere, watched, halted, stopped, gone on with, and how to repeat it.

import { fragment, get, post } from "./api.js";
import { duration, h, line, replace } from "./dom.js";
import { here, path, say, state } from "./state.js";

const ENDED = ["done", "failed", "cancelled"];
const kept = new Map(); // what was asked for, to the job that answers it, so that coming back does not run it again

/** A panel that runs `technique` with `options` on `pictures`, or shows the run `job`.

What a page runs by itself (`lazy`) is cancelled when the page is left; what was asked for goes on. */
export function panel(technique, { options = {}, pictures = [], control = false, job = null, small = false, folded = small, lazy = false, onDone = null, again = null, changed = null } = {}) {
  const element = h("div", { className: small ? "run small" : "run" });
  const live = { source: null, closed: false, job: null };
  const close = () => {
    live.closed = true;
    live.source?.close();
    if (lazy && live.job && !ENDED.includes(live.job.state)) post(`jobs/${live.job.id}`, { word: "cancel" }).catch(() => {});
  };
  const follow = (found) => watch(element, live, technique, found, { folded, onDone, again, changed });
  const ask = async () => {
    const key = JSON.stringify([technique.name, options, pictures, control]);
    try {
      const before = kept.get(key);
      const found = before ? await get(`jobs/${before}`).catch(() => null) : null;
      const made = found && found.state !== "failed" && found.state !== "cancelled" && !found.stopped ? found : await post("jobs", { technique: technique.name, options, pictures, control });
      kept.set(key, made.id);
      live.job = made;
      if (live.closed) close();
      else follow(made);
    } catch (error) {
      replace(element, h("p", { className: "failed" }, error.message));
    }
  };
  replace(element, h("p", { className: "soft" }, "Asking …"));
  if (job) follow(job);
  else ask();
  return { element, close };
}

function watch(element, live, technique, first, how) {
  if (live.closed) return;
  const bar = h("progress", { max: 1, value: first.fraction, "aria-label": `${technique.name}: done` });
  const words = h("p", { className: "soft", role: "status" });
  const frame = h("img", { className: "frames", alt: "The picture so far", hidden: true });
  const curve = h("div");
  const buttons = h("p", { className: "buttons" });
  replace(element, frame, bar, words, curve, buttons);
  let seen = 0;
  let state = null; // buttons that are drawn anew under a finger would lose its click
  const show = (job) => {
    live.job = job;
    bar.value = job.fraction;
    words.textContent = told(job);
    if (job.frames > seen) { seen = job.frames; frame.src = `/api/jobs/${job.id}/frame?${seen}`; frame.hidden = false; }
    if (job.trace.length > 1) replace(curve, line(job.trace, "What is maximised"));
    if (job.state !== state) { state = job.state; replace(buttons, controls(job, how.changed)); }
    if (ENDED.includes(job.state)) { live.source?.close(); ended(element, technique, job, how); }
  };
  show(first);
  if (ENDED.includes(first.state)) return;
  live.source = new EventSource(`/api/jobs/${first.id}/events`);
  live.source.onmessage = (event) => show(JSON.parse(event.data));
  live.source.onerror = () => { words.textContent = "The connection is gone; trying again …"; };
}

function told(job) {
  if (job.state === "queued") return "Waiting for its turn.";
  if (job.state === "paused") return `Halted after ${job.steps} steps.`;
  const left = job.remaining ? `, ${duration(job.remaining)} left` : "";
  return `${Math.round(100 * job.fraction)} %${job.label ? `, ${job.label}` : ""}${left}`;
}

function controls(job, changed) {
  const say_ = (word) => post(`jobs/${job.id}`, { word }).catch((error) => say(error.message));
  if (ENDED.includes(job.state)) return [];
  return [
    job.state === "running" && h("button", { type: "button", onclick: () => say_("pause") }, "Halt"),
    job.state === "paused" && h("button", { type: "button", onclick: () => say_("resume") }, "Go on"),
    job.state === "paused" && changed && h("button", { type: "button", onclick: (event) => { event.target.disabled = true; changed(job).catch((error) => say(error.message)); } }, "Go on with the options as they are now"),
    h("button", { type: "button", onclick: () => say_("cancel") }, "Stop"),
  ];
}

async function ended(element, technique, job, { folded, onDone, again }) {
  if (job.state !== "done") {
    const sentence = job.state === "failed" ? job.error : "Stopped.";
    return replace(element, h("p", { className: job.state === "failed" ? "failed" : "soft" }, sentence), again && h("p", { className: "buttons" }, h("button", { type: "button", onclick: again }, "Run it again")));
  }
  try {
    const [html, whole] = await Promise.all([fragment(job.result), get(`jobs/${job.id}`)]);
    const body = h("div", { className: "result" });
    body.innerHTML = html; // made by this server from numbers and escaped words; the page's policy allows no script in it
    replace(element, body, job.notes.length > 0 && h("ul", { className: "said" }, job.notes.map((note) => h("li", {}, note))), folded ? brief(technique, whole) : full(technique, whole));
    onDone?.(whole, body);
  } catch (error) {
    replace(element, h("p", { className: "failed" }, error.message));
  }
}

const brief = (technique, job) => h("details", { className: "again" }, h("summary", {}, "The lines that repeat it"), full(technique, job), h("p", { className: "soft" }, h("a", { href: path(["jobs", job.id]) }, "This run by itself")));

/** Where the files are, and the lines that make them again. */
export function full(technique, job) {
  const files = ["png", "npz", "json"].map((kind) => h("a", { href: `/api/results/${job.result}/result.${kind}`, download: `${technique.name}.${kind}` }, `.${kind}`));
  return h("div", { className: "again" },
    h("p", { className: "soft" }, "Save ", files.flatMap((link) => [link, " "])),
    lines("On the command line", job.command), lines("In Python", job.python));
}

export function lines(what, text) {
  const copy = h("button", { type: "button", className: "copy", onclick: async () => {
    try { await navigator.clipboard.writeText(text); say("Copied."); } catch { getSelection().selectAllChildren(code); say("Selected; press Ctrl+C."); }
  } }, "Copy");
  const code = h("code", {}, text);
  return h("div", { className: "lines" }, h("p", { className: "soft" }, what, " ", copy), h("pre", { tabIndex: 0 }, code));
}

/** The lines of both, folded; `draw` fills them in again. */
export function repeat(given) {
  const place = h("div");
  const draw = ({ command, python }) => replace(place, command && lines("On the command line", command), lines("In Python", python));
  draw(given);
  return { element: h("details", { className: "again" }, h("summary", {}, "The lines that repeat it"), place), draw };
}
