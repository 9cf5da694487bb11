"""OpenAI-style endpoints, each with a gate, of which a request takes the one that has room.

What says nothing about a request (an endpoint that is busy, or that nobody listens at) is waited out here, and never
counts against the image; `Pool.ask` returns an answer, or the endpoint's last word on this request.
"""

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

import httpx

from eve_jax.caption.config import EndpointConfig, read_urls
from eve_jax.caption.gate import Gate
from eve_jax.caption.replies import (
    REFUSED,
    SERVER,
    TIMEOUT,
    Answer,
    Faulty,
    Overloaded,
    Refused,
    Stop,
    Unreachable,
    read_reply,
)
from eve_jax.errors import shorten

logging.getLogger("httpx").setLevel(logging.WARNING)  # or it logs every request
CONNECT = 10.0  # seconds to connect
LONGEST_WAIT = 10.0  # seconds between two requests for an image that the endpoint failed at
ALONE = 2  # times that a request, the only one in flight, may find no answer in time
FORBIDDEN = 403


class Stopping(Exception):
    """The run is told to stop: no further request is sent."""


class Endpoint:
    """One endpoint: `send` posts a request to `URL/chat/completions`."""

    def __init__(self, url: str, config: EndpointConfig, key: str = "") -> None:
        self.url, self.gate = url, Gate(config.start, config.concurrency)
        self._where, self._key = f"{url} ({config.model})", key
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(config.timeout, connect=CONNECT, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=config.concurrency),
        )
        self.answered = False  # something, with this key
        self.down = ""  # words of the failure that it was last warned of

    async def send(self, body: bytes) -> Answer:
        """Return the answer to the JSON `body`. Raise Failure or Stop, in whose words the key does not stand."""
        try:
            response = await self._client.post(f"{self.url}/chat/completions", content=body)
            answer = read_reply(response.status_code, response.headers, response.content, self._where)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise Unreachable(self._words(error)) from None
        except httpx.TimeoutException:
            raise Overloaded("no answer in time (config.endpoint.timeout)", slow=True) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Faulty(self._words(error)) from None
        except Refused as error:
            if error.status == FORBIDDEN and not self.answered:
                raise Stop(f"{self._where}: {self._words(error)}; the key may not use this model") from None
            raise Refused(self._words(error), error.status) from None
        except Stop as error:
            raise Stop(self._words(error)) from None
        self.answered = True
        return answer

    def _words(self, error: Exception) -> str:
        text = " ".join(str(error).split()) or type(error).__name__
        return shorten(text.replace(self._key, "***") if self._key else text, 400)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


class Grant(NamedTuple):
    """Leave to send a request to an endpoint: its number there, and whether nothing else is in flight."""

    endpoint: Endpoint
    number: int
    alone: bool


class Pool:
    """Several endpoints of one model as one: `ask` sends a request to one that has room.

    `patience` seconds without any answer while requests fail end the run. clock: seconds, for tests.
    """

    def __init__(self, config: EndpointConfig, key: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.config, self._clock = config, clock
        self.endpoints = [Endpoint(url, config, key) for url in read_urls(config.url)]
        self._waiting: deque[asyncio.Future[Grant]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._failing_since: float | None = None
        self._stopping = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for endpoint in self.endpoints:
            await endpoint.close()

    @property
    def in_flight(self) -> int:
        """Requests that were sent and have not come back."""
        return sum(endpoint.gate.in_flight for endpoint in self.endpoints)

    @property
    def sent(self) -> int:
        """Requests that were sent so far."""
        return sum(endpoint.gate.sent for endpoint in self.endpoints)

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return sum(int(endpoint.gate.limit) for endpoint in self.endpoints)

    def stop(self) -> None:
        """Send no further request: those who wait for room, or ask from now on, get Stopping."""
        self._stopping = True
        while self._waiting:
            if not (waiter := self._waiting.popleft()).done():
                waiter.set_exception(Stopping())

    async def ask(self, body: bytes) -> tuple[Answer, str]:
        """Return the answer to the JSON `body` and the URL it came from.

        One with a `rule` is final: the endpoint refused it (REFUSED), failed as often as is allowed (SERVER), or did
        not answer in time although nothing else was in flight (TIMEOUT). Raises Stop when no request can succeed, and
        Stopping after `stop`.
        """
        faults = slow = 0
        while True:
            endpoint, number, alone = await self._acquire()
            try:
                answer = await endpoint.send(body)
            except Overloaded as error:
                endpoint.gate.overloaded(number, self._clock(), error.retry_after)
                self._failing(endpoint, error)
                slow += int(error.slow and alone)
                if slow >= ALONE:
                    return Answer(rule=TIMEOUT, words=str(error), status=0), endpoint.url
            except Unreachable as error:
                endpoint.gate.unreachable(self._clock())
                self._failing(endpoint, error)
            except Faulty as error:
                endpoint.gate.failed()
                self._failing(endpoint, error)
                faults += 1
                if faults >= self.config.tries:
                    return Answer(rule=SERVER, words=str(error), status=500), endpoint.url
                self._serve()
                await asyncio.sleep(min(2.0**faults / 4, LONGEST_WAIT))
            except Refused as error:
                endpoint.gate.failed()
                self._works(endpoint)
                return Answer(rule=REFUSED, words=str(error), status=error.status), endpoint.url
            except BaseException:
                endpoint.gate.failed()
                raise
            else:
                endpoint.gate.answered()
                self._works(endpoint)
                return answer, endpoint.url
            finally:
                self._serve()

    async def _acquire(self) -> Grant:
        """Return an endpoint that has room, which counts the request as sent; wait for one."""
        if self._stopping:
            raise Stopping
        waiter: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._serve()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().endpoint.gate.failed()
            raise

    def _serve(self) -> None:
        """Give those who wait the room that there is, in their order; look again when a gate that is closed opens."""
        now = self._clock()
        while self._waiting:
            if self._waiting[0].done():  # cancelled
                self._waiting.popleft()
                continue
            endpoint = max(self.endpoints, key=lambda one: one.gate.room(now))
            if not endpoint.gate.room(now):
                self._wake_later(now)
                break
            alone = endpoint.gate.in_flight == 0
            self._waiting.popleft().set_result(Grant(endpoint, endpoint.gate.send(), alone))

    def _wake_later(self, now: float) -> None:
        opens = [endpoint.gate.closed_until for endpoint in self.endpoints if endpoint.gate.closed_until > now]
        if opens:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(min(opens) - now + 0.001, self._serve)

    def _works(self, endpoint: Endpoint) -> None:
        self._failing_since = None
        if endpoint.down:
            endpoint.down = ""
            _note(f"{endpoint.url} answers again")

    def _failing(self, endpoint: Endpoint, error: Exception) -> None:
        """Warn of an endpoint that does not answer. Raise Stop where none has for longer than the patience."""
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
        waited = now - self._failing_since
        if isinstance(error, Unreachable) and not endpoint.down:
            endpoint.down = str(error)
            _note(f"{endpoint.url}: nobody listens ({error}); it is tried until config.endpoint.patience is over")
        if waited > self.config.patience:
            raise Stop(
                f"{', '.join(one.url for one in self.endpoints)}: no answer for {waited:.0f} seconds ({error}); rerun "
                "the command when it answers: nothing is lost"
            )


def _note(line: str) -> None:
    print(f"note: {line}", file=sys.stderr, flush=True)
