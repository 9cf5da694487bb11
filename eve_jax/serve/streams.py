"""Answers as text: tokens to pieces with stop strings and log probabilities, and pieces to a stream of events."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.types import Receive, Scope, Send

from eve_jax.infer.requests import Finish, Token
from eve_jax.serve.metrics import Metrics
from eve_jax.serve.problem import Problem, stopping
from eve_jax.serve.runner import Running
from eve_jax.serve.text import Decode, Detokenizer, StopStrings, Stripped

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"


class ClientGone(Exception):
    """The client has closed the connection: nobody is there to answer to."""


@dataclass
class Piece:
    """A part of the answer with the number `index`; `reason` is that of its end, `stop` what ended it."""

    index: int
    text: str
    tokens: list[Token] = field(default_factory=list)
    reason: str | None = None
    stop: str | int | None = None


class Choice:
    """One answer: its tokens so far, and its text, which follows that of the tokens `before`.

    stops, stop_ids: what ends it by the request's own wish; without `before` the text has no white space at its ends.
    """

    def __init__(
        self,
        index: int,
        decode: Decode,
        stops: Sequence[str] = (),
        stop_ids: Sequence[int] = (),
        before: Sequence[int] | None = None,
    ):
        self.index, self.count, self.done = index, 0, False
        self._text, self._stop_ids = Detokenizer(decode, before or ()), stop_ids
        self._stops, self._one_by_one = StopStrings(stops), bool(stops)
        self._strip = Stripped().push if before is None else _as_it_is

    def feed(self, tokens: list[Token], finish: Finish | None) -> Piece:
        """The part of the answer that further tokens make; a stop string ends it with the token that completes it."""
        steps = [[token] for token in tokens] if self._one_by_one else [tokens]
        piece = Piece(self.index, "")
        for step in steps:
            text = self._stops.push(self._text.push([token.id for token in step]))
            piece.text += self._strip(text)
            piece.tokens += step
            self.count += len(step)
            if self._stops.found is not None:
                break
        if finish is not None and self._stops.found is None:
            rest = self._stops.push(self._text.push([], last=True), last=True)
            piece.text += self._strip(rest, True)
            piece.reason = finish.reason
            piece.stop = finish.stop_id if finish.stop_id in self._stop_ids else None
        if self._stops.found is not None:
            piece.text += self._strip("", True)
            piece.reason, piece.stop = "stop", self._stops.found
        self.done = piece.reason is not None
        return piece


def _as_it_is(piece: str, last: bool = False) -> str:
    return piece


class Answers:
    """The answers to the requests of `running`, one of `choices` each, counted in `metrics`."""

    def __init__(self, running: Running, choices: Sequence[Choice], metrics: Metrics):
        self.running, self.choices, self.metrics = running, choices, metrics
        self._last: dict[int, float] = {}  # when an answer's last token came

    async def pieces(self) -> AsyncIterator[Piece]:
        """The answers' parts as they come. Raises Problem when one fails; ends all answers when it is closed early."""
        try:
            async for event in self.running.events():
                choice = self.choices[event.number]
                if choice.done:
                    continue
                piece = choice.feed(event.tokens, event.finish)
                self._note(choice, piece)
                if event.finish is not None and piece.reason == "error":
                    print(f"error: {event.finish.error}", file=sys.stderr, flush=True)
                    raise Problem("the model gave no answer to this; the server's log says why", status=500)
                if piece.reason == "cancelled":
                    raise stopping()
                if piece.text or piece.tokens or piece.reason:
                    yield piece
                if all(choice.done for choice in self.choices):
                    return
        finally:
            self.close()

    def _note(self, choice: Choice, piece: Piece) -> None:
        now = time.monotonic()
        if piece.tokens and choice.index in self._last:
            for _ in piece.tokens:
                self.metrics.between((now - self._last[choice.index]) / len(piece.tokens))
        if piece.tokens:
            self._last[choice.index] = now
        if piece.reason is not None:
            self.metrics.ended(self.running.tickets[choice.index], choice.count, piece.reason)
            self.running.close(choice.index)

    def close(self) -> None:
        """End all answers, those that have not begun included."""
        self.running.close()
        for ticket, choice in zip(self.running.tickets, self.choices, strict=False):
            if not choice.done:
                choice.done = True
                self.metrics.ended(ticket, choice.count, "abort")

    @property
    def tokens(self) -> int:
        """Tokens of all answers so far."""
        return sum(choice.count for choice in self.choices)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away first: then ClientGone is raised."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream:
    """A response of server-sent events; an error of `events` after the first byte is an event, too."""

    def __init__(self, events: AsyncIterator[Any], close: Callable[[], None]):
        self.events, self.close = events, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_gone(receive, self._send(send))
        finally:
            self.close()

    async def _send(self, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, (b"x-accel-buffering", b"no")]})

        async def give(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        try:
            async for event in self.events:
                await give(event_bytes(event))
        except Problem as problem:
            await give(event_bytes(problem.body))
        except asyncio.CancelledError:  # the time to end in is over, or nobody is there to read this
            await give(event_bytes(stopping().body))
        await give(DONE)
        await send({"type": "http.response.body", "body": b""})


def event_bytes(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
