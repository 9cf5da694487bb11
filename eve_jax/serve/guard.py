"""What stands before every endpoint: request ids, keys, limits of bytes and of time, and errors without details."""

import asyncio
import hashlib
import hmac
import re
import sys
import time
import traceback
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eve_jax.serve.metrics import Metrics
from eve_jax.serve.problem import Problem, busy, stopping
from eve_jax.serve.settings import ServeSettings
from eve_jax.serve.streams import ClientGone

REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
HOST_HEADER = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::\d*)?")  # its address or its name, with a port
GONE = 499  # in the log, of a client that did not wait
DRAINED = 2  # times the limit, and seconds: what of a body that is too large is read before the answer
CLOSING = {"connection": "close"}
UNTOLD = ("/health", "/metrics")  # asked every few seconds
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE")


class Guard:
    """An ASGI application around `app`. is_open: whether a path needs no key; handler: its name in metrics."""

    def __init__(
        self,
        app: ASGIApp,
        settings: ServeSettings,
        metrics: Metrics,
        is_open: Callable[[str], bool],
        handler: Callable[[str], str],
    ):
        self.app, self.settings, self.metrics = app, settings, metrics
        self.is_open, self.handler = is_open, handler
        self.digests = [hashlib.sha256(key.encode()).digest() for key in settings.api_keys]
        self.held = 0  # bytes of the bodies of requests under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, root = scope["path"], self.settings.root_path
        if root and path.startswith(f"{root}/"):  # the proxy has left it there
            path = path[len(root) :]
        scope["path"] = path.rstrip("/") or "/"
        await _Guarded(self, scope, receive, send).run()

    def check_host(self, scope: Scope) -> None:
        """Raise Problem for a request that calls the server by a name that is not its own: a page of another site may
        have its name resolved to this machine (DNS rebinding), and browsers then take the answers for its own."""
        hosts, given = self.settings.hosts, Headers(scope=scope).get("host")
        if not hosts or given is None:  # as HTTP/1.0 may have it, which no browser speaks
            return
        found = HOST_HEADER.fullmatch(given.lower())
        if not found or (found[1] or found[2]) not in hosts:
            text = "this server is not called so: the Host header names none of its hosts (--allowed_hosts adds some)"
            raise Problem(text, status=421)

    def check_key(self, scope: Scope) -> None:
        """Raise Problem for a request without a key that is needed; takes as long whatever the key is."""
        if not self.digests or self.is_open(scope["path"]):
            return
        given = Headers(scope=scope).get("authorization", "").encode("latin-1")  # as the client sent it
        scheme, _, key = given.partition(b" ")
        own = hashlib.sha256(key.strip()).digest()
        found = [hmac.compare_digest(own, digest) for digest in self.digests]
        if scheme.lower() != b"bearer" or not any(found):
            text = "this server needs a key: send the header Authorization: Bearer KEY"
            raise Problem(text, status=401, WWW_Authenticate="Bearer")
        scope["salt"] = own.hex()[:16]  # of the prefix cache: keys share nothing


class _Guarded:
    """One request."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send):
        self.guard, self.scope, self._receive, self._send = guard, scope, receive, send
        given = Headers(scope=scope).get("x-request-id", "")
        self.id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope["request_id"] = self.id
        self.began = time.monotonic()
        self.status, self.size, self.complete = 0, 0, False
        self.unasked = Headers(scope=scope).get("expect", "").lower() == "100-continue"  # the body is not sent yet

    async def run(self) -> None:
        """Answer it, whatever happens."""
        try:
            await self._answer()
        except (ClientGone, asyncio.CancelledError):  # uvicorn closes a connection with half an answer, or none
            self.status = GONE
        finally:
            self._release()
            self._note()

    async def _answer(self) -> None:
        try:
            self._check_framing()
            self.guard.check_host(self.scope)
            root = self.guard.settings.root_path
            if root and self.scope["path"] == root:  # the page's relative addresses need the slash
                await RedirectResponse(f"{root}/")(self.scope, self.receive, self.send)
                return
            self.guard.check_key(self.scope)
            self._check_length()
            await self.guard.app(self.scope, self.receive, self.send)
            return
        except Problem as found:
            problem = found
        except HTTPException as error:
            problem = Problem(f"{self.scope['method']} is not allowed here", status=error.status_code)
            problem.headers = dict(error.headers or {})
        except ClientGone:
            raise
        except asyncio.CancelledError:  # by the server, whose time to end is over
            problem = stopping()
        except Exception:
            print(f"error: request {self.id}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            problem = Problem(f"internal error; the server's log has more under request id {self.id}", status=500)
        if self.status:  # an answer has begun: it ends here
            return
        if not self.complete and (problem.status == 408 or self.unasked or not await self._drained()):
            problem.headers |= CLOSING
        await problem.response()(self.scope, self.receive, self.send)

    def _check_framing(self) -> None:
        """Raise Problem where a proxy may see another end of the body, so another request behind it (RFC 9112, 6.3)."""
        headers = Headers(scope=self.scope)
        if "transfer-encoding" not in headers:
            return
        if "content-length" in headers:
            raise Problem("Content-Length and Transfer-Encoding together: send one of them", connection="close")
        if self.scope["http_version"] == "1.0":
            raise Problem("Transfer-Encoding is not of HTTP/1.0: send Content-Length, or HTTP/1.1", connection="close")

    def _check_length(self) -> None:
        length = Headers(scope=self.scope).get("content-length", "0")
        if length.isdecimal() and int(length[:18]) > self.guard.settings.max_body:
            raise self._too_large()

    def _too_large(self) -> Problem:
        most = self.guard.settings.max_body
        return Problem(f"the body has more than {most:,} bytes: send fewer or smaller images", status=413)

    async def receive(self) -> Message:
        """A part of the body, within the limits."""
        settings = self.guard.settings
        if self.complete:
            return await self._receive()
        self.unasked = False
        try:
            async with asyncio.timeout(max(0.0, self.began + settings.body_time - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            text = f"the body did not arrive within {settings.body_time:g} seconds"
            raise Problem(text, status=408) from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        more = len(message.get("body", b""))
        self.size += more
        self.guard.held += more
        self.guard.metrics.held.set(self.guard.held)
        self.complete = not message.get("more_body", False)
        if self.size > settings.max_body:
            raise self._too_large()
        if self.guard.held > settings.max_held:
            self._release()
            raise busy("the server holds too many large requests: try again later")
        return message

    def _release(self) -> None:
        self.guard.held, self.size = self.guard.held - self.size, 0
        self.guard.metrics.held.set(self.guard.held)

    async def _drained(self) -> bool:
        """Read the rest of the body, since a client that still sends would not see the answer; whether it ended."""
        left = DRAINED * self.guard.settings.max_body
        try:
            async with asyncio.timeout(DRAINED):
                while left > 0:
                    message = await self._receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return True
                    left -= len(message.get("body", b""))
        except TimeoutError:
            pass
        return False

    async def send(self, message: Message) -> None:
        """Send a part of the answer to a client that reads it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.id
            headers["X-Content-Type-Options"] = "nosniff"
        try:
            async with asyncio.timeout(self.guard.settings.send_time):
                await self._send(message)
        except TimeoutError:
            raise ClientGone from None

    def _note(self) -> None:
        seconds, method = time.monotonic() - self.began, self.scope["method"]
        method = method if method in METHODS else "OTHER"
        handler = self.guard.handler(self.scope["path"])
        self.guard.metrics.http(method, handler, self.status or 500, seconds)
        if not self.guard.settings.quiet and handler not in UNTOLD:
            print(f"{method} {handler} {self.status} {seconds:.3f} s {self.id}", file=sys.stderr, flush=True)
