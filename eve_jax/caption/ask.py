"""How one image gets its caption: requests, what is tried again, and why it is rejected.

    answer            checked; a fault is asked again once with another seed, then rejected
    refused           sent once more at half the size, then rejected with the endpoint's words
    finish: length    asked once more with twice the tokens, then rejected: half a sentence is never kept
    bad JSON          the outermost braces are read; then asked again once, then rejected

Whatever was answered before is taken from the answer log, so that all of this comes to the same for a run that was
killed and resumes.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from eve_jax.caption.answers import AnswerLog
from eve_jax.caption.checks import Checker, Facts
from eve_jax.caption.config import CaptionConfig, read_body
from eve_jax.caption.endpoint import Pool
from eve_jax.caption.prompts import Prompt, fixed_text, parse_template
from eve_jax.caption.replies import REFUSED, Answer
from eve_jax.caption.sent import Sent, shrink
from eve_jax.data.record import digest_of
from eve_jax.errors import shorten

ATTEMPTS = 2
READ, ASK, CHECK, WRITE = "read", "ask", "check", "write"  # stages at which a record is rejected
MORE = 2  # times the tokens, for an answer that was cut off
TOKENS = ("max_tokens", "max_completion_tokens")  # fields of a request; the latter is what newer models have


class Outcome(NamedTuple):
    """What became of an image: its caption and the attempt that gave it, or why it is rejected."""

    caption: str = ""
    attempt: int = 0
    stage: str = ""
    rule: str = ""
    value: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether there is a caption."""
        return not self.rule


@dataclass(frozen=True)
class Question:
    """What is asked about an image: the image, the prompt, what is known of it, and the record's id for the log."""

    sent: Sent
    prompt: Prompt
    facts: Facts
    id: str = ""


class Asker:
    """Gets captions from a pool of endpoints, paying once for every request that was ever answered."""

    def __init__(self, config: CaptionConfig, pool: Pool, log: AnswerLog) -> None:
        self.config, self._pool, self._log = config, pool, log
        texts = (fixed_text(parse_template(text, "")) for text in (config.prompt.system, config.prompt.text))
        self._checker = Checker(config.checks, "\n".join(texts))
        self._under_way: dict[str, asyncio.Task[Answer]] = {}

    async def caption(self, question: Question, attempts: Sequence[int] = range(ATTEMPTS)) -> Outcome:
        """Return the caption of an image, or why it is rejected. Raises what `Pool.ask` and `AnswerLog.add` raise.

        attempts: each has a seed of its own; the next one is made when the check rejects the answer of the one before.
        """
        outcome = Outcome()
        for attempt in attempts:
            outcome, question, final = await self._attempt(question, attempt)
            if final:
                break
        return outcome

    async def _attempt(self, question: Question, attempt: int) -> tuple[Outcome, Question, bool]:
        """Return the outcome, the question as it was taken (with a smaller image, perhaps), and whether it is final."""
        answer = await self._answer(question, attempt)
        if answer.rule == REFUSED:
            smaller = await asyncio.to_thread(shrink, question.sent, self.config.image)
            if smaller is not None:
                question = replace(question, sent=smaller)
                answer = await self._answer(question, attempt)
        if not answer.rule and answer.finish == "length":
            answer = await self._answer(question, attempt, MORE)
        if answer.rule:
            return Outcome("", attempt, ASK, answer.rule, answer.words), question, True
        if answer.finish == "length":
            value = f"not finished after {answer.tokens or 'the most'} tokens"
            return Outcome("", attempt, ASK, "length", value), question, True
        if answer.finish == "content_filter":
            return Outcome("", attempt, ASK, "filtered", "by the endpoint"), question, True
        text = answer.text
        if self.config.prompt.json:
            found = read_json_answer(text, self.config.prompt.json)
            if found is None:
                return Outcome("", attempt, ASK, "json", shorten(text, 120) or "no text"), question, False
            text = found
        text = text.strip()
        fault = self._checker.fault(text, question.facts)
        if fault is not None:
            return Outcome(text, attempt, CHECK, fault.rule, fault.value), question, False
        return Outcome(text, attempt), question, True

    async def _answer(self, question: Question, attempt: int, times: int = 1) -> Answer:
        """Return the answer to a request: from the log, of the same request that is under way, or of the endpoint."""
        fields = self._fields(question.prompt, attempt, times)
        key = digest_of([question.sent.digest, json.dumps(fields, sort_keys=True)])
        found = self._log.get(key)
        if found is not None:
            return found
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._paid(key, fields, question))
            self._under_way[key] = task
            task.add_done_callback(partial(self._done, key))
        return await asyncio.shield(task)

    def _done(self, key: str, task: "asyncio.Task[Answer]") -> None:
        self._under_way.pop(key, None)
        if not task.cancelled():
            task.exception()  # is taken notice of, also where those who waited for it are gone

    async def _paid(self, key: str, fields: dict[str, Any], question: Question) -> Answer:
        began = time.monotonic()
        body = {**fields, "messages": _messages(question)}
        answer, url = await self._pool.ask(json.dumps(body).encode())
        self._log.add(key, answer, id=question.id, seconds=round(time.monotonic() - began, 3), url=url)
        return answer

    def _fields(self, prompt: Prompt, attempt: int, times: int) -> dict[str, Any]:
        """Return the fields of a request without its image; the prompt's texts stand for the messages."""
        endpoint = self.config.endpoint
        fields: dict[str, Any] = {
            "model": endpoint.model,
            "temperature": endpoint.temperature if attempt == 0 else endpoint.again_temperature,
            "seed": endpoint.seed + attempt,
            "max_tokens": endpoint.max_tokens,
            "messages": [prompt.system, prompt.text],
        }
        if self.config.prompt.json:
            fields["response_format"] = {"type": "json_object"}
        fields |= read_body(endpoint.body)
        fields = {name: value for name, value in fields.items() if value is not None}
        return fields | {name: fields[name] * times for name in TOKENS if isinstance(fields.get(name), int)}

    async def close(self, seconds: float) -> None:
        """Give what is in flight `seconds` to be answered and logged, then give it up."""
        tasks = list(self._under_way.values())
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _messages(question: Question) -> list[dict[str, Any]]:
    prompt = question.prompt
    image = {"type": "image_url", "image_url": {"url": question.sent.url()}}
    user = {"role": "user", "content": [image, {"type": "text", "text": prompt.text}]}
    return [*([{"role": "system", "content": prompt.system}] if prompt.system else []), user]


def read_json_answer(text: str, field: str) -> str | None:
    """Return the text that a JSON answer has in `field`, None for what is not such an object, even after a repair.

    The repair reads from the first brace to the last, so that a code fence and words around the object do no harm.
    """
    for part in (text, text[text.find("{") : text.rfind("}") + 1]):
        try:
            found = json.loads(part, strict=False)
        except (ValueError, RecursionError):
            continue
        value = found.get(field) if isinstance(found, dict) else None
        if isinstance(value, str):
            return value
    return None
