// Small helpers over the document. Text becomes text nodes only: nothing that a model or a file says is read as HTML.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

// An element with properties, `aria`/`data` objects, listeners (`onclick` ...) and children (nodes or strings).
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name === "aria") for (const [key, one] of Object.entries(value)) node.setAttribute(`aria-${key}`, one);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "role") node.setAttribute("role", value);
    else if (name === "class") node.className = value;
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export const icon = (name) => svg("svg", { "aria-hidden": "true" }, svg("use", { href: `#i-${name}` }));

export const button = (name, label, onclick, more = {}) =>
  el("button", { type: "button", class: "icon", title: label, onclick, ...more, aria: { label, ...more.aria } }, icon(name));

export const number = (value) => value.toLocaleString("en-US");

export const counted = (n, one) => `${number(n)} ${one}${n === 1 ? "" : "s"}`;

// A message as a sentence: servers differ in capitals and periods.
export function sentence(text) {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?…]$/.test(trimmed) ? "" : ".");
}

// What a screen reader says, without a change that is seen.
export function announce(text) {
  $("status").textContent = text;
}

export function alarm(text) {
  $("alert").textContent = text;
}

let toastTimer = 0;

// A message that leaves by itself; `undo`, where given, is offered until then.
export function toast(text, undo = null) {
  clearTimeout(toastTimer);
  $("toast-text").textContent = text;
  $("toast-undo").hidden = !undo;
  $("toast-undo").onclick = () => {
    $("toast").hidden = true;
    undo();
  };
  $("toast").hidden = false;
  const leave = () => {
    // Not from under a pointer or the keyboard's focus.
    if ($("toast").matches(":hover, :focus-within")) toastTimer = setTimeout(leave, 2000);
    else $("toast").hidden = true;
  };
  toastTimer = setTimeout(leave, undo ? 8000 : 4000);
}

export async function toClipboard(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} copied`);
    return true;
  } catch {
    toast("The browser did not allow copying: select the text and copy it");
    return false;
  }
}
