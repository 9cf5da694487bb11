"""Judges: language models that grade answers, at any OpenAI-style address, or their recorded replies."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from eve_jax.errors import UserError, shorten
from eve_jax.process.checks import is_address
from eve_jax.process.posting import NotAnswered, Refused, post_once

RETRIES, PAUSE = 5, 3.0


class JudgeFailed(UserError):
    """A request to a judge failed: the row has no verdict, and is no wrong answer."""


@dataclass(frozen=True)
class Question:
    """One request to a judge.

    Attributes:
        content: the text of the user's message.
        system: the system message; "" for none.
        temperature: of the sampling.
        max_tokens: the most tokens of the reply.
        facts: what the request is about (`row`, `question`, ...), by which recorded replies are found.
    """

    content: str
    system: str = ""
    temperature: float = 0.0
    max_tokens: int = 256
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> list[dict[str, str]]:
        """The request as chat messages."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.content}]


class Judge(Protocol):
    """Replies to questions about answers."""

    model: str

    def ask(self, question: Question) -> str:
        """Return the text of the reply. Raises JudgeFailed."""
        ...


class HttpJudge:
    """A judge at an OpenAI-style address, `BASE/chat/completions`; our own server is one.

    Args:
        base: address up to and including `/v1`, or all of it.
        model: name that the address knows it by.
        key: API key; "" for none.
        timeout: seconds until a request counts as failed.
    """

    def __init__(self, base: str, model: str, key: str = "", timeout: float = 120.0, pause: float = PAUSE) -> None:
        if not is_address(base):
            raise UserError(f"judge address {base!r}: expected http://HOST:PORT/v1 or https://HOST/v1")
        self.url = base if base.rstrip("/").endswith("/chat/completions") else f"{base.rstrip('/')}/chat/completions"
        self.model, self.key, self.timeout, self.pause = model, key, timeout, pause

    def ask(self, question: Question) -> str:
        """Return the reply, after up to five tries. Raises JudgeFailed, which names the address and the reason."""
        body = {
            "model": self.model,
            "messages": question.messages,
            "temperature": question.temperature,
            "max_tokens": question.max_tokens,
        }
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        data = json.dumps(body).encode()
        reason = ""
        for trial in range(RETRIES):
            if trial:
                time.sleep(self.pause)
            try:
                return _text(post_once(self.url, data, headers, self.timeout))
            except Refused as error:
                reason = str(error)
                break
            except (NotAnswered, ValueError, LookupError, TypeError) as error:
                reason = shorten(str(error) or type(error).__name__, 200)
        raise JudgeFailed(
            f"judge {self.url} ({self.model}): no reply ({reason}); check the address, the model, the key"
        )


def _text(reply: bytes) -> str:
    content = json.loads(reply)["choices"][0]["message"]["content"]
    if content is not None and not isinstance(content, str):
        raise ValueError("the reply's content is not a text")
    return content or ""


class ReplayedJudge:
    """Recorded replies, each given once: to the first request that agrees with all facts which the record states.

    Args:
        calls: records with `reply` and any of the facts of a request (`row`, `question`, `options`, `prediction`).
        model: name of the recorded judge; reference files call it `fake`.
    """

    def __init__(self, calls: Sequence[Mapping[str, Any]], model: str = "fake") -> None:
        self.model = model
        self._left = list(calls)

    def ask(self, question: Question) -> str:
        """Return the recorded reply. Raises JudgeFailed when none is left for the request."""
        facts = question.facts
        for number, call in enumerate(self._left):
            if all(call[key] == value for key, value in facts.items() if key in call):
                return str(self._left.pop(number)["reply"] or "")
        stated = ", ".join(f"{key} {value!r}" for key, value in facts.items())
        raise JudgeFailed(f"judge_calls hold no further reply for {shorten(stated, 200) or 'this request'}")
