"""What each status and body of an endpoint means."""

import email.utils
import json
import time
from typing import Any

import pytest

from eve_jax.caption.replies import Answer, Faulty, Overloaded, Refused, Stop, read_reply


def read(status: int, body: Any, **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_reply(status, headers, data, "http://h/v1 (m)")


def said(content: Any, finish: str = "stop") -> dict[str, Any]:
    return {
        "choices": [{"message": {"content": content}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3},
    }


def test_an_answer() -> None:
    assert read(200, said("A bus.")) == Answer("A bus.", "stop", 5, 3)
    assert read(200, said(None, "length")) == Answer("", "length", 5, 3)
    assert read(200, said("<think>a bus?</think>\n\nA bus.")).text == "A bus."
    assert read(200, {"choices": [{"message": {"content": "A bus."}}]}) == Answer("A bus.")


def test_halves_of_surrogate_pairs_do_no_harm() -> None:
    body = b'{"choices": [{"message": {"content": "a \\ud83d b"}}]}'
    read(200, body).text.encode()
    with pytest.raises(Refused) as error:
        read(400, b'{"error": {"message": "a \\ud83d b"}}')
    str(error.value).encode()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"choices": []}', b'{"choices": [{"message": null}]}', b"7"])
def test_no_answer_in_a_good_status_is_the_endpoints_fault(body: bytes) -> None:
    with pytest.raises(Faulty):
        read(200, body)


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_busy(status: int) -> None:
    with pytest.raises(Overloaded) as error:
        read(status, {"error": {"message": "wait"}}, **{"retry-after": "2.5"})
    assert error.value.retry_after == 2.5 and "wait" in str(error.value)


def test_retry_after_may_be_a_date_or_nonsense() -> None:
    date = email.utils.formatdate(time.time() + 60, usegmt=True)
    for text, least, most in ((date, 50, 61), ("soon", None, None), ("nan", None, None), ("-5", 0, 0)):
        with pytest.raises(Overloaded) as error:
            read(429, {}, **{"retry-after": text})
        found = error.value.retry_after
        assert found is None if least is None or most is None else found is not None and least <= found <= most


@pytest.mark.parametrize("status", [500, 501, 520])
def test_faults(status: int) -> None:
    with pytest.raises(Faulty, match="boom"):
        read(status, b"boom")


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_refusals_have_the_endpoints_words(status: int) -> None:
    with pytest.raises(Refused, match="too large an image") as error:
        read(status, {"error": {"message": "too large\nan image"}})
    assert error.value.status == status


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"error": {"message": "bad key"}}, "bad key; the key is wrong or missing: set EVE_CAPTION_KEY"),
        (404, {"detail": "Not Found"}, "Not Found; there is no such model, or the URL does not end in /v1"),
        (400, {"error": {"message": "The model `x` does not exist."}}, "there is no such model"),
        (400, {"error": {"message": "?", "code": "model_not_found"}}, "there is no such model"),
        (429, {"error": {"message": "pay", "type": "insufficient_quota"}}, "pay; the account has no credit"),
        (301, b"moved", "it is elsewhere: set config.endpoint.url"),
    ],
)
def test_what_no_request_can_get_past_stops_at_once(status: int, body: Any, words: str) -> None:
    with pytest.raises(Stop) as error:
        read(status, body)
    assert words in str(error.value) and str(error.value).startswith("http://h/v1 (m): status ")
