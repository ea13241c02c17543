// All runs, or one of them with how to repeat it.

import { get } from "../api.js";
import { h, replace } from "../dom.js";
import { panel } from "../panel.js";
import { go, here, path, state } from "../state.js";

export async function render(main, leaving) {
  const { rest: [id] } = here();
  if (!id) return all(main, leaving);
  const job = await get(`jobs/${id}`);
  const technique = state.techniques.find((each) => each.name === job.technique);
  const run = panel(technique, { job });
  leaving(run.close);
  const query = Object.fromEntries(Object.entries(job.options).map(([name, value]) => [name, String(value)]));
  replace(main, h("p", { className: "crumbs" }, h("a", { href: path(["jobs"]) }, "Runs")),
    h("h1", {}, job.technique), h("p", { className: "lead" }, technique.summary),
    h("p", {}, h("a", { href: path(["techniques", job.technique], { ...query, picture: job.pictures[0] }) }, "Change its options"), technique.index && !technique.pictures && job.result && [" · ", h("a", { href: path(["index"], { result: job.result }) }, "Show on the map")]), run.element);
  return `Run of ${job.technique}`;
}

async function all(main, leaving) {
  const { jobs } = await get("jobs");
  const timer = jobs.some((each) => ["queued", "running", "paused"].includes(each.state)) ? setTimeout(() => all(main, leaving), 2000) : 0;
  leaving(() => clearTimeout(timer));
  const rows = jobs.map((job) => h("tr", {}, h("td", {}, h("a", { href: path(["jobs", job.id]) }, job.technique)), h("td", { className: "thumbs" }, job.pictures.slice(0, 3).map((id) => h("img", { src: `/api/pictures/${id}.png`, alt: state.pictures.find((each) => each.id === id)?.title ?? "picture", loading: "lazy" }))), h("td", {}, Object.entries(job.options).map(([name, value]) => `${name} ${value}`).join(", ")),
    h("td", {}, job.state === "running" ? `${Math.round(100 * job.fraction)} %` : job.state), h("td", {}, job.error)));
  replace(main, h("h1", {}, "Runs"), jobs.length
    ? h("div", { className: "scroll whole", tabIndex: 0 }, h("table", {}, h("thead", {}, h("tr", {}, ["technique", "picture", "options", "state", ""].map((head) => h("th", {}, head)))), h("tbody", {}, rows)))
    : h("p", { className: "lead" }, "Nothing has been run yet. ", h("a", { href: path(["techniques"]) }, "Choose a technique"), "."));
  return "Runs";
}
