// The question that is being written: its text, its images with their patches, and what they cost.

import { grid } from "./api.js";
import { $, announce, button, counted, el, number, toast } from "./dom.js";
import { costOf, described, framed, tokensOf } from "./grid.js";
import { filesOf, readImage } from "./images.js";
import { chosenSize, state } from "./state.js";

const PAUSE = 120; // ms between moves of the slider before the server is asked

let images = [];
let chosen = 0; // which of them is large
let reading = 0; // files under way
let asked = 0; // number of the latest question for grids
let sizeChanged = () => {};

export const draft = () => ({ text: $("question").value.trim(), images: [...images] });

// Where the keyboard continues; on a touch screen not the field, which would open the screen's keyboard.
export function focusQuestion() {
  $(matchMedia("(pointer: coarse)").matches ? "log" : "question").focus();
}

export function setDraft({ text, images: given }) {
  $("question").value = text;
  images = [...given];
  chosen = 0;
  fitHeight();
  show();
  measure();
}

// Puts a question that was sent back, before what has been written since.
export function putBack(question) {
  const now = draft();
  setDraft({ text: [question.text, now.text].filter(Boolean).join("\n"), images: [...question.images, ...now.images] });
}

export async function addFiles(files) {
  if (!files.length) return;
  if (state.model && !state.model.images) {
    toast("This model takes no images");
    return;
  }
  const most = state.model?.images.most ?? Infinity; // before the server has answered, it is the one to refuse
  const room = Math.max(0, most - images.length - reading);
  if (files.length > room) toast(`A question takes ${counted(most, "image")} at most`);
  reading += Math.min(files.length, room);
  show();
  for (const file of files.slice(0, room)) {
    try {
      images.push(await readImage(file, state.model?.images.mostPixels));
      chosen = images.length - 1;
    } catch (error) {
      toast(error.message);
    }
    reading--;
    show();
  }
  announce(counted(images.length, "image"));
  await measure();
}

// Asks the server for the grids of the images at the size limit that is set.
export async function measure() {
  if (!state.model) return;
  const mine = ++asked;
  const size = chosenSize();
  const done = await Promise.allSettled(images.map(async (image) => Object.assign(image, pick(await grid(image.width, image.height, size)))));
  if (mine !== asked) return;
  const failed = done.find((one) => one.status === "rejected");
  show(failed ? `The patches cannot be shown: ${failed.reason.message}` : "");
}

const pick = ({ rows, columns, tokens }) => ({ rows, columns, tokens });

function show(problem = "") {
  $("tray").hidden = !images.length && !reading;
  const one = images[chosen];
  $("stage").replaceChildren(one ? framed(one) : el("div", { class: "frame loading" }));
  $("thumbs").hidden = images.length + reading < 2;
  $("thumbs").replaceChildren(...images.map(thumb), ...Array.from({ length: reading }, () => el("li", { class: "loading" })));
  $("name").hidden = !$("thumbs").hidden;
  $("name").textContent = one?.name ?? "";
  $("changes").replaceChildren(...(one ? changes(one) : []));
  const context = state.model?.context;
  const over = context && tokensOf(images) >= context;
  $("tray-note").textContent = problem || (one ? described(one) : "Reading …");
  $("cost").textContent = over ? `${costOf(images, context)}: too many` : costOf(images, context);
  $("cost").classList.toggle("over", Boolean(over));
  enable();
}

function thumb(image, i) {
  const preview = el("img", { src: "", alt: "" });
  const node = el("button", { type: "button", onclick: () => choose(i), aria: { label: `Image ${i + 1}: ${image.name}`, pressed: String(i === chosen) } }, preview, el("span", {}, String(i + 1)));
  preview.src = framed(image).querySelector("img")?.src ?? "icon.svg";
  return el("li", {}, node);
}

function choose(i) {
  chosen = i;
  show();
  $("thumbs").querySelectorAll("button")[i]?.focus();
}

function changes(image) {
  const several = images.length > 1;
  const moves = [
    button("left", "Move the image forward", () => move(-1), { disabled: chosen === 0 }),
    button("right", "Move the image back", () => move(1), { disabled: chosen === images.length - 1 }),
  ];
  return [...(several ? moves : []), button("trash", `Remove ${image.name}`, remove)];
}

function move(step) {
  const [image] = images.splice(chosen, 1);
  chosen += step;
  images.splice(chosen, 0, image);
  show();
  announce(`${image.name} is now image ${chosen + 1} of ${images.length}`);
  const [left, right] = $("changes").querySelectorAll("button");
  const same = step < 0 ? left : right;
  (same.disabled ? (step < 0 ? right : left) : same).focus();
}

function remove() {
  const [image] = images.splice(chosen, 1);
  chosen = Math.max(0, Math.min(chosen, images.length - 1));
  show();
  announce(`${image.name} removed`);
  if (images.length) $("changes").lastElementChild.focus();
  else focusQuestion();
}

// Whether something can be sent, and which of the buttons is there.
export function enable() {
  const { text } = draft();
  $("send").hidden = Boolean(state.busy);
  $("stop").hidden = !state.busy;
  $("send").disabled = !text || reading > 0 || !state.model;
  $("add").disabled = $("camera").disabled = Boolean(state.model && !state.model.images);
}

function fitHeight() {
  const field = $("question");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

// The slider of the size limit, as the model and the settings have it.
export function showSize() {
  const sizes = state.model?.images?.sizes;
  document.querySelector(".size").hidden = !sizes;
  if (!sizes) return;
  const slider = $("max-size");
  Object.assign(slider, { min: sizes.min, max: sizes.max, step: sizes.step });
  slider.value = chosenSize();
  $("max-size-value").textContent = `${number(Number(slider.value))} px`;
  $("max-size-reset").hidden = state.settings.max_size === null;
}

function setSize(size) {
  state.settings.max_size = size;
  showSize();
  sizeChanged();
}

export function watchComposer({ onSend, onSize }) {
  sizeChanged = onSize;
  const field = $("question");
  let timer = 0;
  field.oninput = () => { fitHeight(); enable(); };
  field.onkeydown = (event) => {
    const breaks = event.shiftKey || event.isComposing || matchMedia("(pointer: coarse)").matches;
    if (event.key !== "Enter" || breaks) return;
    event.preventDefault();
    onSend();
  };
  $("composer").onsubmit = (event) => { event.preventDefault(); onSend(); };
  $("add").onclick = () => $("files").click();
  $("camera").onclick = () => $("photo").click();
  for (const input of [$("files"), $("photo")]) {
    input.onchange = () => {
      addFiles([...input.files]);
      input.value = "";
    };
  }
  $("max-size").oninput = () => {
    setSize(Number($("max-size").value));
    clearTimeout(timer);
    timer = setTimeout(measure, PAUSE);
  };
  $("max-size-reset").onclick = () => {
    setSize(null);
    measure();
    $("max-size").focus();
  };
  document.addEventListener("paste", (event) => {
    const files = filesOf(event.clipboardData);
    if (!files.length || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    addFiles(files);
  });
  watchDrops();
}

function watchDrops() {
  let depth = 0; // entered elements less those left
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files") && !document.querySelector("dialog[open]");
  const over = (change) => (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = Math.max(0, depth + change);
    $("drop").hidden = depth === 0;
  };
  document.addEventListener("dragenter", over(1));
  document.addEventListener("dragleave", over(-1));
  document.addEventListener("dragover", over(0));
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    $("drop").hidden = true;
    const files = filesOf(event.dataTransfer);
    if (files.length) addFiles(files);
    else toast("Only image files can be added");
  });
}
