// The server's endpoints. Every failure is a `ServerError` with a sentence for the user.

const KEY = "eve:key";
const WAIT = 20_000; // ms for an answer of the small endpoints
const LARGEST = 4096; // size limit that the slider offers at most, in pixels

export class ServerError extends Error {
  constructor(message, { status = 0, param = null, retryAfter = 0 } = {}) {
    super(message);
    this.status = status;
    this.param = param;
    this.retryAfter = retryAfter;
  }
}

let key = readKey();
let askForKey = null;
let asked = null; // the question for a key that is open: requests that fail together ask once

function readKey() {
  try { return sessionStorage.getItem(KEY) ?? ""; } catch { return ""; }
}

export const hasKey = () => key !== "";

export function forgetKey() {
  key = "";
  try { sessionStorage.removeItem(KEY); } catch { /* it was kept in this module only */ }
}

function keepKey(value) {
  key = value;
  try { sessionStorage.setItem(KEY, value); } catch { /* kept until the page is left */ }
}

// `ask(wasWrong)` resolves to a key, or to null when the user gives none.
export function onUnauthorized(ask) {
  askForKey = ask;
}

export const address = (path) => new URL(path, document.baseURI).href;

async function send(path, { body = null, signal = null } = {}) {
  for (;;) {
    const used = key;
    const response = await reach(path, body, signal);
    if (response.status !== 401) {
      if (!response.ok) throw await failure(response);
      return response;
    }
    if (used !== key) continue; // another request has asked since
    asked ??= askForKey(used !== "").finally(() => { asked = null; });
    const given = await asked;
    signal?.throwIfAborted();
    if (given === null) throw new ServerError("The server asks for an API key, and none was given.", { status: 401 });
    keepKey(given);
  }
}

async function reach(path, body, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  try {
    return await fetch(address(path), {
      method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal, cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted && error.name !== "TimeoutError") throw error;
    throw unreachable(error.name === "TimeoutError");
  }
}

const unreachable = (late = false) =>
  new ServerError(late ? "The server did not answer in time." : "The server cannot be reached. Is it running, and are you online?");

async function failure(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  let error = null;
  try { ({ error } = await response.json()); } catch { /* no body of ours: a proxy, perhaps */ }
  const message = typeof error === "string" ? error : error?.message;
  return new ServerError(message || `The server answered ${response.status} ${response.statusText}`.trim() + ".", {
    status: response.status, param: error?.param ?? null, retryAfter,
  });
}

async function json(path, body = null) {
  const response = await send(path, { body, signal: AbortSignal.timeout(WAIT) });
  try {
    return await response.json();
  } catch {
    throw new ServerError("The server’s answer is no JSON. Is this the right server?", { status: response.status });
  }
}

// The first served model: {id, context, maxTokens, images: null or {maxSize, fit, most, mostPixels, sizes}};
// `sizes`, {min, max, step} of a size limit that can be chosen, is null where the model has one size only.
export async function facts() {
  const one = (await json("v1/models"))?.data?.[0];
  if (!one) throw new ServerError("The server lists no model.");
  const { images } = one;
  const sizes = images && images.mode !== "square"
    ? { min: images.patch * 2, max: Math.min(Math.max(images.max_size * 2, 1600), LARGEST), step: images.patch }
    : null;
  return {
    id: one.id, context: one.max_model_len, maxTokens: one.default_max_tokens,
    images: images && { maxSize: images.max_size, fit: images.fit, most: images.max_images, mostPixels: images.max_pixels, sizes },
  };
}

const measured = new Map(); // by request, as text

// Patches and tokens of an image of `width` x `height` pixels: {rows, columns, tokens}
export function grid(width, height, maxSize) {
  const body = { width, height, ...(maxSize ? { max_size: maxSize } : {}) };
  const name = JSON.stringify(body);
  if (!measured.has(name)) {
    const answer = json("v1/images/grid", body);
    measured.set(name, answer);
    answer.catch(() => measured.delete(name));
  }
  return measured.get(name);
}

// Yields the chunks of a streamed chat completion. Raises `ServerError`, or the abort of `signal`.
export async function* chat(body, signal) {
  const response = await send("v1/chat/completions", { body, signal });
  let ended = false;
  for await (const data of events(response.body, signal)) {
    if (data === "[DONE]") return;
    let chunk;
    try { chunk = JSON.parse(data); } catch { throw new ServerError("The server sent a chunk that is no JSON."); }
    if (chunk.error) throw new ServerError(chunk.error.message ?? String(chunk.error), { status: Number(chunk.error.code) || 500 });
    ended ||= Boolean(chunk.choices?.[0]?.finish_reason);
    yield chunk;
  }
  if (!ended) throw new ServerError("The connection ended before the answer was complete.");
}

// The data of server-sent events, whatever the pieces in which they arrive.
async function* events(stream, signal) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      let piece;
      try {
        piece = await reader.read();
      } catch (error) {
        signal.throwIfAborted();
        throw new ServerError("The connection was lost before the answer was complete.");
      }
      if (piece.done) return;
      text += piece.value;
      const lines = text.split(/\r\n|\n|\r(?!$)/);
      text = lines.pop();
      for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trimStart();
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
