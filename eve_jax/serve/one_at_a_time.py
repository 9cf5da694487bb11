"""A scheduler that answers one request after the other, by the engine alone."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from eve_jax.errors import UserError
from eve_jax.infer.engine import Engine
from eve_jax.infer.requests import Finish, Listener, QueueFull, Request, Ticket, Token


@dataclass
class Load:
    """What is under way."""

    running: int = 0
    waiting: int = 0
    used_tokens: int = 0
    total_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    compiled: int = 0


class OneAtATime:
    """Answers by `engine`; at most `most` requests wait."""

    def __init__(self, engine: Engine, most: int = 64):
        self.engine = engine
        self._waiting: queue.Queue[Ticket | None] = queue.Queue(most)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._drops = False
        self._running = 0

    def warm_up(self, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
        return 0

    def start(self) -> None:
        self._thread.start()

    def submit(self, request: Request, listener: Listener) -> Ticket:
        if request.logprobs >= 0:
            raise UserError("log probabilities need the scheduler")
        ticket = Ticket(request, listener)
        try:
            self._waiting.put_nowait(ticket)
        except queue.Full:
            raise QueueFull("the queue is full") from None
        return ticket

    def close(self, drain: bool) -> None:
        self._drops = not drain
        self._waiting.put(None)
        self._thread.join()

    def stats(self) -> Load:
        return Load(self._running, self._waiting.qsize())

    def _run(self) -> None:
        while ticket := self._waiting.get():
            self._running = 1
            finish = self._answer(ticket)
            ticket.finished = time.monotonic()
            self._running = 0
            ticket.listener(ticket, [], finish)

    def _answer(self, ticket: Ticket) -> Finish:
        request, count = ticket.request, 0
        if ticket.cancelled or self._drops:
            return Finish("cancelled")
        ticket.started = time.monotonic()
        tokens = self.engine.stream(request.prompt, request.max_new_tokens, request.stop_ids, request.sampling)
        try:
            for id in tokens:
                ticket.first = ticket.first or time.monotonic()
                count += 1
                ticket.listener(ticket, [Token(id)], None)
                if ticket.cancelled or self._drops:
                    return Finish("cancelled")
        except UserError as error:
            return Finish("error", str(error))
        return Finish("length" if count == request.max_new_tokens else "stop")
