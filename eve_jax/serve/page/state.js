// What the page knows: the model, the settings, the conversation that is open, the request that is under way.

export const DEFAULTS = Object.freeze({
  system: "",
  temperature: 0,
  top_p: 1,
  max_tokens: null, // the server's own limit
  seed: null,
  logprobs: true,
  compare: false,
  max_size: null, // the model's own
});

// key: {min, max, whole, empty: whether no value is one}
export const RANGES = Object.freeze({
  temperature: { min: 0, max: 2 },
  top_p: { min: 0.01, max: 1 },
  max_tokens: { min: 1, max: Number.MAX_SAFE_INTEGER, whole: true, empty: true },
  seed: { min: 0, max: Number.MAX_SAFE_INTEGER, whole: true, empty: true },
});

export const state = {
  model: null, // what `facts` of api.js returns
  settings: { ...DEFAULTS },
  conversation: null,
  busy: null, // the AbortController of the request under way
  editing: null, // {turns, kept}: the turns that the composer holds for another try, and the draft before
  deleted: new Set(), // ids of conversations that an answer under way must not bring back
};

export const newId = () => Array.from(crypto.getRandomValues(new Uint32Array(3)), (n) => n.toString(36)).join("");

// {id, title, changed (ms), turns: [question or answer]}
// question: {role: "user", text, images: [{id, name, width, height, rows, columns, tokens, note}]}
// answer: {role: "assistant", text, pieces, stats, finish, model, settings, blank (an answer of blank images, or null)}
export const newConversation = () => ({ id: newId(), title: "", changed: 0, turns: [] });

export const newAnswer = (settings, model) => ({
  role: "assistant", text: "", pieces: [], stats: null, finish: null, model, settings: { ...settings }, blank: null,
});

// Whether `value` may be the setting `name`; what a form or an older version of the page has kept is not believed.
export function fits(name, value) {
  const range = RANGES[name];
  if (!range) return typeof value === typeof DEFAULTS[name] || (name === "max_size" && (value === null || Number.isInteger(value)));
  if (value === null) return Boolean(range.empty);
  return Number.isFinite(value) && value >= range.min && value <= range.max && (!range.whole || Number.isInteger(value));
}

export function readSettings(kept) {
  const settings = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) if (kept && name in kept && fits(name, kept[name])) settings[name] = kept[name];
  return settings;
}

export const chosenSize = () => state.settings.max_size ?? state.model?.images?.maxSize ?? null;
