"""Between the event loop and the scheduler's thread: the answers to one request as they come."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple, Protocol

from eve_jax.errors import UserError
from eve_jax.infer.requests import Finish, Listener, QueueFull, Request, Ticket, Token
from eve_jax.serve.problem import Problem, busy


class Scheduling(Protocol):
    """What the server needs of `eve_jax.infer.scheduler.Scheduler`, whose methods these are."""

    @property
    def capacity(self) -> int: ...

    def warm_up(self, progress: Callable[[int, int], None] = ...) -> int: ...

    def submit(self, request: Request, listener: Listener) -> Ticket: ...

    def start(self) -> None: ...

    def close(self, drain: bool) -> None: ...

    def stats(self) -> Any: ...


class Event(NamedTuple):
    """New tokens of the answer to the request with this number, and its end."""

    number: int
    tokens: list[Token]
    finish: Finish | None


class Running:
    """Requests that are answered together; `tickets` are theirs, in order."""

    def __init__(self, scheduler: Scheduling, requests: Sequence[Request]):
        self.scheduler, self.requests = scheduler, requests
        self.tickets: list[Ticket] = []
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._closed = False

    def submit(self) -> None:
        """Hand the requests in, from any thread. Raises Problem when the queue is full or one cannot be answered."""
        count, most = len(self.requests), self.scheduler.capacity
        if count > most:
            raise Problem(f"{count} answers in a request: this server takes at most {most} at a time", "n")
        try:
            for number, request in enumerate(self.requests):
                self.tickets.append(self.scheduler.submit(request, self._listener(number)))
                if self._closed:  # meanwhile, by the event loop
                    self.close()
        except QueueFull:
            self.close()
            raise busy("too many requests wait already: try again later") from None
        except UserError as error:
            self.close()
            raise Problem(str(error)) from None

    def _listener(self, number: int) -> Listener:
        def hear(ticket: Ticket, tokens: list[Token], finish: Finish | None) -> None:
            try:
                self._loop.call_soon_threadsafe(self._events.put_nowait, Event(number, tokens, finish))
            except RuntimeError:  # the event loop has ended
                ticket.cancel()

        return hear

    async def events(self) -> AsyncIterator[Event]:
        """The events of all requests until each has ended."""
        left = len(self.requests)
        while left:
            event = await self._events.get()
            left -= event.finish is not None
            yield event

    def close(self, number: int | None = None) -> None:
        """End the answers, or that to one request; those that have ended stay as they are."""
        if number is not None:
            self.tickets[number].cancel()
            return
        self._closed = True
        for ticket in self.tickets:
            ticket.cancel()
