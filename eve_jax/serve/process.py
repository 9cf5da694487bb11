"""The server's process: a socket, uvicorn, signals that let running answers end, clients that are too slow."""

import asyncio
import contextlib
import gc
import math
import os
import resource
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from eve_jax.errors import UserError, amount
from eve_jax.process.files import refuse_pipe
from eve_jax.process.interrupt import tell
from eve_jax.serve.app import Application

BACKLOG = 2048
IDLE = 30  # seconds that a connection is kept without a request
LAST = 5  # seconds, when the time to end in is over, for answers to become errors
HEADERS = 65_536  # bytes of a request's headers at most


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens at `host` and `port`, where connections wait. Raises UserError when it cannot be.

    Only one that listens keeps others from the port: SO_REUSEADDR, for a restart at once, lets several be bound to it.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, proto)
    except OSError as error:
        raise UserError(f"--host={host}: {error.strerror}") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise UserError(f"--host={host} --port={port}: {error.strerror}; name another port") from error
    return made


class Tls(NamedTuple):
    """Files, PEM, of a certificate with its chain and of its key; "" for a key that is in the certificate's file."""

    certificate: str
    key: str = ""

    def check(self) -> None:
        """Raise UserError unless the files hold a certificate and its key, which no password protects."""
        names = f"--ssl_certfile={self.certificate}" + (f" --ssl_keyfile={self.key}" if self.key else "")
        for path in filter(None, self):
            refuse_pipe(Path(path))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key or None, password=lambda: "")
        except OSError as error:  # that of ssl included
            why = getattr(error, "reason", None) or error.strerror or str(error)
            raise UserError(f"{names}: {why}; name a certificate and its key without a password, in PEM") from error


def serve(
    app: Application, listener: socket.socket, header_time: float, drain_time: float, tls: Tls | None = None
) -> None:
    """Serve `app` at a socket that listens until SIGTERM or Ctrl-C, then let running answers end.

    A second signal ends at once. header_time: seconds for a request's headers; drain_time: seconds for answers to
    end, 0 = as long as they take. tls: https in place of http. Raises what kept the model from being served.
    """
    more_connections()
    server = Server(config(app, header_time, tls), drain_time)
    app.state.failed = lambda: setattr(server, "should_exit", True)
    app.state.compiled = spare_collections
    host, port = listener.getsockname()[:2]
    app.state.say(f"listening at http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}")
    with contextlib.closing(listener):
        server.run(sockets=[listener])
    if app.state.failure is not None:
        raise app.state.failure
    if server.force_exit or not app.state.ready:  # threads of the scheduler or of the compiler are at work
        sys.stderr.flush()
        os._exit(0)


def config(app: Application, header_time: float, tls: Tls | None = None) -> uvicorn.Config:
    """Return uvicorn's settings for `serve`."""
    application: Any = app
    return uvicorn.Config(
        application,
        http=_protocol(header_time),
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE,
        h11_max_incomplete_event_size=HEADERS,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=(tls.key or None) if tls else None,
    )


class Server(uvicorn.Server):
    """Ends well by a signal, where uvicorn's own raises it once more when it is done; answers that take longer than
    `drain_time` seconds (0: none does) then end as errors, where uvicorn cuts them off."""

    def __init__(self, config: uvicorn.Config, drain_time: float = 0):
        super().__init__(config)
        self.drain_time = drain_time
        config.timeout_graceful_shutdown = math.ceil(drain_time + LAST) if drain_time else None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the requests end that are under way."""
        loop = asyncio.get_running_loop()
        late = loop.call_later(self.drain_time, self._cancel) if self.drain_time else None
        try:
            await super().shutdown(sockets)
        finally:
            if late is not None:
                late.cancel()

    def _cancel(self) -> None:
        tasks = [task for task in self.server_state.tasks if not task.done()]
        if tasks:
            left = amount(len(tasks), "request")
            tell(sys.stderr, f"{left} did not end within {self.drain_time:g} seconds: answered as errors\n".encode())
        for task in tasks:
            task.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let signals end the server while the block runs."""
        before: dict[int, Any] = {}
        here = threading.current_thread() is threading.main_thread()  # others get no signals
        for number in (signal.SIGINT, signal.SIGTERM) if here else ():
            before[number] = signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop taking requests, the second time also those that are answered."""
        text = b"stopping: running answers end first (once more to stop at once) ...\n"
        if self.should_exit:
            self.force_exit, text = True, b"stopping at once\n"
        self.should_exit = True
        tell(sys.stderr, text)


def _protocol(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which closes a connection whose first headers are not there within so many seconds."""

    class Timed(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._late = self.loop.call_later(seconds, self._close_late)

        def data_received(self, data: bytes) -> None:
            waited = self.timeout_keep_alive_task is not None
            super().data_received(data)
            busy = self.cycle is not None and not self.cycle.response_complete
            if busy and self._late is not None:
                self._late.cancel()
                self._late = None
            elif waited and not busy:  # the beginning of a further request's headers
                self._late = self._late or self.loop.call_later(seconds, self._close_late)

        def _close_late(self) -> None:
            if not self.transport.is_closing():
                self.transport.close()

    return Timed


def spare_collections() -> None:
    """Have collections of garbage pass over what there is: with modules and programs, some 280,000 objects, a full one
    stops all threads for 0.17 s, and answers for two blocks."""
    gc.collect()
    gc.freeze()


def more_connections() -> None:
    """Raise the number of files that this process may open to what the system lets it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
