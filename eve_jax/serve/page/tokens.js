// The text of an answer token by token, and what else the model might have said at each of them.

import { $, el } from "./dom.js";

const STEPS = [0.9, 0.7, 0.4, 0.15]; // probabilities at which the shade of a token changes
const MARGIN = 8; // pixels between the tip and what is around it

const details = new WeakMap(); // tokens of a shown piece

const probability = (logprob) => Math.exp(logprob);

export const percent = (logprob) => {
  const value = probability(logprob) * 100;
  if (value >= 99.95) return "100%";
  return value < 0.1 ? "<0.1%" : `${value.toFixed(value < 10 || value > 99 ? 1 : 0)}%`;
};

const visible = (token) => token.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅";

// Spans of `pieces`, to be appended to the text of an answer.
export const spans = (pieces) => pieces.map(span);

function span({ text, tokens }) {
  if (!tokens.length) return document.createTextNode(text);
  const least = Math.min(...tokens.map((one) => probability(one.logprob)));
  const node = el("span", { class: `token p${STEPS.filter((step) => least < step).length}` }, text);
  details.set(node, tokens);
  return node;
}

export const hasProbabilities = (answer) => answer.pieces.some((piece) => piece.tokens.length);

// Turns shades and keyboard access of the tokens in `text` on or off.
export function explain(text, on) {
  text.classList.toggle("shaded", on);
  const tokens = [...text.querySelectorAll(".token")];
  tokens.forEach((node, i) => {
    for (const name of ["role", "tabindex", "aria-label"]) node.removeAttribute(name);
    if (!on) return;
    const [first] = details.get(node);
    node.setAttribute("role", "button");
    node.setAttribute("aria-label", `${visible(node.textContent)}, ${percent(first.logprob)}`);
    node.tabIndex = i ? -1 : 0;
  });
}

function list({ token, logprob, top }) {
  const others = top.some(([one]) => one === token) ? top : [[token, logprob], ...top];
  const rows = others.map(([one, lp]) => {
    const bar = el("i");
    bar.style.setProperty("--share", String(probability(lp)));
    return el("li", { class: one === token ? "chosen" : "" }, el("code", {}, visible(one)), bar, el("span", {}, percent(lp)));
  });
  return el("ol", {}, ...rows);
}

function show(node) {
  const tip = $("tip");
  tip.replaceChildren(...details.get(node).map(list));
  tip.hidden = false;
  document.querySelector("[aria-describedby=tip]")?.removeAttribute("aria-describedby");
  node.setAttribute("aria-describedby", "tip");
  const at = node.getClientRects()[0] ?? node.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = tip;
  const left = Math.min(Math.max(at.left + at.width / 2 - width / 2, MARGIN), innerWidth - width - MARGIN);
  const above = at.top - height - MARGIN;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > MARGIN ? above : at.bottom + MARGIN}px`;
}

function hide() {
  $("tip").hidden = true;
  document.querySelector("[aria-describedby=tip]")?.removeAttribute("aria-describedby");
}

const STEP_OF = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

function move(event) {
  const node = event.target.closest?.(".shaded .token");
  if (!node) return;
  const tokens = [...node.closest(".shaded").querySelectorAll(".token")];
  const i = tokens.indexOf(node);
  const to = { Home: 0, End: tokens.length - 1 }[event.key] ?? (event.key in STEP_OF ? i + STEP_OF[event.key] : null);
  if (to === null || !tokens[to]) return;
  event.preventDefault();
  node.tabIndex = -1;
  tokens[to].tabIndex = 0;
  tokens[to].focus();
}

// Listens for pointer and keyboard on all tokens inside `root`.
export function watchTokens(root) {
  const tokenOf = (event) => event.target.closest?.(".token");
  root.addEventListener("pointerover", (event) => (tokenOf(event) ? show(tokenOf(event)) : null));
  root.addEventListener("pointerout", (event) => {
    if (!tokenOf(event) || event.pointerType === "touch") return;
    if (document.activeElement?.matches(".shaded .token")) show(document.activeElement);
    else hide();
  });
  root.addEventListener("focusin", (event) => (tokenOf(event) ? show(tokenOf(event)) : hide()));
  root.addEventListener("focusout", hide);
  root.addEventListener("click", (event) => (tokenOf(event) ? show(tokenOf(event)) : hide()));
  root.addEventListener("scroll", hide, { passive: true });
  root.addEventListener("keydown", move);
  // Before Esc stops an answer, it closes the tip.
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || $("tip").hidden) return;
    event.stopPropagation();
    hide();
  });
}
