"""A scheduler that says what it is told to, without a model; and a server of it at a port of this machine."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import uvicorn

from eve_jax import EVE
from eve_jax.infer.requests import Finish, Listener, QueueFull, Request, Ticket, Token
from eve_jax.serve import app, process
from eve_jax.serve.images import ImageReader
from eve_jax.serve.model import Served
from eve_jax.serve.settings import ServeSettings

SAID = "  It is a réd bus, 图.  "


class Load(NamedTuple):
    """What is under way."""

    running: int
    waiting: int = 0
    used_tokens: int = 10
    total_tokens: int = 100
    prefix_queries: int = 7
    prefix_hits: int = 3
    compiled: int = 0
    stalls: tuple[int, ...] = (1, 2, 3, 0, 0, 0, 0, 0, 1)
    stalled: float = 20.5


class Scripted:
    """Answers every request with the tokens of `said`, one every `pace` seconds, then with a stop token.

    While `held` is set, requests wait; `most` are taken at present, `capacity` ever. `requests` are all that came.
    """

    def __init__(self, eve: EVE, said: str = SAID):
        self.eve, self.said = eve, eve.tokenizer.encode(said)
        self.pace, self.most, self.error = 0.0, 1000, ""
        self.capacity = 1000
        self.go = threading.Event()
        self.go.set()
        self.lock = threading.Lock()
        self.running = 0
        self.requests: list[Request] = []
        self.reasons: list[str] = []
        self.warm = threading.Event()
        self.warm.set()
        self.closed: bool | None = None

    def warm_up(self, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
        """Wait until `warm` is set."""
        self.warm.wait()
        return 0

    def start(self) -> None:
        """Nothing to start."""

    def close(self, drain: bool) -> None:
        """Wait for the answers."""
        self.closed = drain
        while self.running:
            time.sleep(0.01)

    def stats(self) -> Load:
        """What is under way."""
        return Load(self.running)

    def submit(self, request: Request, listener: Listener) -> Ticket:
        """Take a request."""
        with self.lock:
            if self.running >= self.most:
                raise QueueFull("full")
            self.running += 1
            self.requests.append(request)
        ticket = Ticket(request, listener)
        ticket.cached_tokens = 5
        threading.Thread(target=self._answer, args=[ticket], daemon=True).start()
        return ticket

    def _answer(self, ticket: Ticket) -> None:
        finish = self._told(ticket)
        ticket.finished = time.monotonic()
        with self.lock:
            self.running -= 1
            self.reasons.append(finish.reason)
        ticket.listener(ticket, [], finish)

    def _told(self, ticket: Ticket) -> Finish:
        request = ticket.request
        while not self.go.wait(0.005):
            if ticket.cancelled:
                return Finish("cancelled")
        ticket.started = ticket.first = time.monotonic()
        if self.error:
            return Finish("error", self.error)
        ids = self.said if request.stop_ids else self.said * (request.max_new_tokens // len(self.said) + 1)
        for id in ids[: request.max_new_tokens]:
            if ticket.cancelled:
                return Finish("cancelled")
            time.sleep(self.pace)
            top = tuple((n, -1.0 - n) for n in range(request.logprobs)) if request.logprobs >= 0 else ()
            ticket.listener(ticket, [Token(id, -0.5 if request.logprobs >= 0 else None, top)], None)
        if len(ids) < request.max_new_tokens:
            return Finish("stop", stop_id=request.stop_ids[0])
        return Finish("length")


def wait_for(holds: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until `holds()`."""
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit, "it took too long"
        time.sleep(0.005)


class Address(NamedTuple):
    """A server under way."""

    url: str
    scheduler: Any
    app: app.Application
    server: process.Server


@contextlib.contextmanager
def serving(
    eve: EVE,
    scheduler: Any,
    settings: ServeSettings,
    reader: ImageReader | None = None,
    context: int = 512,
    tls: process.Tls | None = None,
    drain_time: float = 5,
) -> Iterator[Address]:
    """A server in a thread of this process."""
    listener = process.listening("127.0.0.1", 0)
    made = app.build(Served(eve, settings, context), scheduler, reader)
    made.state.say = lambda text: None
    server = process.Server(process.config(made, settings.header_time, tls), drain_time)
    thread = threading.Thread(target=uvicorn.Server.run, args=[server, [listener]], daemon=True)
    thread.start()
    wait_for(lambda: server.started, 30)
    try:
        yield Address(f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}", scheduler, made, server)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
