// The body of a chat completion, and what its chunks add to an answer.

export const ALTERNATIVES = 5; // next to a chosen token

// `urlOf(image)` gives the data URI of an image. Images come before the text of their question, as in training.
export function bodyOf(model, turns, settings, urlOf) {
  const messages = settings.system ? [{ role: "system", content: settings.system }] : [];
  for (const { role, text, images } of alternating(turns)) {
    const parts = images.map((image) => ({ type: "image_url", image_url: { url: urlOf(image) } }));
    messages.push({ role, content: parts.length ? [...parts, { type: "text", text }] : text });
  }
  const body = { model, messages, temperature: settings.temperature, top_p: settings.top_p };
  for (const name of ["max_tokens", "seed", "max_size"]) if (settings[name] !== null) body[name] = settings[name];
  if (settings.logprobs) Object.assign(body, { logprobs: true, top_logprobs: ALTERNATIVES });
  return body;
}

// Two questions in a row, of which the first was left unanswered, are one.
function alternating(turns) {
  const merged = [];
  for (const { role, text, images = [] } of turns) {
    const last = merged.at(-1);
    if (last?.role === role) Object.assign(last, { text: `${last.text}\n${text}`, images: [...last.images, ...images] });
    else merged.push({ role, text, images });
  }
  return merged;
}

export const streamed = (body) => ({ ...body, stream: true, stream_options: { include_usage: true } });

// Writes an answer from chunks. A piece is {text, tokens: [{token, logprob, top: [[token, logprob]]}]}: one token, or
// several of which only together text can be made (halves of a character).
export class Writer {
  constructor(answer, now = () => performance.now()) {
    this.answer = answer;
    this.now = now;
    this.began = now();
    this.first = null;
    this.waiting = []; // tokens whose text is held back
    this.seen = 0;
  }

  // Returns the new pieces.
  add(chunk) {
    const { answer } = this;
    const choice = chunk.choices?.[0];
    if (chunk.usage) this.usage = chunk.usage;
    if (!choice) return [];
    if (choice.finish_reason) answer.finish = choice.finish_reason;
    const text = choice.delta?.content ?? "";
    const tokens = (choice.logprobs?.content ?? []).map(compact);
    this.seen += tokens.length || (text ? 1 : 0);
    if (this.first === null && (text || tokens.length)) this.first = this.now();
    this.waiting.push(...tokens);
    if (!text) return [];
    answer.text += text;
    const pieces = split(text, this.waiting);
    this.waiting = [];
    answer.pieces.push(...pieces);
    return pieces;
  }

  // Seconds to the first token and in all; tokens read, from the cache, and written.
  end() {
    const end = this.now();
    this.answer.stats = {
      first: this.first === null ? null : (this.first - this.began) / 1000,
      seconds: (end - this.began) / 1000,
      prompt: this.usage?.prompt_tokens ?? null,
      cached: this.usage?.prompt_tokens_details?.cached_tokens ?? null,
      completion: this.usage?.completion_tokens ?? this.seen,
    };
  }
}

const rounded = (logprob) => Math.round(logprob * 1e4) / 1e4;

const compact = (one) => ({
  token: one.token, logprob: rounded(one.logprob), top: (one.top_logprobs ?? []).map((top) => [top.token, rounded(top.logprob)]),
});

function split(text, tokens) {
  if (!tokens.length) return [{ text, tokens: [] }];
  if (tokens.map((one) => one.token).join("") !== text) return [{ text, tokens }];
  return tokens.map((one) => ({ text: one.token, tokens: [one] }));
}
