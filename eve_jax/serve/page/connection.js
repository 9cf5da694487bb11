// Finds the server and its model, and tries again while it is away or still compiling.

import { facts } from "./api.js";
import { $, number, sentence } from "./dom.js";
import { state } from "./state.js";

const WAITS = [2, 4, 8, 15, 30]; // seconds between tries

let timer = 0;
let tries = 0;
let found = () => {};
let looking = false;

function banner(text) {
  $("banner").hidden = !text;
  if ($("banner-text").textContent !== text) $("banner-text").textContent = text;
}

const explained = (error) => {
  if (error.status === 0) return navigator.onLine ? error.message : "You are offline. What you write is not lost.";
  return error.status === 503 ? "The server is starting: it compiles its programs. This page continues when it is ready." : sentence(error.message);
};

export async function connect() {
  clearTimeout(timer);
  if (looking) return;
  looking = true;
  $("banner-retry").disabled = true;
  try {
    state.model = await facts();
    tries = 0;
    banner("");
    showModel();
    found();
  } catch (error) {
    banner(explained(error));
    // A key that was refused is asked for when the user tries again, not by itself.
    if (error.status !== 401) timer = setTimeout(connect, 1000 * WAITS[Math.min(tries++, WAITS.length - 1)]);
  } finally {
    looking = false;
    $("banner-retry").disabled = false;
  }
}

function showModel() {
  const { id, context, images } = state.model;
  $("model").textContent = id;
  document.title = `${id} · eve_jax`;
  const size = images ? `images to ${number(images.maxSize)} px` : "text only";
  $("facts").textContent = [context ? `${number(context)} tokens` : "", size].filter(Boolean).join(" · ");
}

export function watchConnection(onFound) {
  found = onFound;
  $("banner-retry").onclick = connect;
  addEventListener("online", connect);
  addEventListener("offline", () => banner(explained({ status: 0, message: "" })));
}
