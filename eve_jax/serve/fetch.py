"""Images by http(s) from hosts that the server's owner has named, and from nowhere else.

An address is resolved once, checked, and connected to as it is: a name that later resolves to another address (DNS
rebinding) gains nothing. There are no redirects, no proxies, no other schemes or ports, and a limit of bytes and of
time that counts from the first packet to the last.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from eve_jax.serve.messages import ImageRef
from eve_jax.serve.problem import Problem
from eve_jax.serve.settings import ServeSettings

PORTS = {"http": 80, "https": 443}
CHUNK = 65_536
LONGEST = 8_192  # characters of a URL
NAT64 = ipaddress.ip_network("64:ff9b::/96")

Resolve = Callable[..., list[Any]]
Connect = Callable[[tuple[str, int], float], socket.socket]


class Target(NamedTuple):
    """What is asked of whom."""

    scheme: str
    host: str
    path: str


class Fetcher:
    """Fetches images from the hosts `settings.media_domains`.

    resolve, connect: `socket.getaddrinfo` and `socket.create_connection`, or others in tests.
    """

    def __init__(
        self,
        settings: ServeSettings,
        resolve: Resolve = socket.getaddrinfo,
        connect: Connect = socket.create_connection,
    ):
        self.settings, self.resolve, self.connect = settings, resolve, connect

    def fetch(self, ref: ImageRef) -> bytes:
        """The bytes at the URL of `ref`. Raises Problem: 400 for a URL that is not taken, 422 for one that fails."""
        target = self.target(ref)
        address = self.address(target, ref)
        try:
            return self._get(target, address, ref)
        except (OSError, http.client.HTTPException, ValueError):
            raise _failed(ref, "it could not be fetched") from None

    def target(self, ref: ImageRef) -> Target:
        """The parts of a URL that may be fetched. Raises Problem."""
        allowed = self.settings.media_domains
        if not allowed:
            raise Problem(
                f"{ref.param}: URLs are not fetched here: send a data URI (data:image/png;base64,...)", ref.param
            )
        url = ref.url
        plain = url.isascii() and url.isprintable() and not set(url) & set(' \\"<>^`{|}') and len(url) <= LONGEST
        try:
            parts = urlsplit(url) if plain else None
            port = parts.port if parts else None
        except ValueError:
            parts = None
        if parts is None or parts.scheme not in PORTS or not parts.hostname:
            raise Problem(f"{ref.param}: expected a data URI, or an http or https URL", ref.param)
        if "@" in parts.netloc or port not in (None, PORTS[parts.scheme]):
            raise Problem(f"{ref.param}: a URL may have neither a user nor another port than 80 or 443", ref.param)
        if parts.hostname not in allowed:
            raise Problem(f"{ref.param}: images are not fetched from this host", ref.param)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(parts.scheme, parts.hostname, path)

    def address(self, target: Target, ref: ImageRef) -> str:
        """The IP address to connect to. Raises Problem unless all addresses of the host are public."""
        try:
            found = self.resolve(target.host, PORTS[target.scheme], type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise _failed(ref, "its host has no address") from None
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses or not all(map(is_public, addresses)):
            raise Problem(f"{ref.param}: images are not fetched from this host", ref.param)
        return addresses[0]

    def _get(self, target: Target, address: str, ref: ImageRef) -> bytes:
        seconds, began = self.settings.fetch_time, time.monotonic()
        with closing(self.connect((address, PORTS[target.scheme]), seconds)) as raw:
            late = threading.Timer(seconds, _shut, [raw])  # also of a host that sends a byte now and then
            late.daemon = True
            late.start()
            try:
                if target.scheme == "https":
                    raw = ssl.create_default_context().wrap_socket(raw, server_hostname=target.host)
                data = self._read(target, raw, ref)
                if time.monotonic() - began >= seconds:  # what was shut may look complete
                    raise _failed(ref, f"it takes more than {seconds:g} seconds")
                return data
            finally:
                late.cancel()
                raw.close()

    def _read(self, target: Target, connected: socket.socket, ref: ImageRef) -> bytes:
        link = http.client.HTTPConnection(target.host, timeout=self.settings.fetch_time)
        link.sock = connected
        headers = {"Accept": "image/*", "Accept-Encoding": "identity", "Connection": "close", "User-Agent": "eve_jax"}
        link.request("GET", target.path, headers=headers)
        answer = link.getresponse()
        if answer.status != 200:
            what = "it redirects, which is not followed" if 300 <= answer.status < 400 else f"status {answer.status}"
            raise _failed(ref, what)
        data = bytearray()
        while part := answer.read1(CHUNK):
            data += part
            if len(data) > self.settings.max_fetched:
                raise _failed(ref, f"it has more than {self.settings.max_fetched:,} bytes")
        stated = answer.headers.get("Content-Length", "")
        if stated.isdecimal() and int(stated[:18]) != len(data):
            raise _failed(ref, "it ended early")
        return bytes(data)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also that which an IPv6 address stands for."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if found in NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast and not found.is_reserved


def _shut(raw: socket.socket) -> None:
    with suppress(OSError):
        raw.shutdown(socket.SHUT_RDWR)


def _failed(ref: ImageRef, why: str) -> Problem:
    return Problem(f"{ref.param}: the image cannot be fetched: {why}", ref.param, 422)
