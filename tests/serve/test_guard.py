"""Keys, request ids, limits of bytes and time, clients that go away, faults of ours: nothing leaks or stays."""

import asyncio
import gc
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from eve_jax import EVE
from eve_jax.serve import app, process
from eve_jax.serve.fields import ChatBody
from eve_jax.serve.model import Served
from eve_jax.serve.settings import ServeSettings
from tests.serve.bodies import CHAT, HTTP, chat, image, png, uri
from tests.serve.scripted import Address, Scripted, serving, wait_for

KEYS = ("secret-1", "sécret-2")


@pytest.fixture(scope="module")
def strict(eve: EVE) -> Iterator[Address]:
    """A server with keys, small limits and short times."""
    settings = ServeSettings(
        api_keys=KEYS,
        origins=("https://a.example",),
        max_body=200_000,
        max_held=300_000,
        header_time=0.3,
        body_time=0.5,
        send_time=0.5,
        quiet=True,
    )
    with serving(eve, Scripted(eve), settings) as address:
        yield address


def bearer(key: str = KEYS[0]) -> dict[str, Any]:
    return {"Authorization": f"Bearer {key}".encode()}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": KEYS[0]},
        {"Authorization": f"Basic {KEYS[0]}"},
        {"Authorization": f"Bearer {KEYS[0]}x"},
        {"X-Api-Key": KEYS[0]},
    ],
)
def test_a_key_is_needed(strict: Address, headers: dict[str, str]) -> None:
    for method, path in (("POST", CHAT), ("GET", "/v1/models"), ("POST", "/tokenize"), ("GET", "/v1/x"), ("GET", "/x")):
        given = HTTP.request(method, strict.url + path, headers=headers, json={} if method == "POST" else None)
        assert given.status_code == 401 and given.headers["www-authenticate"] == "Bearer"
        assert (
            given.json()["error"]["type"] == "AuthenticationError" and "Bearer KEY" in given.json()["error"]["message"]
        )
    for path in ("/", "/health", "/metrics", "/openapi.json"):
        assert HTTP.get(strict.url + path, headers=headers).status_code == 200


def test_every_key_will_do_and_shares_no_prefix(strict: Address) -> None:
    for key in KEYS:
        assert HTTP.post(strict.url + CHAT, json=chat(), headers=bearer(key)).status_code == 200
    first, second = (request.salt for request in strict.scheduler.requests[-2:])
    assert first != second and not any(key in first + second for key in KEYS)


def test_a_collection_of_garbage_passes_over_what_the_start_has_made(eve: EVE) -> None:
    made, seen = app.build(Served(eve, ServeSettings(), 512), Scripted(eve)), list[bool]()
    made.state.say = lambda text: None
    made.state.compiled = lambda: seen.append(made.state.ready)
    told = iter(["startup", "shutdown"])

    async def receive() -> dict[str, str]:
        kind = next(told)
        while kind == "shutdown" and not made.state.ready:
            await asyncio.sleep(0.01)
        return {"type": f"lifespan.{kind}"}

    async def send(message: Any) -> None:
        pass

    asyncio.run(made({"type": "lifespan"}, receive, send))
    assert seen == [False]
    try:
        process.spare_collections()
        assert len(gc.get_objects()) < 1000 < gc.get_freeze_count()
    finally:
        gc.unfreeze()


def test_request_ids(strict: Address) -> None:
    def id_of(given: str) -> str:
        headers = {"X-Request-Id": given} if given else {}
        return HTTP.get(f"{strict.url}/health", headers=headers).headers["x-request-id"]

    assert id_of("my-id.7") == "my-id.7"
    for given in ("", "a b", "x" * 200, "a;b<c>"):
        assert len(id_of(given)) == 32
    assert HTTP.get(f"{strict.url}/nothing").headers["x-request-id"]


def test_sites_that_are_named_may_read_answers(strict: Address, client: httpx.Client) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    given = HTTP.options(strict.url + CHAT, headers={"Origin": "https://a.example", **asked})
    assert given.status_code == 200 and given.headers["access-control-allow-origin"] == "https://a.example"
    other = HTTP.options(strict.url + CHAT, headers={"Origin": "https://b.example", **asked})
    assert other.status_code == 400 and "access-control-allow-origin" not in other.headers
    answer = HTTP.get(f"{strict.url}/v1/models", headers={"Origin": "https://a.example", **bearer()})
    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    assert (
        "access-control-allow-origin" not in client.get("/v1/models", headers={"Origin": "https://a.example"}).headers
    )


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_that_are_too_large(strict: Address, chunked: bool) -> None:
    body = json.dumps(chat("a" * 250_000)).encode()
    content = iter([body[:100_000], body[100_000:]]) if chunked else body
    headers = {"Content-Type": "application/json", **bearer()}
    given = HTTP.post(strict.url + CHAT, content=content, headers=headers)
    assert given.status_code == 413 and given.json()["error"]["type"] == "RequestTooLargeError"
    assert "200,000 bytes" in given.json()["error"]["message"]
    assert figure(strict, "eve:held_body_bytes") == 0


def figure(address: Address, name: str) -> float:
    lines = HTTP.get(f"{address.url}/metrics").text.splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name)))


def raw(address: Address, data: bytes) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", int(address.url.rpartition(":")[2])), 10)
    link.sendall(data)
    return link


def post(length: int, body: bytes = b"", key: str = KEYS[0]) -> bytes:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
    return f"{head}Authorization: Bearer {key}\r\n\r\n".encode() + body


def rest(link: socket.socket) -> bytes:
    with link:
        return b"".join(iter(lambda: link.recv(65_536), b""))


CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("key", [KEYS[0], "wrong"])
@pytest.mark.parametrize(("version", "length"), [("1.1", b"Content-Length: 4\r\n"), ("1.0", b"")])
def test_bodies_that_may_end_elsewhere_for_a_proxy(strict: Address, version: str, length: bytes, key: str) -> None:
    """What follows is no request of its own: there is one answer, and the connection is closed."""
    head = f"POST {CHAT} HTTP/{version}\r\nHost: a\r\nAuthorization: Bearer {key}\r\n".encode()
    answer = rest(raw(strict, head + length + CHUNKED + b"\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1 ") == 1
    assert b"Transfer-Encoding" in answer and b"connection: close" in answer.lower()


def test_many_large_bodies_at_a_time(strict: Address) -> None:
    half = b"a" * 180_000
    first = raw(strict, post(199_000, half))
    wait_for(lambda: figure(strict, "eve:held_body_bytes") == len(half))
    second = raw(strict, post(199_000, half))
    assert [rest(link)[:12] for link in (first, second)] == [b"HTTP/1.1 408", b"HTTP/1.1 503"]
    assert figure(strict, "eve:held_body_bytes") == 0


@pytest.mark.parametrize(("length", "key", "status"), [(10**9, KEYS[0], 413), (9, "wrong", 401), (2, KEYS[0], 100)])
def test_clients_that_ask_before_they_send(strict: Address, length: int, key: str, status: int) -> None:
    link = raw(strict, post(length, key=key).replace(b"\r\n", b"\r\nConnection: close\r\nExpect: 100-continue\r\n", 1))
    assert link.recv(12) == f"HTTP/1.1 {status}".encode()
    if status == 100:
        link.sendall(b"{}")
    assert b"HTTP/1.1 100" not in rest(link)  # which would ask for a body that nobody reads


def test_slow_clients(strict: Address) -> None:
    began = time.monotonic()
    links = [raw(strict, post(100, b'{"a')), raw(strict, b"GET / HTT"), raw(strict, b"")]
    answers = [rest(link) for link in links]
    assert b" 408 " in answers[0].partition(b"\r\n")[0] and b"within 0.5 seconds" in answers[0]
    assert answers[1:] == [b"", b""] and time.monotonic() - began < 5


def test_a_second_request_on_a_connection_may_be_slow_as_well(strict: Address) -> None:
    link = raw(strict, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    time.sleep(0.5)  # longer than headers may take: an idle connection stays
    link.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    answers = b""
    while answers.count(b'{"status":"ok"}') < 2:
        answers += link.recv(65_536)
    link.sendall(b"GET /hea")
    assert rest(link) == b""


def test_clients_that_do_not_read(strict: Address) -> None:
    scheduler, long = strict.scheduler, strict.scheduler.eve.tokenizer.encode("x" * 400)
    before, scheduler.said = scheduler.said, long
    body = json.dumps(
        chat(stream=True, logprobs=True, top_logprobs=20, ignore_eos=True, return_token_ids=True)
    ).encode()
    others = set(strict.server.server_state.connections)
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    link.connect(("127.0.0.1", int(strict.url.rpartition(":")[2])))
    try:
        for _ in range(30):  # more than the kernel buffers
            link.sendall(post(len(body), body))
        wait_for(lambda: not strict.server.server_state.tasks, 20)
        assert not scheduler.running
    finally:
        scheduler.said = before
        link.close()
        # When one request is given up, the next that was sent begins, until the server sees that nobody listens.
        wait_for(lambda: strict.server.server_state.connections <= others)


def test_a_wrong_key_reads_no_body(strict: Address) -> None:
    wait_for(lambda: figure(strict, "eve:held_body_bytes") == 0)  # of clients before
    link = raw(strict, post(190_000, b"a" * 150_000, "wrong"))
    assert figure(strict, "eve:held_body_bytes") == 0
    answer = rest(link)
    assert answer.startswith(b"HTTP/1.1 401") and b"connection: close" in answer.lower()
    body = b"a" * 100
    again = raw(strict, post(100, body, "wrong") + post(100, body, "wrong"))  # the connection stays
    answers = b""
    while answers.count(b"HTTP/1.1 401") < 2:
        answers += again.recv(65_536)
    again.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("waits", [False, True])
def test_a_client_that_goes_away_frees_its_slot(shared: Address, told: Scripted, stream: bool, waits: bool) -> None:
    """While it waits for a slot, and while it is answered."""
    told.pace = 0.02
    if waits:
        told.go.clear()
    body = json.dumps(chat(stream=stream, n=2, ignore_eos=True)).encode()
    link = raw(shared, post(len(body), body))
    wait_for(lambda: told.running == 2)
    time.sleep(0.05)
    link.close()
    wait_for(lambda: not told.running)
    assert told.reasons == ["cancelled"] * 2


def test_clients_that_go_away_before_they_are_answered(shared: Address, told: Scripted) -> None:
    body = json.dumps(chat([image(uri(png(2000, 2000)))] * 3)).encode()
    for data in (b"", b"POST", post(50), post(50, b'{"mess'), post(len(body), body)):
        raw(shared, data).close()
    wait_for(lambda: not shared.server.server_state.tasks)
    wait_for(lambda: not told.running)
    assert HTTP.post(shared.url + CHAT, json=chat()).status_code == 200


def test_faults_of_ours_are_told_to_the_log_alone(
    client: httpx.Client, told: Scripted, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(self: Any, greedy: bool) -> None:
        raise RuntimeError("the secret of /some/path")

    monkeypatch.setattr(ChatBody, "check_together", fails)
    given = client.post(CHAT, json=chat(), headers={"X-Request-Id": "id-7"})
    assert given.status_code == 500 and given.headers["x-request-id"] == "id-7"
    assert given.json()["error"]["type"] == "InternalServerError" and "id-7" in given.json()["error"]["message"]
    assert "secret" not in given.text and "RuntimeError" not in given.text
    assert "the secret of /some/path" in capfd.readouterr().err


def test_a_line_for_each_request(eve: EVE, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(eve, Scripted(eve), ServeSettings()) as address:
        HTTP.get(f"{address.url}/v1/models?secret=1", headers={"X-Request-Id": "id-8"})
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("GET /v1/models 200 ") and line.endswith(" id-8")


def test_health_is_that_of_the_model(eve: EVE) -> None:
    scheduler = Scripted(eve)
    scheduler.warm.clear()
    with serving(eve, scheduler, ServeSettings(quiet=True)) as address:
        for given in (HTTP.get(f"{address.url}/health"), HTTP.post(address.url + CHAT, json=chat())):
            assert given.status_code == 503 and given.headers["retry-after"] == "10"
            assert "compiles" in given.json()["error"]["message"]
        assert HTTP.get(f"{address.url}/v1/models").status_code == 200
        scheduler.warm.set()
        wait_for(lambda: HTTP.get(f"{address.url}/health").status_code == 200)
