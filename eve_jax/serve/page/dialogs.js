// Settings, theme, the question for a key, and the code of a request.

import { forgetKey, hasKey } from "./api.js";
import { $, toClipboard, toast } from "./dom.js";
import { DEFAULTS, fits, RANGES, state } from "./state.js";
import * as store from "./store.js";

const NUMBERS = Object.keys(RANGES);
const SWITCHES = ["logprobs", "compare"];
const field = (name) => $(`set-${name}`);

function fill() {
  const { settings, model } = state;
  for (const name of NUMBERS) field(name).value = settings[name] ?? "";
  for (const name of SWITCHES) field(name).checked = settings[name];
  field("system").value = settings.system;
  if (model?.maxTokens) field("max_tokens").placeholder = String(model.maxTokens);
  field("seed").placeholder = "any";
  $("set-forget").hidden = !hasKey();
}

// The setting `name` as the form has it, or undefined where it is none.
function read(name) {
  const input = field(name);
  if (!(name in RANGES)) return input.type === "checkbox" ? input.checked : input.value.trim();
  if (input.validity.badInput) return undefined;
  const value = input.value === "" ? null : Number(input.value);
  return fits(name, value) ? value : undefined;
}

function message({ min, max, whole, empty }) {
  const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
  return `A ${whole ? "whole " : ""}number ${range}${empty ? ", or empty" : ""}`;
}

function take(name) {
  const value = read(name);
  field(name).setCustomValidity(value === undefined ? message(RANGES[name]) : "");
  field(name).setAttribute("aria-invalid", String(value === undefined));
  if (value === undefined) return;
  state.settings[name] = value;
  store.keepSettings(state.settings);
}

export function watchSettings(onChange) {
  const names = [...NUMBERS, ...SWITCHES, "system"];
  const dialog = $("settings");
  $("settings-open").onclick = () => {
    fill();
    names.forEach(take);
    dialog.showModal();
  };
  for (const name of names) field(name).oninput = () => take(name);
  dialog.querySelector("form").onsubmit = (event) => {
    event.preventDefault(); // closed here: the page's policy allows no form to be sent anywhere
    dialog.close();
  };
  $("settings-close").onclick = () => dialog.close();
  dialog.onclose = onChange;
  $("set-reset").onclick = () => {
    state.settings = { ...DEFAULTS };
    store.keepSettings(state.settings);
    fill();
    names.forEach(take);
    toast("Settings are the defaults again");
  };
  $("set-forget").onclick = () => {
    forgetKey();
    $("set-forget").hidden = true;
    toast("API key forgotten");
  };
}

const THEMES = ["auto", "light", "dark"];

export function watchTheme() {
  const show = () => {
    const now = store.theme() ?? "auto";
    const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    const names = { auto: "as the system", light: "light", dark: "dark" };
    if (now === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = now;
    $("theme").querySelector("use").setAttribute("href", `#i-${now}`);
    $("theme").setAttribute("aria-label", `Theme: ${names[now]}. Change to ${names[next]}`);
    $("theme").title = `Theme: ${names[now]}`;
    return next;
  };
  let next = show();
  $("theme").onclick = () => {
    store.keepTheme(next === "auto" ? null : next);
    next = show();
  };
}

// Resolves to the key that the user gives, or null.
export function askKey(wasWrong) {
  const dialog = $("key");
  $("key-text").textContent = wasWrong
    ? "The server did not accept this key. Check it and try again."
    : "This server asks for a key. It is kept until this tab is closed.";
  $("key-text").classList.toggle("wrong", wasWrong);
  $("key-value").value = "";
  if (!dialog.open) dialog.showModal();
  $("key-value").focus();
  return new Promise((resolve) => {
    let given = null;
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      given = $("key-value").value.trim();
      if (given) dialog.close();
    };
    $("key-cancel").onclick = () => dialog.close();
    dialog.onclose = () => {
      $("key-value").value = "";
      resolve(given || null);
    };
  });
}

// `texts`: {curl, python}
export function showCode(texts, note) {
  const choose = (name) => {
    $("code-text").textContent = texts[name];
    for (const one of Object.keys(texts)) $(`code-${one}`).setAttribute("aria-pressed", String(one === name));
    $("code-copy").onclick = () => toClipboard(texts[name], "Code");
  };
  for (const name of Object.keys(texts)) $(`code-${name}`).onclick = () => choose(name);
  choose("curl");
  $("code-note").textContent = note;
  $("code-close").onclick = () => $("code").close();
  $("code").showModal();
}
