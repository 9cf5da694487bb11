// Asks questions, keeps conversations, and connects the parts of the page.

import { address, chat, hasKey, onUnauthorized } from "./api.js";
import { draft, enable, focusQuestion, measure, putBack, setDraft, showSize, watchComposer } from "./composer.js";
import { connect, watchConnection } from "./connection.js";
import { asCurl, asPython, withFiles } from "./copy.js";
import { askKey, showCode, watchSettings, watchTheme } from "./dialogs.js";
import { $, alarm, announce, sentence, toast, toClipboard } from "./dom.js";
import { showHistory, watchHistory } from "./history.js";
import { blankUrlOf, keepUrl, urlOf } from "./images.js";
import { bodyOf, streamed, Writer } from "./request.js";
import { newAnswer, newConversation, state } from "./state.js";
import * as store from "./store.js";
import { watchTokens } from "./tokens.js";
import * as view from "./view.js";

const TITLE = 60; // characters

const turns = () => state.conversation.turns;

const redraw = () => {
  view.showTurns(turns(), Boolean(state.busy));
  enable();
};

let warned = false;
let running = Promise.resolve(); // the work on a question, to its end
let leaving = false; // the conversation is being left: what is unanswered stays in it

function save(conversation = state.conversation) {
  if (state.deleted.has(conversation.id)) return;
  const first = conversation.turns[0];
  if (!first) {
    store.forget(conversation);
  } else {
    conversation.title = (first.text || first.images[0]?.name || "").replace(/\s+/g, " ").slice(0, TITLE);
    conversation.changed = Date.now();
    if (!store.keep(conversation) && !warned) {
      warned = true;
      toast("The browser’s storage is full or switched off: this conversation is not kept");
    }
  }
  showHistory();
}

async function send() {
  const question = draft();
  if (state.busy || !question.text || $("send").disabled) return;
  const { editing } = state;
  setEditing(null);
  turns().push({ role: "user", ...question });
  setDraft(editing?.kept ?? { text: "", images: [] });
  for (const image of question.images) store.keepImage(image.id, urlOf(image));
  view.toEnd();
  const work = run(answerLast(editing && { turns: editing.turns, edited: true }));
  focusQuestion();
  await work;
}

const run = (work) => (running = work);

// Answers the last question of the open conversation. `instead`, {turns, edited}, are a question and its answer that it
// takes the place of; they come back when it fails.
async function answerLast(instead = null) {
  const { conversation } = state;
  const before = [...turns()];
  const answer = newAnswer(state.settings, state.model.id);
  turns().push(answer);
  view.showFailure("", "");
  save();
  announce("Asking");
  const error = await busily(async (signal) => {
    redraw();
    await write(answer, before, urlOf, signal);
  });
  const stoppedEmpty = answer.finish === "stopped" && !answer.text;
  if (error || stoppedEmpty) {
    takeBack(conversation, error, instead);
    return;
  }
  save(conversation);
  if (state.conversation === conversation) redraw();
  announce(`Answer: ${answer.text}`);
  const seen = before.some((turn) => turn.images?.length);
  if (answer.settings.compare && seen && answer.finish !== "stopped") await compare(answer);
}

// Runs one request at a time; returns the error it ended with, or null. A stop is no error.
async function busily(act) {
  const controller = new AbortController();
  state.busy = controller;
  enable();
  try {
    await act(controller.signal);
    return null;
  } catch (error) {
    return controller.signal.aborted ? null : error;
  } finally {
    state.busy = null;
    enable();
  }
}

async function write(answer, before, url, signal) {
  const body = streamed(bodyOf(answer.model, before, answer.settings, url));
  const writer = new Writer(answer);
  try {
    for await (const chunk of chat(body, signal)) view.grow(answer, writer.add(chunk));
  } catch (error) {
    if (signal.aborted) answer.finish = "stopped";
    throw error;
  } finally {
    writer.end();
  }
}

const lastQuestion = (all) => all.findLastIndex((turn) => turn.role === "user");

// The question that was not answered goes back to where it was written; one that was answered before gets that answer.
function takeBack(conversation, error, instead) {
  const all = conversation.turns;
  const [question] = all.splice(lastQuestion(all));
  if (instead) all.push(...instead.turns);
  else if (leaving) all.push(question);
  save(conversation);
  if (leaving) return;
  if (instead?.edited) beginEdit(question);
  else if (!instead) putBack(question);
  redraw();
  const back = instead && !instead.edited ? "The answer of before is back." : "Your question is back.";
  if (!error) return announce(`Stopped. ${back}`);
  if (error.status === 0 || error.status === 401) connect();
  const message = sentence(error.message);
  const wait = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
  const title = error.status === 503 ? "The server is busy" : "The question was not answered";
  fail(title, `${message}${wait} ${back}`, instead && !instead.edited ? retry : send);
  focusQuestion();
}

// Shows and says what failed; `again` is what its button does.
function fail(title, text, again) {
  view.showFailure(title, text);
  alarm(`${title}. ${text}`);
  $("failure-retry").onclick = () => {
    view.showFailure("", "");
    again();
  };
}

async function stop() {
  state.busy?.abort();
  await running;
}

async function retry() {
  if (state.busy || !state.model) return;
  const i = lastQuestion(turns());
  const before = turns().splice(i);
  turns().push(before[0]);
  view.toEnd();
  const work = run(answerLast(before.length > 1 ? { turns: before, edited: false } : null));
  focusQuestion();
  await work;
}

function edit() {
  if (state.busy) return;
  beginEdit(turns()[lastQuestion(turns())]);
  redraw();
  $("question").focus();
}

// The composer holds `question` in place of the last one.
function beginEdit(question) {
  const kept = draft();
  setEditing({ turns: turns().splice(lastQuestion(turns())), kept });
  setDraft(question);
}

function setEditing(editing) {
  state.editing = editing;
  $("editing").hidden = !editing;
}

function cancelEdit() {
  if (!state.editing) return;
  turns().push(...state.editing.turns);
  setDraft(state.editing.kept);
  setEditing(null);
  redraw();
  focusQuestion();
}

// Asks the question of `answer` once more, with every image replaced by a gray one.
async function compare(answer) {
  if (state.busy || !state.model) return;
  const { conversation } = state;
  const before = turns().slice(0, turns().indexOf(answer));
  answer.blank = newAnswer(answer.settings, answer.model);
  announce("Asking with blank images");
  const error = await busily(async (signal) => {
    redraw();
    await write(answer.blank, before, blankUrlOf, signal);
  });
  if (error || (answer.blank.finish === "stopped" && !answer.blank.text)) answer.blank = null;
  save(conversation);
  if (state.conversation === conversation) redraw();
  if (error) {
    fail("The comparison failed", sentence(error.message), () => run(compare(answer)));
  } else if (answer.blank) {
    announce(`With blank images: ${answer.blank.text}`);
  }
}

function code(answer) {
  const before = turns().slice(0, turns().indexOf(answer));
  const files = withFiles((url) => bodyOf(answer.model, before, answer.settings, url));
  const note = files.names.length ? "Run it where the image files are." : "";
  const keyed = hasKey() ? "The API key is read from EVE_API_KEY." : "";
  const texts = {
    curl: asCurl(files, address("v1/chat/completions"), hasKey()),
    python: asPython(files, address("v1"), hasKey()),
  };
  showCode(texts, [note, keyed].filter(Boolean).join(" "));
}

async function open(conversation) {
  leaving = true;
  await stop();
  leaving = false;
  cancelEdit();
  state.conversation = conversation;
  view.showFailure("", "");
  const images = conversation.turns.flatMap((turn) => turn.images ?? []);
  await Promise.all(images.map(async (image) => {
    const url = urlOf(image) || (await store.imageUrl(image.id));
    if (url) keepUrl(image.id, url);
  }));
  redraw();
  showHistory();
  view.toEnd();
}

async function startNew() {
  await open(newConversation());
  announce("New conversation");
}

function start() {
  state.settings = store.settings();
  state.conversation = newConversation();
  onUnauthorized(askKey);
  view.useActs({ edit, retry, code, compare: (answer) => run(compare(answer)), redraw, look: view.look, copy: (answer) => toClipboard(answer.text, "Answer") });
  view.watchScroll();
  view.watchViewer();
  watchTokens($("log"));
  watchTheme();
  watchSettings(() => { showSize(); measure(); });
  watchComposer({ onSend: send, onSize: () => store.keepSettings(state.settings) });
  watchHistory({
    open,
    isOpen: (one) => one.id === state.conversation.id,
    removed: (gone) => { if (gone.some((one) => one.id === state.conversation.id)) startNew(); },
  }, startNew);
  watchConnection(() => { showSize(); enable(); measure(); });
  $("stop").onclick = () => { stop(); focusQuestion(); };
  $("edit-cancel").onclick = cancelEdit;
  $("failure-close").onclick = () => { view.showFailure("", ""); focusQuestion(); };
  for (const starter of document.querySelectorAll(".starters button")) {
    starter.onclick = () => {
      setDraft({ ...draft(), text: starter.textContent });
      $("question").focus();
    };
  }
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) state.busy ? stop() : cancelEdit();
  });
  showHistory();
  redraw();
  store.sweepImages();
  connect();
}

start();
