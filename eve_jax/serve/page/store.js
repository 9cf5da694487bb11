// What stays in this browser: conversations and settings in localStorage, the images' data in IndexedDB (localStorage
// holds about 5 MB, a photo or two). Where the browser refuses either, the page works without and says it once.

import { DEFAULTS, readSettings } from "./state.js";

const PREFIX = "eve:conversation:";
const SETTINGS = "eve:settings";
const DATABASE = "eve";
const IMAGES = "images";

const put = (name, value) => {
  try {
    localStorage.setItem(name, value);
    return true;
  } catch {
    return false;
  }
};

const get = (name) => {
  try { return localStorage.getItem(name); } catch { return null; }
};

const remove = (name) => {
  try { localStorage.removeItem(name); } catch { /* nothing was kept */ }
};

function parsed(text) {
  try { return JSON.parse(text); } catch { return null; }
}

const isImage = (image) => typeof image?.id === "string" && image.width > 0 && image.height > 0;

const isTurn = (turn) =>
  typeof turn?.text === "string" &&
  (turn.role === "user" ? Array.isArray(turn.images) && turn.images.every(isImage) : turn.role === "assistant" && Array.isArray(turn.pieces));

const isConversation = (one) => typeof one?.id === "string" && Array.isArray(one.turns) && one.turns.every(isTurn);

// Newest first.
export function conversations() {
  const found = [];
  let names = [];
  try { names = Object.keys(localStorage).filter((name) => name.startsWith(PREFIX)); } catch { /* no storage */ }
  for (const name of names) {
    const one = parsed(get(name));
    if (isConversation(one)) found.push(one);
  }
  return found.sort((a, b) => b.changed - a.changed);
}

export const isOurs = (name) => name === null || name.startsWith(PREFIX);

// False when the browser's storage is full or switched off. Token probabilities give way first.
export function keep(conversation) {
  const name = PREFIX + conversation.id;
  if (put(name, JSON.stringify(conversation))) return true;
  const lean = (answer) => answer && { ...answer, pieces: answer.text ? [{ text: answer.text, tokens: [] }] : [] };
  const turns = conversation.turns.map((turn) => (turn.role === "user" ? turn : { ...lean(turn), blank: lean(turn.blank) }));
  return put(name, JSON.stringify({ ...conversation, turns }));
}

export function forget(conversation) {
  remove(PREFIX + conversation.id);
}

export const settings = () => readSettings(parsed(get(SETTINGS)));

export const keepSettings = (values) =>
  put(SETTINGS, JSON.stringify(Object.fromEntries(Object.keys(DEFAULTS).map((name) => [name, values[name]]))));

export const theme = () => get("eve:theme");

export const keepTheme = (value) => (value ? put("eve:theme", value) : remove("eve:theme"));

let opened = null;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(IMAGES);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

async function within(mode, act) {
  const transaction = (await database()).transaction(IMAGES, mode);
  const request = act(transaction.objectStore(IMAGES));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });
}

// False when the data cannot be kept.
export async function keepImage(id, url) {
  try {
    await within("readwrite", (images) => images.put(url, id));
    return true;
  } catch {
    return false;
  }
}

export async function imageUrl(id) {
  try { return (await within("readonly", (images) => images.get(id))) ?? null; } catch { return null; }
}

// Removes the data of images that no conversation and nothing of `alsoUsed` has any more.
export async function sweepImages(alsoUsed = []) {
  const used = new Set(alsoUsed);
  for (const one of conversations()) for (const turn of one.turns) for (const image of turn.images ?? []) used.add(image.id);
  try {
    const ids = await within("readonly", (images) => images.getAllKeys());
    await within("readwrite", (images) => {
      for (const id of ids) if (!used.has(id)) images.delete(id);
    });
  } catch { /* there is no database */ }
}
