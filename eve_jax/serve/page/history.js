// The list of conversations, and the drawer that it is on narrow screens.

import { $, announce, button, counted, el, toast } from "./dom.js";
import { state } from "./state.js";
import * as store from "./store.js";

const DAY = 86_400_000;

let acts = {}; // {open(conversation), removed(conversations), isOpen(conversation)}

function when(time) {
  const date = new Date(time);
  if (Date.now() - time < DAY && date.getDate() === new Date().getDate()) {
    return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  }
  return date.toLocaleDateString([], { month: "short", day: "numeric" });
}

export function showHistory() {
  const all = store.conversations();
  $("conversations").replaceChildren(...all.map((one) => {
    const current = acts.isOpen(one);
    return el("li", { class: current ? "current" : "" },
      el("button", { type: "button", class: "open", onclick: () => choose(one), aria: current ? { current: "true" } : {} },
        el("span", { class: "title" }, one.title || "Untitled"), el("span", { class: "muted small" }, when(one.changed))),
      button("trash", `Delete ${one.title || "this conversation"}`, () => remove([one])));
  }));
  $("no-conversations").hidden = all.length > 0;
  $("delete-all").hidden = all.length < 2;
}

function choose(one) {
  acts.open(one);
  closeDrawer();
}

function remove(gone) {
  const at = [...$("conversations").children].findIndex((item) => item.contains(document.activeElement));
  for (const one of gone) {
    state.deleted.add(one.id);
    store.forget(one);
  }
  acts.removed(gone);
  showHistory();
  const items = $("conversations").children;
  (items[Math.min(at, items.length - 1)]?.querySelector("button") ?? $("new")).focus();
  const text = `${counted(gone.length, "conversation")} deleted`;
  announce(text);
  toast(text, () => {
    for (const one of gone) {
      state.deleted.delete(one.id);
      store.keep(one);
    }
    showHistory();
  });
}

const narrow = () => matchMedia("(max-width: 899px)").matches;

function openDrawer() {
  document.body.classList.add("drawer");
  $("scrim").hidden = false;
  $("main").inert = true;
  $("history-open").setAttribute("aria-expanded", "true");
  $("history-close").focus();
}

export function closeDrawer() {
  if (!document.body.classList.contains("drawer")) return;
  document.body.classList.remove("drawer");
  $("scrim").hidden = true;
  $("main").inert = false;
  $("history-open").setAttribute("aria-expanded", "false");
  $("history-open").focus();
}

export function watchHistory(given, onNew) {
  acts = given;
  $("new").onclick = () => {
    onNew();
    closeDrawer();
    $("question").focus();
  };
  $("delete-all").onclick = () => remove(store.conversations());
  $("history-open").onclick = () => openDrawer();
  $("history-close").onclick = closeDrawer;
  $("scrim").onclick = closeDrawer;
  $("history").onkeydown = (event) => {
    if (event.key !== "Escape" || !document.body.classList.contains("drawer")) return;
    event.stopPropagation();
    closeDrawer();
  };
  matchMedia("(max-width: 899px)").onchange = () => (narrow() ? null : closeDrawer());
  addEventListener("storage", (event) => (store.isOurs(event.key) ? showHistory() : null));
}
