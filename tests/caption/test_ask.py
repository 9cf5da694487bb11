"""How one image gets its caption: what is tried again, with what, and how often; and that every answer is paid once."""

import asyncio
import gc
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.caption_server import Asked, Reply, ScriptedEndpoint, completion, describe, refusal
from benchmarks.caption_texts import good_caption
from eve_jax.caption.answers import AnswerLog
from eve_jax.caption.ask import Asker, Outcome, Question, read_json_answer
from eve_jax.caption.checks import Facts
from eve_jax.caption.endpoint import Pool
from eve_jax.caption.prompts import Prompt
from eve_jax.caption.sent import Sent
from tests.caption.scenes import config_of, image_file

GOOD = good_caption(1)
BIG = Sent(image_file(0, (200, 100)), "image/jpeg", (200, 100))


def caption(
    folder: Path, script: Callable[[Asked], Reply | str], questions: int = 1, **changes: Any
) -> tuple[list[Outcome], list[Asked]]:
    """The outcomes of the same question asked so many times at once, and the requests that were sent for it."""

    async def run(url: str) -> list[Outcome]:
        config = config_of(url, **changes)
        async with Pool(config.endpoint) as pool:
            log = AnswerLog(folder)
            asker = Asker(config, pool, log)
            question = Question(BIG, Prompt("be brief", "what is it?"), Facts(ocr=("exit",)), "r1")
            try:
                return list(await asyncio.gather(*(asker.caption(question) for _ in range(questions))))
            finally:
                log.close()

    with ScriptedEndpoint(script) as endpoint:
        endpoint.keep_requests = True
        return asyncio.run(run(endpoint.url)), endpoint.requests


def width_of(asked: Asked) -> int:
    import base64

    with Image.open(io.BytesIO(base64.b64decode(asked.image.partition(",")[2]))) as image:
        return image.width


def test_a_request_is_as_the_api_has_it(tmp_path: Path) -> None:
    found, (asked,) = caption(tmp_path, lambda asked: GOOD, endpoint__body='{"top_k": 20, "seed": null}')
    assert found == [Outcome(GOOD)]
    body = {name: value for name, value in asked.body.items() if name != "messages"}
    assert body == {"model": "m", "temperature": 0.2, "max_tokens": 512, "top_k": 20}
    system, user = asked.body["messages"]
    assert system == {"role": "system", "content": "be brief"} and user["role"] == "user"
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert asked.image == BIG.url() and asked.prompt == "what is it?"
    assert "authorization" not in asked.headers


def test_an_answer_is_paid_once(tmp_path: Path) -> None:
    """The same image several times at once, and again by the next process: one request."""
    found, requests = caption(tmp_path, describe, questions=5)
    assert len(requests) == 1 and len(set(found)) == 1 and found[0].is_kept
    again, requests = caption(tmp_path, lambda asked: pytest.fail("asked"))
    assert not requests and again == found[:1]


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint__model": "n"},
        {"endpoint__temperature": 0.3},
        {"endpoint__seed": 5},
        {"endpoint__max_tokens": 100},
        {"endpoint__body": '{"top_p": 0.5}'},
    ],
)
def test_another_request_is_another_answer(tmp_path: Path, changes: dict[str, Any]) -> None:
    caption(tmp_path, describe)
    assert len(caption(tmp_path, describe, **changes)[1]) == 1


def test_a_fault_is_asked_again_once_with_another_seed(tmp_path: Path) -> None:
    found, requests = caption(tmp_path, lambda asked: GOOD if asked.body["seed"] else "A bus on the")
    assert found == [Outcome(GOOD, 1)]
    assert [(asked.body["seed"], asked.body["temperature"]) for asked in requests] == [(0, 0.2), (1, 0.7)]


def test_a_second_fault_rejects(tmp_path: Path) -> None:
    text = "A bus stands on the square, and it is next to a red"
    found, requests = caption(tmp_path, lambda asked: text)
    assert len(requests) == 2
    assert found[0][:4] == (text, 1, "check", "unfinished") and "next to a red" in found[0].value


def test_an_answer_that_is_cut_off_gets_twice_the_tokens_once(tmp_path: Path) -> None:
    def script(asked: Asked) -> Reply:
        return completion(GOOD, "length" if asked.body["max_tokens"] == 512 else "stop")

    found, requests = caption(tmp_path, script)
    assert found == [Outcome(GOOD)] and [asked.body["max_tokens"] for asked in requests] == [512, 1024]
    found, requests = caption(tmp_path / "b", lambda asked: completion(GOOD, "length", 512))
    assert found[0][1:4] == (0, "ask", "length") and len(requests) == 2, "never half a sentence, never a third try"


def test_the_tokens_of_newer_models_are_doubled_too(tmp_path: Path) -> None:
    body = '{"max_tokens": null, "max_completion_tokens": 300}'
    _, requests = caption(tmp_path, lambda asked: completion("", "length"), endpoint__body=body)
    assert [asked.body["max_completion_tokens"] for asked in requests] == [300, 600]
    assert not any("max_tokens" in asked.body for asked in requests)


def test_a_refused_image_is_shrunk_once_then_rejected_with_the_words(tmp_path: Path) -> None:
    def script(asked: Asked) -> Reply | str:
        return refusal(413, "too large") if width_of(asked) > 100 else GOOD

    found, requests = caption(tmp_path, script)
    assert found == [Outcome(GOOD)] and [width_of(asked) for asked in requests] == [200, 100]
    found, requests = caption(tmp_path / "b", lambda asked: refusal(400, "flagged as unsafe"))
    assert found == [Outcome("", 0, "ask", "refused", "status 400: flagged as unsafe")] and len(requests) == 2
    again, requests = caption(tmp_path / "b", lambda asked: GOOD)
    assert again == found and not requests, "a refusal is not asked again, either"


def test_what_was_shrunk_stays_so_for_the_second_attempt(tmp_path: Path) -> None:
    def script(asked: Asked) -> Reply | str:
        if width_of(asked) > 100:
            return refusal(413, "too large")
        return GOOD if asked.body["seed"] else "A bus on the"

    found, requests = caption(tmp_path, script)
    assert found == [Outcome(GOOD, 1)] and [width_of(asked) for asked in requests] == [200, 100, 100]


def test_an_endpoint_that_fails_is_no_reason_to_shrink(tmp_path: Path) -> None:
    found, requests = caption(tmp_path, lambda asked: refusal(500, "boom"), endpoint__tries=1)
    assert found == [Outcome("", 0, "ask", "server", "status 500: boom")] and len(requests) == 1


def test_filtered_answers_are_rejected(tmp_path: Path) -> None:
    found, requests = caption(tmp_path, lambda asked: completion(GOOD, "content_filter"))
    assert found[0].rule == "filtered" and len(requests) == 1


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"caption": GOOD}),
        f"```json\n{json.dumps({'caption': GOOD}, indent=1)}\n```",
        f"Sure! {json.dumps({'caption': GOOD, 'n': {'a': 1}})} Is that all?",
    ],
)
def test_json_answers_are_read_and_repaired(tmp_path: Path, text: str) -> None:
    found, requests = caption(tmp_path, lambda asked: text, prompt__json="caption")
    assert found == [Outcome(GOOD)] and requests[0].body["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("text", ["A bus.", '{"caption": 7}', '{"text": "A bus."}', '{"caption": "A b', "[1, 2]", ""])
def test_bad_json_is_asked_again_once_then_rejected(tmp_path: Path, text: str) -> None:
    assert read_json_answer(text, "caption") is None
    good = json.dumps({"caption": GOOD})
    found, requests = caption(tmp_path, lambda asked: good if asked.body["seed"] else text, prompt__json="caption")
    assert found == [Outcome(GOOD, 1)] and len(requests) == 2
    found, requests = caption(tmp_path / "b", lambda asked: text, prompt__json="caption")
    assert found[0][1:4] == (1, "ask", "json") and len(requests) == 2


def test_facts_are_looked_for(tmp_path: Path) -> None:
    found, _ = caption(tmp_path, lambda asked: GOOD, checks__ocr=1.0)
    assert (found[0].rule, found[0].value) == ("ocr", "0 of 1 mentioned, not exit")


def test_an_error_that_nobody_waits_for_any_more_is_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio does that when a task is removed, at any moment, in the midst of other code."""

    async def run(url: str) -> None:
        config = config_of(url)
        async with Pool(config.endpoint) as pool:
            asker = Asker(config, pool, AnswerLog(tmp_path))
            task = asyncio.create_task(asker.caption(Question(BIG, Prompt("", "what is it?"), Facts())))
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.sleep(0.4)
            assert pool.sent == 1 and pool.in_flight == 0

    with ScriptedEndpoint(lambda asked: refusal(401, "bad key"), seconds=0.2) as endpoint:
        asyncio.run(run(endpoint.url))
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
