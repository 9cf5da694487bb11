"""Images by URL: from hosts that are named, at addresses that are public, and within limits."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from eve_jax import EVE
from eve_jax.serve.fetch import Fetcher, is_public
from eve_jax.serve.images import ImageReader
from eve_jax.serve.messages import ImageRef
from eve_jax.serve.problem import Problem
from eve_jax.serve.settings import ServeSettings
from tests.serve.bodies import CHAT, HTTP, chat, image, png, text
from tests.serve.scripted import Scripted, serving

PUBLIC = "93.184.216.34"
SETTINGS = ServeSettings(media_domains=("images.example", "10.0.0.1"), max_fetched=100_000, fetch_time=0.6, quiet=True)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"


@contextlib.contextmanager
def host(answer: Callable[[socket.socket], None]) -> Iterator[Callable[[Any, float], socket.socket]]:
    """A stand-in for a host: what connects to any address gets here; `asked` of it has those addresses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked: list[Any] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    link, _ = listener.accept()
                    with link, contextlib.suppress(OSError):
                        answer(link)

        def connect(address: Any, seconds: float) -> socket.socket:
            asked.append(address)
            return socket.create_connection(listener.getsockname(), seconds)

        connect.asked = asked  # type: ignore[attr-defined]
        threading.Thread(target=serve, daemon=True).start()
        yield connect
        listener.shutdown(socket.SHUT_RDWR)


def says(data: bytes) -> Callable[[socket.socket], None]:
    def answer(link: socket.socket) -> None:
        link.recv(65_536)
        link.sendall(data)

    return answer


def resolving(*addresses: str) -> Callable[..., list[Any]]:
    return lambda name, port, **more: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]


def fetch(url: str, connect: Any = None, addresses: tuple[str, ...] = (PUBLIC,)) -> bytes:
    fetcher = Fetcher(SETTINGS, resolving(*addresses), connect or socket.create_connection)
    return fetcher.fetch(ImageRef(url, "image"))


def test_an_image_is_fetched_from_the_address_that_was_checked() -> None:
    heard: list[bytes] = []

    def answer(link: socket.socket) -> None:
        heard.append(link.recv(65_536))
        link.sendall(OK % (len(png()), png()))

    with host(answer) as connect:
        assert fetch("http://images.example/a%20b.png?c=1", connect) == png()
        assert connect.asked == [(PUBLIC, 80)]  # type: ignore[attr-defined]
    (request,) = heard
    assert request.startswith(b"GET /a%20b.png?c=1 HTTP/1.1\r\nHost: images.example\r\n")
    assert b"Accept-Encoding: identity" in request


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://other.example/a.png", "not fetched from this host"),
        ("http://images.example.evil.org/a.png", "not fetched from this host"),
        ("http://evil.org/images.example", "not fetched from this host"),
        ("http://images.example@evil.org/", "neither a user"),
        ("http://evil.org@images.example/", "neither a user"),
        ("http://images.example:8080/", "neither a user nor another port"),
        ("https://images.example:80/", "neither a user nor another port"),
        ("http://images.example:99999/", "http or https URL"),
        ("http://evil.org\\@images.example/", "http or https URL"),
        ("http://images.example\\.evil.org/", "http or https URL"),
        ("http://images.example\r\nHost: a/", "http or https URL"),
        ("http://images.exämple/", "http or https URL"),
        ("http://images.example/ a", "http or https URL"),
        ("ftp://images.example/a.png", "http or https URL"),
        ("file:///etc/passwd", "http or https URL"),
        ("//images.example/a.png", "http or https URL"),
        ("http://[::1]/", "not fetched from this host"),
        ("http://[images.example]/", "http or https URL"),
        ("http://[::ffff:127.0.0.1]/", "not fetched from this host"),
        ("http://0x7f.1/", "not fetched from this host"),
        ("http://2130706433/", "not fetched from this host"),
        ("http://0177.0.0.1/", "not fetched from this host"),
        ("http://127.1/", "not fetched from this host"),
        ("http://images.example./", "not fetched from this host"),
        ("http://images%2eexample/", "not fetched from this host"),
        ("gopher://images.example/", "http or https URL"),
        ("http://images.example/" + "a" * 9000, "http or https URL"),
    ],
)
def test_urls_that_are_not_taken(url: str, words: str) -> None:
    with pytest.raises(Problem, match=words) as problem:
        fetch(url)
    assert problem.value.status == 400


@pytest.mark.parametrize(
    "addresses",
    [
        ("127.0.0.1",),
        ("10.1.2.3",),
        ("169.254.169.254",),
        ("192.168.0.1",),
        ("0.0.0.0",),
        ("224.0.0.1",),
        ("240.0.0.1",),
        ("100.64.0.1",),
        ("::1",),
        ("fe80::1%eth0",),
        ("fd00::1",),
        ("::ffff:127.0.0.1",),
        ("64:ff9b::7f00:1",),
        ("2002:7f00:1::",),
        (PUBLIC, "127.0.0.1"),
        ("127.0.0.1", PUBLIC),
        (),
    ],
)
def test_hosts_with_an_address_that_is_not_public(addresses: tuple[str, ...]) -> None:
    with pytest.raises(Problem, match="not fetched from this host"):
        fetch("http://images.example/", None, addresses)


def test_an_address_that_is_allowed_by_name_must_still_be_public() -> None:
    with pytest.raises(Problem, match="not fetched from this host"):
        fetch("http://10.0.0.1/a.png", None, ("10.0.0.1",))
    assert is_public(PUBLIC) and is_public("2606:2800:220:1::1") and not is_public("x")


def drip(link: socket.socket) -> None:
    link.recv(65_536)
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"a" * 5000:
        link.sendall(bytes([byte]))
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["2130706433", "0177.0.0.1", "0x7f000001", "127.1"])
def test_numbers_that_are_hosts(name: str) -> None:
    """What is allowed by name is resolved as the system does it, and its address must be public."""
    fetcher = Fetcher(replace(SETTINGS, media_domains=(name,)))
    with pytest.raises(Problem, match=r"not fetched from this host|no address"):
        fetcher.fetch(ImageRef(f"http://{name}/a.png", "image"))


def test_a_name_is_resolved_once() -> None:
    """Whoever answers otherwise the second time (DNS rebinding) is not asked."""
    answers = [resolving(PUBLIC), resolving("127.0.0.1")]

    def rebinding(*args: Any, **more: Any) -> list[Any]:
        return answers.pop(0)(*args, **more)

    with host(says(OK % (1, b"a"))) as connect:
        assert Fetcher(SETTINGS, rebinding, connect).fetch(ImageRef("http://IMAGES.example/", "image")) == b"a"
        assert connect.asked == [(PUBLIC, 80)] and len(answers) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n"), "redirects, which is not followed"),
        (says(b"HTTP/1.1 308 Moved\r\nLocation: http://images.example/\r\n\r\n"), "redirects, which is not followed"),
        (says(b"HTTP/1.1 404 Not Found\r\n\r\n"), "status 404"),
        (says(OK % (5, b"a" * 200_000)), "no image"),
        (says(OK % (200_000, b"a" * 200_000)), "more than 100,000 bytes"),
        (says(b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 200_000), "more than 100,000 bytes"),
        (says(OK % (500, b"a")), "ended early|could not be fetched"),
        (says(b"nonsense\r\n\r\n"), "could not be fetched"),
        (says(b""), "could not be fetched"),
        (drip, "takes more than 0.6 seconds|could not be fetched"),
        (lambda link: time.sleep(3), "could not be fetched"),
    ],
)
def test_fetches_that_fail(answer: Callable[[socket.socket], None], words: str) -> None:
    began = time.monotonic()
    with host(answer) as connect, pytest.raises(Problem, match=words) as problem:
        data = fetch("http://images.example/", connect)
        ImageReader(SETTINGS).decoded(data, "image")
    assert problem.value.status in (400, 422) and time.monotonic() - began < 2


def test_a_name_without_an_address() -> None:
    def nothing(*args: Any, **more: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(Problem, match=r"its host has no address$") as problem:
        Fetcher(SETTINGS, nothing).fetch(ImageRef("https://images.example/", "image"))
    assert problem.value.status == 422


def test_tls_needs_a_certificate_of_the_host() -> None:
    with host(says(OK % (1, b"a"))) as connect, pytest.raises(Problem, match="could not be fetched"):
        fetch("https://images.example/", connect)


def test_urls_in_a_chat(eve: EVE) -> None:
    with host(says(OK % (len(png()), png()))) as connect:
        reader = ImageReader(SETTINGS, Fetcher(SETTINGS, resolving(PUBLIC), connect))
        with serving(eve, Scripted(eve), SETTINGS, reader) as address:
            asked = HTTP.post(address.url + CHAT, json=chat([image("http://images.example/a.png"), text()]))
            assert asked.status_code == 200
            assert list(address.scheduler.requests[0].prompt.grids) == [(2, 2)]
            refused = HTTP.post(address.url + CHAT, json=chat([image("http://other.example/a.png"), text()]))
            assert refused.status_code == 400 and "other" not in refused.text
            assert HTTP.get(address.url + "/v1/models").json()["data"][0]["images"]["urls"] is True
