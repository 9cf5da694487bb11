"""Answers as JSON: whole or in chunks, of chats and of completions."""

import math
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.serve.streams import Piece
from eve_jax.serve.text import spelled

LEAST = -9999.0  # a log probability that JSON can hold, of a token that cannot be chosen


class Form:
    """The JSON of one request's answers.

    alternatives: of each token, -1 for no log probabilities. prompts: token ids of each answer's prompt where they are
    given back with those of the answers, () where not.
    """

    prefix = "chatcmpl"
    kinds = ("chat.completion", "chat.completion.chunk")

    def __init__(self, model: str, tokenizer: Tokenizer, alternatives: int, prompts: Sequence[list[int]] = ()):
        self.tokenizer, self.alternatives, self.prompts = tokenizer, alternatives, prompts
        self.head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, choices: Iterable[Piece], usage: dict[str, Any]) -> dict[str, Any]:
        """The complete answer."""
        shown = [self._choice(piece, self._content(piece)) for piece in choices]
        return {**self._body(0), "choices": shown, "usage": usage}

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """A part of an answer in a stream."""
        return {**self._body(1), "choices": [self._choice(piece, self._delta(piece))]}

    def usage_chunk(self, usage: dict[str, Any]) -> dict[str, Any]:
        """The chunk that has the usage of a stream."""
        return {**self._body(1), "choices": [], "usage": usage}

    def begin(self, index: int) -> dict[str, Any] | None:
        """The first chunk of an answer, if there is one without a token."""
        first = {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return {**self._body(1), "choices": [first]}

    def _body(self, kind: int) -> dict[str, Any]:
        return {"id": self.head["id"], "object": self.kinds[kind], **self.head}

    def _choice(self, piece: Piece, content: dict[str, Any]) -> dict[str, Any]:
        shown = {"index": piece.index, **content, "logprobs": self._logprobs(piece)}
        shown |= {"finish_reason": piece.reason, "stop_reason": piece.stop}
        if self.prompts:
            ids = [token.id for token in piece.tokens]
            shown |= {"token_ids": ids, "prompt_token_ids": self.prompts[piece.index]}
        return shown

    def _content(self, piece: Piece) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": piece.text, "refusal": None}}

    def _delta(self, piece: Piece) -> dict[str, Any]:
        return {"delta": {"content": piece.text}}

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if self.alternatives < 0:
            return None
        content = []
        for token in piece.tokens:
            tops = [self._entry(id, value) for id, value in token.top[: self.alternatives]]
            content.append({**self._entry(token.id, token.logprob), "top_logprobs": tops})
        return {"content": content, "refusal": None}

    def _entry(self, token: int, value: float | None) -> dict[str, Any]:
        own = spelled(self.tokenizer, token)
        return {"token": own.text, "logprob": finite(value), "bytes": own.bytes}


class CompletionForm(Form):
    """The JSON of completions."""

    prefix = "cmpl"
    kinds = ("text_completion", "text_completion")

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.offsets: dict[int, int] = {}  # characters of an answer's tokens so far

    def begin(self, index: int) -> None:
        """Completions begin with their first token."""

    def _content(self, piece: Piece) -> dict[str, Any]:
        return {"text": piece.text}

    _delta = _content

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if self.alternatives < 0:
            return None
        found: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token in piece.tokens:
            text, offset = self._text(token.id), self.offsets.get(piece.index, 0)
            tops = [*token.top[: self.alternatives], (token.id, token.logprob)]
            found["tokens"].append(text)
            found["token_logprobs"].append(finite(token.logprob))
            found["top_logprobs"].append({self._text(id): finite(value) for id, value in tops})
            found["text_offset"].append(offset)
            self.offsets[piece.index] = offset + len(text)
        return found

    def _text(self, token: int) -> str:
        return spelled(self.tokenizer, token).text


def finite(value: float | None) -> float:
    """Return a log probability as JSON can hold it."""
    return LEAST if value is None or not math.isfinite(value) else max(float(value), LEAST)


def merged(pieces: Iterable[Piece], index: int) -> Piece:
    """Return the parts of one answer as a whole."""
    whole = Piece(index, "")
    for piece in pieces:
        whole.text += piece.text
        whole.tokens += piece.tokens
        whole.reason, whole.stop = piece.reason or whole.reason, piece.stop if piece.reason else whole.stop
    return whole


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    """Tokens of a request."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
