// The conversation as it is seen.

import { $, button, counted, el, number } from "./dom.js";
import { described, framed, unbroken } from "./grid.js";
import { explain, hasProbabilities, spans } from "./tokens.js";

const NEAR = 80; // pixels from the end within which the view follows a growing answer

let acts = {}; // what the buttons do: {edit, retry, compare, code, copy, look}
let grids = true; // whether sent images show their patches
const shaded = new WeakSet(); // answers whose probabilities are shown
const nodes = new WeakMap(); // where the text of an answer is shown

export const useActs = (given) => { acts = given; };

const log = () => $("log");

const isNearEnd = () => log().scrollHeight - log().scrollTop - log().clientHeight < NEAR;

let wasNearEnd = true;

function mark() {
  wasNearEnd = isNearEnd();
  $("to-end").hidden = wasNearEnd;
}

export function watchScroll() {
  log().addEventListener("scroll", mark, { passive: true });
  new ResizeObserver(() => (wasNearEnd ? toEnd() : mark())).observe(log()); // the composer has grown, the phone was turned
  $("to-end").onclick = () => {
    toEnd();
    log().focus();
  };
}

export function toEnd() {
  log().scrollTo(0, log().scrollHeight);
  mark();
}

// Changes what is shown; who was at its end stays there, who reads above it is left alone.
function following(change) {
  const stay = isNearEnd();
  change();
  if (stay) toEnd();
  else mark();
}

// Shows all turns anew.
export function showTurns(turns, busy) {
  const last = lastQuestion(turns);
  following(() => $("turns").replaceChildren(...turns.map((turn, i) => shown(turn, turns, i, last, busy))));
  $("empty").hidden = turns.length > 0;
}

const lastQuestion = (turns) => turns.findLastIndex((turn) => turn.role === "user");

function shown(turn, turns, i, last, busy) {
  if (turn.role === "user") return question(turn, i === last && !busy, i === turns.length - 1);
  const images = turns.slice(0, i).some((one) => one.images?.length);
  return answer(turn, { isLast: i === turns.length - 1, images, busy });
}

function question(turn, isLast, isOpen) {
  const images = turn.images.map((image) =>
    el("figure", {},
      el("button", { type: "button", class: "look", onclick: () => acts.look(image), aria: { label: `${image.name}: show large` } }, framed(image, { shown: grids, alt: "" })),
      el("figcaption", { class: "muted small" }, described(image))),
  );
  return el("li", { class: "question" },
    el("h2", { class: "hidden-text" }, "You"),
    images.length ? el("div", { class: "images", data: { n: String(images.length) } }, ...images) : "",
    turn.text ? el("p", { class: "bubble" }, turn.text) : "",
    el("div", { class: "acts" },
      images.length ? button("grid", "Patch grid", toggleGrids, { aria: { pressed: String(grids) } }) : "",
      isLast ? button("edit", "Edit the question", () => acts.edit()) : "",
      isLast && isOpen ? button("retry", "Ask again", () => acts.retry()) : ""),
  );
}

function toggleGrids() {
  grids = !grids;
  acts.redraw();
  $("turns").querySelector("[aria-label='Patch grid']")?.focus();
}

function answer(turn, { isLast, images, busy }) {
  const open = busy && isLast;
  const item = el("li", { class: "answer", aria: { busy: String(Boolean(open)) } }, el("h2", { class: "hidden-text" }, "Answer"));
  const text = textOf(turn);
  if (turn.blank) {
    item.append(el("div", { class: "two" },
      el("section", { aria: { label: "With the images" } }, el("h3", {}, "With the images"), text, stats(turn)),
      el("section", { aria: { label: "With blank images" } }, el("h3", {}, el("span", { class: "swatch" }), "With blank images"), textOf(turn.blank), stats(turn.blank))));
  } else {
    item.append(text, stats(turn));
  }
  if (!open) item.append(tools(turn, { isLast, images, busy }));
  return item;
}

function textOf(turn) {
  const node = el("p", { class: "text" }, ...spans(turn.pieces));
  if (!turn.text) node.append(turn.stats ? el("em", { class: "muted" }, "The answer is empty.") : dots());
  if (shaded.has(turn)) explain(node, true);
  nodes.set(turn, node);
  return node;
}

const dots = () => el("span", { class: "dots" }, el("i"), el("i"), el("i"), el("span", { class: "hidden-text" }, "waiting for the first token"));

// Appends what an answer has gained.
export function grow(turn, pieces) {
  const node = nodes.get(turn);
  if (!node || !pieces.length) return;
  following(() => {
    node.querySelector(".dots")?.remove();
    node.append(...spans(pieces));
  });
}

const ENDS = { length: "cut at the limit of tokens", stopped: "stopped" };

function stats(turn) {
  if (!turn.stats) return el("p", { class: "stats muted small" });
  const { first, seconds, prompt, cached, completion } = turn.stats;
  const rest = first === null ? 0 : seconds - first;
  const parts = [
    ENDS[turn.finish],
    prompt ? `${number(prompt)} read${cached ? ` (${number(cached)} cached)` : ""}` : "",
    counted(completion, "token"),
    first === null ? "" : `first after ${first.toFixed(2)} s`,
    completion > 1 && rest > 0.05 ? `${((completion - 1) / rest).toFixed(1)} tokens/s` : "",
  ];
  return el("p", { class: "stats muted small" }, parts.filter(Boolean).map(unbroken).join(" · "));
}

function tools(turn, { isLast, images, busy }) {
  const odds = hasProbabilities(turn) || (turn.blank && hasProbabilities(turn.blank));
  return el("div", { class: "acts" },
    button("copy", "Copy the answer", () => acts.copy(turn)),
    button("code", "Copy as curl or Python", () => acts.code(turn)),
    odds ? button("odds", "Token probabilities", (event) => toggleShades(turn, event.currentTarget), { aria: { pressed: String(shaded.has(turn)) } }) : "",
    images && !turn.blank ? button("compare", "Compare with blank images", () => acts.compare(turn), { disabled: Boolean(busy) }) : "",
    isLast ? button("retry", "Ask again", () => acts.retry(), { disabled: Boolean(busy) }) : "",
  );
}

function toggleShades(turn, pressed) {
  const on = !shaded.has(turn);
  for (const one of [turn, turn.blank].filter(Boolean)) {
    if (on) shaded.add(one);
    else shaded.delete(one);
    if (nodes.has(one)) explain(nodes.get(one), on);
  }
  pressed.setAttribute("aria-pressed", String(on));
}

export function showFailure(title, text) {
  $("failure").hidden = !title;
  $("failure-title").textContent = title;
  $("failure-text").textContent = text;
  if (title) toEnd();
}

let looked = null;

// The large view of an image.
export function look(image) {
  looked = image;
  draw($("viewer-grid").getAttribute("aria-pressed") === "true");
  $("viewer").showModal();
}

function draw(shown) {
  $("viewer-title").textContent = looked.name;
  $("viewer-note").textContent = described(looked);
  $("viewer-stage").replaceChildren(framed(looked, { shown }));
  $("viewer-grid").setAttribute("aria-pressed", String(shown));
  $("viewer-grid").disabled = !looked.rows;
}

export function watchViewer() {
  $("viewer-close").onclick = () => $("viewer").close();
  $("viewer-grid").onclick = () => draw($("viewer-grid").getAttribute("aria-pressed") !== "true");
  $("viewer").onclick = (event) => (event.target === $("viewer") ? $("viewer").close() : null);
}
