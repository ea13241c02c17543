// A technique's form, made from its options as the registry describes them.

import { h, readable } from "./dom.js";
import { picture, state } from "./state.js";

/** A form and what it holds; `given` are values of the address, `changed` is called when one changes. */
export function form(technique, given, changed) {
  const fields = technique.options.map((option) => field(option, given[option.name], technique));
  const common = fields.filter((each) => each.common);
  const rest = fields.filter((each) => !each.common);
  const element = h("form", { className: "options", onsubmit: (event) => event.preventDefault(), onchange: () => changed?.(values()) },
    common.map((each) => each.element),
    rest.length > 0 && (common.length ? h("details", { open: rest.some((each) => each.given) }, h("summary", {}, `${rest.length} more options`), rest.map((each) => each.element)) : rest.map((each) => each.element)));
  const values = () => Object.fromEntries(fields.map((each) => [each.name, each.value()]).filter(([, value]) => value !== null && value !== "" && !(Array.isArray(value) && !value.length)));
  return { element, values, valid: () => element.reportValidity() };
}

const FIRST = ["target", "layer", "unit", "picture"];

function field(option, given, technique) {
  const id = `option-${option.name}`;
  const made = control(option, given, id);
  const bounds = [option.ge ?? option.gt, option.le ?? option.lt].some((each) => each !== undefined) ? ` (${option.gt !== undefined ? `above ${option.gt}` : option.ge !== undefined ? `from ${option.ge}` : ""}${option.le !== undefined ? ` to ${option.le}` : option.lt !== undefined ? ` below ${option.lt}` : ""})` : "";
  const help = h("p", { className: "soft", id: `${id}-help` }, option.description + bounds);
  made.input.setAttribute("aria-describedby", `${id}-help`);
  const element = h("div", { className: `field ${option.kind}` }, h("label", { htmlFor: id }, option.name.replaceAll("_", " ")), made.around ?? made.input, help);
  const common = FIRST.includes(option.kind) || technique.options.length <= 5 || option.name in technique.example;
  return { element, name: option.name, value: made.value, common, given: given !== undefined };
}

const parse = (option, text) => {
  const value = text.trim();
  if (!value) return null;
  const one = (part) => (["number", "integer"].includes(option.kind) ? Number(part) : part.trim());
  return option.several && option.kind !== "picture" && value.includes(";") ? value.split(";").map(one) : one(value);
};

function control(option, given, id) {
  const start = given ?? "";
  if (option.kind === "flag") {
    const input = h("input", { type: "checkbox", id, checked: given === undefined ? Boolean(option.default) : given === "true" || given === true });
    return { input, value: () => (input.checked === Boolean(option.default) ? null : input.checked) };
  }
  if (option.kind === "choice") {
    const input = h("select", { id }, h("option", { value: "" }, option.default === null ? "as the technique chooses" : `${option.default}`), option.choices.filter((each) => each !== String(option.default)).map((each) => h("option", { value: each, selected: each === given }, each)));
    return { input, value: () => input.value || null };
  }
  if (option.kind === "picture") {
    const named = String(start).split(",").filter(Boolean);
    const input = h("select", { id, multiple: true, size: Math.min(6, state.pictures.length || 1) }, state.pictures.map((each) => h("option", { value: each.id, selected: named.includes(each.id) }, each.title)));
    return { input, value: () => { const chosen = [...input.selectedOptions].map((each) => each.value); return chosen.length === 1 ? chosen[0] : chosen; } };
  }
  if (option.kind === "layer") {
    const input = h("select", { id }, h("option", { value: "" }, "as the technique chooses"), state.network.layers.map((each) => h("option", { value: each.name, selected: each.name === given }, `${each.name} (${each.kind})`)));
    return { input, value: () => input.value || null };
  }
  if (option.kind === "target") {
    const list = h("datalist", { id: `${id}-list` }, state.network.labels.map((label) => h("option", { value: label }, readable(label))));
    const input = h("input", { id, list: `${id}-list`, value: start, placeholder: "the predicted class", autocomplete: "off" });
    input.setAttribute("list", `${id}-list`);
    return { input, around: h("span", {}, input, list), value: () => parse(option, input.value) };
  }
  const numeric = ["number", "integer"].includes(option.kind) && !option.several;
  const input = h("input", { id, type: numeric ? "number" : "text", value: start, placeholder: option.default === null ? "" : String(option.default), autocomplete: "off" });
  if (numeric) {
    input.step = option.kind === "integer" ? "1" : "any";
    if (option.ge !== undefined) input.min = option.ge;
    if (option.le !== undefined) input.max = option.le;
  }
  return { input, value: () => parse(option, input.value) };
}

/** Which pictures a technique gets. */
export const given = (technique) => (technique.pictures ? [picture()].filter(Boolean) : []);
