"""Bodies that were changed at random, and a thousand connections: never a 5xx, never a path or an exception."""

import asyncio
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from eve_jax import EVE
from eve_jax.serve.refused import REFUSED
from eve_jax.serve.settings import ServeSettings
from tests.serve.bodies import CHAT, HTTP, TEXT, chat, image, png, text, uri, user
from tests.serve.scripted import Address, Scripted, serving, wait_for

PYTHON = r"codec|sys\.|recursion|maximum|utf-8-sig|decoding|pattern|[\^$]"  # of what its exceptions say
PATHS = r"\.py\b|/work|/tmp|/usr|site-packages"
LEAK = re.compile(rf"{PYTHON}|{PATHS}|Traceback|(?<!BadRequest)(?<!NotFound)(?<!TooLarge)Error\b")
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, "", "a", "\x00", "\ud83d", "é" * 50,
    "data:", "data:image/png;base64,AAAA", "http://127.0.0.1/", "file:///etc/passwd", [], {}, [[]], [{}], {"a": None},
    [None], ["a", 1], {"type": "text"}, {"type": "image_url", "image_url": {"url": 5}}, "user", "assistant", "x" * 3000,
]  # fmt: skip
SEEDS: list[tuple[str, Any]] = [
    (CHAT, chat([text(), image()], max_tokens=3, temperature=0.5, seed=1, logprobs=True, top_logprobs=2)),
    (CHAT, chat(stream=True, stream_options={"include_usage": True}, stop=["a", "b"], n=2, max_tokens=3)),
    (CHAT, {"messages": [user("a"), {"role": "assistant", "content": "b"}, user("c")], "logit_bias": {"5": 1}}),
    (TEXT, {"prompt": ["a", "b"], "max_tokens": 3, "logprobs": 1, "stop_token_ids": [5], "min_tokens": 1}),
    (TEXT, {"prompt": [[1, 2], [3]], "max_tokens": 3, "return_token_ids": True, "top_k": 5, "min_p": 0.1}),
    ("/tokenize", {"messages": [user([image(), text()])], "return_token_strs": True}),
    ("/tokenize", {"prompt": "a", "add_special_tokens": False}),
    ("/v1/images/grid", {"width": 100, "height": 200, "fit": "fill", "max_size": 320}),
]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside of a JSON value."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*at, key))


def changed(value: Any, draw: random.Random) -> Any:
    """A JSON value with something in it replaced, removed, added or doubled."""
    value = json.loads(json.dumps(value))
    at = draw.choice([place for place in places(value) if place])
    holder = value
    for key in at[:-1]:
        holder = holder[key]
    new = draw.choice(VALUES)
    kind = draw.randrange(5)
    if kind == 0:
        del holder[at[-1]]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(draw.randint(0, len(holder)), draw.choice([new, holder[at[-1]]]))
    elif kind == 2 and isinstance(holder, dict):
        holder[draw.choice([*REFUSED, "role", "content", "url", "text", "n", "seed", "max_size", "fit"])] = new
    else:
        holder[at[-1]] = new
    return value


def body_of(value: Any, draw: random.Random) -> bytes:
    """The bytes of a JSON value, perhaps damaged."""
    data = bytearray(json.dumps(value).encode())
    if draw.random() < 0.15:
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(data))
            data[at : at + draw.randint(0, 3)] = bytes(draw.randrange(256) for _ in range(draw.randint(0, 3)))
    return bytes(data)


def check(given: httpx.Response, body: bytes) -> None:
    assert given.status_code < 500, (body[:500], given.text)
    if given.status_code != 200:
        (error,) = given.json().values()
        assert set(error) == {"message", "type", "param", "code"} and error["code"] == given.status_code
        assert not LEAK.search(error["message"].replace("expected", "")), error


@pytest.fixture(scope="module")
def address(eve: EVE) -> Iterator[Address]:
    with serving(eve, Scripted(eve), ServeSettings(names=("eve",), quiet=True)) as made:
        yield made


def fuzz(address: Address, seed: int, count: int) -> None:
    """Ask `count` changed bodies."""
    draw = random.Random(seed)
    codes: set[int] = set()
    for _ in range(count):
        path, value = draw.choice(SEEDS)
        for _ in range(draw.choice([1, 1, 2, 3])):
            value = changed(value, draw) if len(value) else value
        body = body_of(value, draw)
        given = HTTP.post(address.url + path, content=body, headers={"Content-Type": "application/json"})
        check(given, body)
        codes.add(given.status_code)
    assert {200, 400} <= codes


def test_changed_bodies(address: Address) -> None:
    fuzz(address, 0, 300)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (json.dumps(chat("é", seed=1)).replace("1}", "1" * 5000 + "}").encode(), "a number has 5,000 characters"),
        (json.dumps(chat()).encode("utf-16"), "byte 1 begins no character of UTF-8"),
        (b'{"messages": "\xc3("}', "byte 15 begins no character"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"\xef\xbb\xbf{}", "line 1, column 1, a byte order mark"),
        (b'{"messages": \n[}', "(line 2, column 2)"),
        (b"", "(line 1, column 1)"),
        (b'{"seed": NaN}', "NaN is not a number"),
        (b'{"n": 1, "n": 2}', "'n' stands there twice"),
        (json.dumps(chat(fit="x")).encode(), "fit: Input should be 'fill' or 'shrink'"),
        (json.dumps(chat(max_size=10**900)).encode(), "max_size"),
    ],
)
def test_what_is_wrong_is_said_without_words_of_python(address: Address, body: bytes, says: str) -> None:
    given = HTTP.post(address.url + CHAT, content=body, headers={"Content-Type": "application/json"})
    check(given, body)
    assert given.status_code == 400 and says in given.json()["error"]["message"], given.text


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_ten_thousand_changed_bodies(address: Address, seed: int) -> None:
    fuzz(address, seed, 2500)
    assert not address.scheduler.running


@pytest.mark.parametrize("count", [80, pytest.param(1500, marks=pytest.mark.slow)])
def test_damaged_images(address: Address, count: int) -> None:
    draw = random.Random(1)
    files = [png(40, 30, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")]
    for _ in range(count):
        data = bytearray(draw.choice(files))
        for _ in range(draw.randint(1, 5)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        body = json.dumps(chat([image(uri(bytes(data[: draw.choice([len(data), draw.randrange(len(data))])])))]))
        check(HTTP.post(address.url + CHAT, content=body, headers={"Content-Type": "application/json"}), body.encode())


@pytest.mark.slow
def test_a_thousand_connections(address: Address) -> None:
    """All at once, and as many that send nothing."""

    async def ask() -> list[int]:
        host, port = "127.0.0.1", int(address.url.rpartition(":")[2])
        idle = [await asyncio.open_connection(host, port) for _ in range(300)]
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(verify=False, timeout=120, limits=limits) as client:
            sent = [client.post(address.url + CHAT, json=chat(max_tokens=2, stream=bool(n % 2))) for n in range(700)]
            answers = await asyncio.gather(*sent)
        for _, writer in idle:
            writer.close()
        return [answer.status_code for answer in answers]

    address.scheduler.most = 10_000
    assert set(asyncio.run(ask())) == {200}
    wait_for(lambda: not address.server.server_state.tasks)
    assert HTTP.get(f"{address.url}/health").status_code == 200


@pytest.mark.slow
def test_schemathesis(address: Address) -> None:
    """What follows the description is answered; nothing is answered with a 5xx."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings

    schema = schemathesis.openapi.from_url(f"{address.url}/openapi.json")
    counted: dict[str, int] = {}
    for result in schema.get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=200,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        def ask(case: Any) -> None:
            answer = case.call()
            assert answer.status_code < 500, (case, answer.text)
            counted[case.path] = counted.get(case.path, 0) + 1

        ask()
    assert counted[CHAT] >= 200 and counted[TEXT] >= 200
