"""What an OpenAI-style endpoint answers to a chat request, and what each kind of failure means.

429, 502, 503, 504, 408, no answer in time   Overloaded: fewer requests at a time; says nothing about the image
nobody listens                               Unreachable
500 and others, a connection that breaks     Faulty: asked again a few times
400, 413, 415, 422 ...                       Refused: this image or this request
401, 402, 404, 405, 3xx, an unknown model    Stop: no request can succeed until the user changes something
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eve_jax.errors import UserError, shorten
from eve_jax.process.posting import retry_after

BUSY = (408, 425, 429, 502, 503, 504)
HOPELESS = {
    401: "the key is wrong or missing",
    402: "the account has no credit",
    404: "there is no such model, or the URL does not end in /v1",
    405: "the URL is not that of an OpenAI-style API, which ends in /v1",
}
NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")
NO_MODEL = ("model_not_found", "model_not_available")
UNKNOWN_MODEL = re.compile(r"\bmodel\b.{0,120}\b(not found|does not exist|not exist|unknown|no such)\b", re.I | re.S)
THOUGHTS = re.compile(r"\s*<think>.*?</think>\s*", re.S)
REFUSED, SERVER, TIMEOUT = RULES = ("refused", "server", "timeout")  # why a request has no answer
KEY_FROM = "EVE_CAPTION_KEY or OPENAI_API_KEY"


@dataclass(frozen=True)
class Answer:
    """An answer to one request, or the final refusal of it.

    Attributes:
        text: what the model wrote, without the thoughts that some models begin with.
        finish: why it ended: `stop`, `length` ...
        prompt_tokens, tokens: as the endpoint counts them, 0 where it does not.
        rule: why there is no answer, for good: REFUSED, SERVER or TIMEOUT; else "".
        words: the endpoint's then.
        status: of HTTP; 0 where there was none.
    """

    text: str = ""
    finish: str = "stop"
    prompt_tokens: int = 0
    tokens: int = 0
    rule: str = ""
    words: str = ""
    status: int = 200


class Failure(Exception):
    """A request without an answer; the message has the endpoint's words."""


class Overloaded(Failure):
    """The endpoint is too busy. `retry_after`: seconds that it asked for, None for no word of it.

    slow: it did not answer in time, which may also be for this very request.
    """

    def __init__(self, words: str, retry_after: float | None = None, slow: bool = False) -> None:
        super().__init__(words)
        self.retry_after, self.slow = retry_after, slow


class Unreachable(Failure):
    """Nobody listens at the address."""


class Faulty(Failure):
    """The endpoint failed: status 5xx, a connection that broke, an answer that is none."""


class Refused(Failure):
    """The endpoint refused this request; `status` is that of HTTP."""

    def __init__(self, words: str, status: int) -> None:
        super().__init__(words)
        self.status = status


class Stop(UserError):
    """No request can succeed as things are."""


def read_reply(status: int, headers: Mapping[str, str], body: bytes, where: str) -> Answer:
    """Return the answer in an HTTP response of `status`. Raise the Failure, or Stop, that it means.

    where: the endpoint's URL and the model, for messages of Stop.
    """
    if status == 200:
        return _answer(body)
    words, code = _words(body, status)
    if status in HOPELESS or 300 <= status < 400 or code in (*NO_CREDIT, *NO_MODEL):
        raise Stop(f"{where}: {words}; {_remedy(status, code)}")
    if status == 400 and UNKNOWN_MODEL.search(words):
        raise Stop(f"{where}: {words}; {HOPELESS[404]}")
    if status in BUSY:
        raise Overloaded(words, retry_after(headers.get("retry-after")))
    if status >= 500:
        raise Faulty(words)
    raise Refused(words, status)


def _remedy(status: int, code: str) -> str:
    if code in NO_CREDIT:
        return HOPELESS[402]
    if code in NO_MODEL:
        return HOPELESS[404]
    if status == 401:
        return f"{HOPELESS[401]}: set {KEY_FROM} in the environment"
    return HOPELESS.get(status, "it is elsewhere: set config.endpoint.url to where it leads")


def _answer(body: bytes) -> Answer:
    try:
        reply = json.loads(body)
        choice = reply["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason") or "stop"
        usage = reply.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        shown = shorten(body[:200].decode(errors="replace"), 120)
        raise Faulty(f"the answer is not a chat completion ({type(error).__name__}): {shown}") from None
    if text is not None and not isinstance(text, str):
        raise Faulty("the answer's content is not a text")
    prompt_tokens, tokens = (count if type(count) is int and count >= 0 else 0 for count in counts)
    clean = _whole(text or "")
    if (found := THOUGHTS.match(clean)) is not None:
        clean = clean[found.end() :]
    return Answer(clean, _whole(str(finish)), prompt_tokens, tokens)


def _whole(text: str) -> str:
    """Return `text` without halves of surrogate pairs, which JSON may hold and UTF-8 may not."""
    return text.encode("utf-8", "replace").decode()


def _words(body: bytes, status: int) -> tuple[str, str]:
    """Return what an error says, on one line with its status, and its code where that is one of those known here."""
    text, code = body[:2000].decode(errors="replace"), ""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    error: Any = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(error, dict):
        text = str(error.get("message") or error.get("detail") or text)
        code = next((one for one in (error.get("code"), error.get("type")) if one in (*NO_CREDIT, *NO_MODEL)), "")
    elif isinstance(error, str):
        text = error
    return f"status {status}: {shorten(' '.join(_whole(text).split()), 200) or 'no message'}", code
