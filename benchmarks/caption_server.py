"""An OpenAI-style endpoint that does what it is told: slow, busy, broken, away, and counts what it is asked.

    with ScriptedEndpoint(places=16, seconds=0.5, faults=0.02) as endpoint:
        ... endpoint.url, endpoint.served, endpoint.away(15.0)

A server of this process at a port of this machine, on an event loop of its own. What it answers is a function of the
request, so that runs that are killed and resumed can be compared.
"""

import asyncio
import hashlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

from benchmarks.caption_texts import good_caption


class Reply(NamedTuple):
    """What the endpoint answers: a status, the JSON body, headers."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = MappingProxyType({})


class Asked(NamedTuple):
    """A request: its JSON body, headers in lower case, and how many came of the same body, this one included."""

    body: dict[str, Any]
    headers: dict[str, str]
    times: int

    @property
    def image(self) -> str:
        """The data URL of the image."""
        return self.body["messages"][-1]["content"][0]["image_url"]["url"]

    @property
    def prompt(self) -> str:
        """The text next to the image."""
        return self.body["messages"][-1]["content"][1]["text"]


Script = Callable[[Asked], Reply | str]


def completion(text: str | None, finish: str = "stop", tokens: int = 0) -> Reply:
    """Return the reply with `text` as the model's answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 700, "completion_tokens": tokens or len((text or "").split())}
    return Reply(200, {"object": "chat.completion", "choices": [choice], "usage": usage})


def refusal(status: int, message: str, code: str | None = None, **headers: str) -> Reply:
    """Return an error as the OpenAI API has it."""
    return Reply(status, {"error": {"message": message, "code": code, "type": "error"}}, headers)


def describe(asked: Asked) -> str:
    """Return a good caption that depends on image, prompt and seed alone."""
    parts = (asked.image, asked.prompt, str(asked.body.get("seed")))
    return good_caption(int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big"))


class ScriptedEndpoint:
    """The server; a context that ends it.

    Attributes:
        script: what is answered; may block no longer than a moment.
        places: requests that are served at a time, the others get 429; 0 = any number.
        seconds: that each takes.
        faults: share of requests that get 500, at random but by `seed`.
        retry_after: header that goes with 429, None for none.
        received, served: requests of each body that came, and that got an answer of `script`.
        most: requests that were served at a time, at most.
    """

    def __init__(
        self,
        script: Script = describe,
        places: int = 0,
        seconds: float = 0.0,
        faults: float = 0.0,
        retry_after: float | None = None,
        seed: int = 0,
    ) -> None:
        self.script, self.places, self.seconds, self.faults = script, places, seconds, faults
        self.retry_after = retry_after
        self.received: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.requests: list[Asked] = []
        self.keep_requests = False
        self.running = self.most = self.port = 0
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._run, name="scripted endpoint", daemon=True)

    @property
    def url(self) -> str:
        """The address up to /v1."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def connections(self) -> int:
        """Connections that are open: each carries one request at a time, so at least as many as are in flight."""
        return len(self._connections)

    def leave(self) -> None:
        """Listen no more, and break all connections."""
        self._call(self._leave())

    def listen(self) -> None:
        """Listen again, at the same port."""
        self._call(self._listen())

    def away(self, seconds: float, after: float = 0.0) -> threading.Thread:
        """Leave for so many seconds, `after` seconds from now; return the thread that does it."""

        def run() -> None:
            time.sleep(after)
            self.leave()
            time.sleep(seconds)
            self.listen()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 26)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _leave(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._connections):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) and not writer.is_closing():
                lines = head.decode("latin-1").split("\r\n")
                headers = {k.strip().lower(): v.strip() for k, _, v in (one.partition(":") for one in lines[1:] if one)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                reply = await self._reply(body, headers)
                self.statuses[reply.status] += 1
                data = json.dumps(reply.body).encode()
                more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in reply.headers.items())
                writer.write(
                    f"HTTP/1.1 {reply.status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n"
                    f"{more}\r\n".encode()
                    + data
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _reply(self, body: bytes, headers: dict[str, str]) -> Reply:
        key = hashlib.blake2b(body, digest_size=16).hexdigest()
        self.received[key] += 1
        if self.places and self.running >= self.places:
            wait = {} if self.retry_after is None else {"retry_after": f"{self.retry_after:g}"}
            return refusal(429, "too many requests", **wait)
        if self._random.random() < self.faults:
            return refusal(500, "an error of the server")
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            asked = Asked(json.loads(body), headers, self.received[key])
            if self.keep_requests:
                self.requests.append(asked)
            found = self.script(asked)
            await asyncio.sleep(self.seconds)
            self.served[key] += 1
            return completion(found) if isinstance(found, str) else found
        finally:
            self.running -= 1
