"""Endpoints that are busy, away, wrong, or cut an answer off."""

from collections.abc import Iterator

import pytest

from eve_jax.errors import Unreachable
from eve_jax.process import posting
from eve_jax.process.posting import NotAnswered, Refused, post, post_once, retry_after
from tests.scripted_endpoint import Scripted, scripted_endpoint


@pytest.fixture
def server() -> Iterator[tuple[str, type[Scripted]]]:
    with scripted_endpoint() as made:
        yield made


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("7", 7),
        ("-1", 0),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert retry_after(text) == seconds


def test_an_answer_that_is_cut_off_is_no_answer(server: tuple[str, type[Scripted]]) -> None:
    url, handler = server
    handler.script = [(200, {"Content-Length": "100"}, b"half")]
    with pytest.raises(NotAnswered, match="IncompleteRead"):
        post_once(url, b"", {}, 5)


def test_a_redirect_is_refused_and_the_key_stays_here(server: tuple[str, type[Scripted]]) -> None:
    url, handler = server
    handler.script = [(302, {"Location": url, "Content-Length": "0"}, b"")]
    with pytest.raises(Refused, match="status 302"):
        post_once(url, b"", {"Authorization": "Bearer secret"}, 5)
    assert len(handler.sent) == 1


def test_a_busy_endpoint_is_asked_until_patience_is_over(
    server: tuple[str, type[Scripted]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, handler = server
    pauses: list[float] = []
    monkeypatch.setattr(posting.time, "sleep", pauses.append)
    handler.script = [(503, {"Retry-After": "nan"}, b""), (429, {"Retry-After": "5"}, b""), (200, {}, b"done")]
    assert post("it", url, b"", {}, 5, 60) == b"done"
    assert pauses == [0.5, 5.0]
    handler.script = [(503, {}, b"full")]
    with pytest.raises(Unreachable, match=r"^it: no answer for 0 s \(status 503: full\); rerun"):
        post("it", url, b"", {}, 5, 0)
