"""Endpoints that are busy, slow, away, broken or refuse, asked by the real client over a real socket."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.caption_server import Asked, Reply, ScriptedEndpoint, completion, refusal
from eve_jax.caption.endpoint import Pool, Stopping
from eve_jax.caption.replies import Answer, Stop
from tests.caption.scenes import config_of


def body(number: int) -> bytes:
    return json.dumps({"model": "m", "number": number, "messages": []}).encode()


def number_of(asked: Asked) -> int:
    return int(asked.body["number"])


def said(asked: Asked) -> str:
    return f"answer {number_of(asked)}"


def ask(urls: str, numbers: Sequence[int], key: str = "", **changes: Any) -> tuple[list[Any], Pool]:
    """The answers to `numbers`, or what was raised, all asked at a time; and the pool."""

    async def run() -> tuple[list[Any], Pool]:
        config = config_of(urls, **{f"endpoint__{name}": value for name, value in changes.items()})
        async with Pool(config.endpoint, key) as pool:
            found = await asyncio.gather(*(pool.ask(body(n)) for n in numbers), return_exceptions=True)
            assert pool.in_flight == 0
            return [one[0] if isinstance(one, tuple) else one for one in found], pool

    return asyncio.run(run())


def answers(count: int) -> list[Answer]:
    return [Answer(f"answer {number}", "stop", 700, 2) for number in range(count)]


def test_more_requests_than_places_are_all_answered() -> None:
    with ScriptedEndpoint(said, places=6, seconds=0.02) as endpoint:
        found, pool = ask(endpoint.url, range(120))
        assert found == answers(120)
        assert endpoint.most == 6
        assert 120 <= pool.sent <= 140


def test_a_few_500s_are_asked_again_and_too_many_reject_the_image() -> None:
    def script(asked: Asked) -> Reply | str:
        number = number_of(asked)
        return refusal(500, "boom") if number == 3 or asked.times <= number % 3 else said(asked)

    with ScriptedEndpoint(script) as endpoint:
        found, _ = ask(endpoint.url, range(6), tries=3)
    assert found[:3] + found[4:] == answers(3) + answers(6)[4:]
    assert (found[3].rule, found[3].words) == ("server", "status 500: boom")


def test_a_refusal_is_an_answer_with_its_words() -> None:
    with ScriptedEndpoint(lambda asked: refusal(400, "image too large")) as endpoint:
        found, pool = ask(endpoint.url, [0])
    assert found == [Answer(rule="refused", words="status 400: image too large", status=400)] and pool.sent == 1


def test_retry_after_is_kept() -> None:
    times: list[float] = []

    def script(asked: Asked) -> Reply | str:
        times.append(time.monotonic())
        return refusal(429, "slow down", retry_after="0.7") if len(times) == 1 else said(asked)

    with ScriptedEndpoint(script) as endpoint:
        found, _ = ask(endpoint.url, [0])
    assert found == answers(1) and times[1] - times[0] >= 0.7


@pytest.mark.slow
def test_an_endpoint_that_goes_away_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedEndpoint(said, places=4, seconds=0.05) as endpoint:
        gone = endpoint.away(1.5, after=0.3)
        began = time.monotonic()
        found, pool = ask(endpoint.url, range(60))
        took = time.monotonic() - began
        gone.join()
    assert found == answers(60)
    assert took < 60 * 0.05 / 4 * 1.5 + 1.5 + 2.5
    assert pool.sent <= 60 + 20  # what broke, one probe a second, and 429s
    said_ = capsys.readouterr().err
    assert said_.count("nobody listens") == 1 and said_.count("answers again") == 1


def test_patience_ends() -> None:
    with ScriptedEndpoint() as endpoint:
        endpoint.leave()
        found, _ = ask(endpoint.url, [0], patience=0.5)
    assert isinstance(found[0], Stop) and "no answer for" in str(found[0]) and "nothing is lost" in str(found[0])


def test_busy_for_ever_ends_too() -> None:
    with ScriptedEndpoint(lambda asked: refusal(503, "loading")) as endpoint:
        found, _ = ask(endpoint.url, [0], patience=0.5)
    assert isinstance(found[0], Stop) and "status 503: loading" in str(found[0])


def test_one_of_two_endpoints_takes_over(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedEndpoint(said, places=4, seconds=0.02) as one, ScriptedEndpoint(said) as other:
        other.leave()
        found, pool = ask(f"{one.url},{other.url}", range(40))
        assert found == answers(40)
        assert sum(one.served.values()) == 40
        other.listen()
        found, pool = ask(f"{one.url},{other.url}", range(40))
        assert found == answers(40)
        assert min(endpoint.gate.sent for endpoint in pool.endpoints) >= 5


@pytest.mark.slow
def test_timeouts_halve_and_do_not_count_against_an_image_unless_it_is_alone() -> None:
    """Image 7 never gets an answer; the others do, and it is given up when it is the only one left."""

    class Slow(ScriptedEndpoint):
        async def _reply(self, body: bytes, headers: dict[str, str]) -> Reply:
            await asyncio.sleep(30 if json.loads(body)["number"] == 7 else 0.01)
            return completion(f"answer {json.loads(body)['number']}", tokens=2)

    with Slow() as endpoint:
        found, pool = ask(endpoint.url, range(12), timeout=1.0, patience=60.0)
    assert found[:7] + found[8:] == answers(7) + answers(12)[8:]
    assert found[7].rule == "timeout" and found[7].words.startswith("no answer in time")
    assert pool.endpoints[0].gate.refused <= 3


@pytest.mark.parametrize(("status", "words"), [(401, "the key is wrong"), (404, "no such model"), (403, "may not use")])
def test_hopeless_requests_stop_at_once_and_never_show_the_key(status: int, words: str) -> None:
    with ScriptedEndpoint(lambda asked: refusal(status, f"not with {asked.headers['authorization']}")) as endpoint:
        found, pool = ask(endpoint.url, [0], key="sk-secret-1")
    assert isinstance(found[0], Stop) and words in str(found[0]) and pool.sent == 1
    assert "sk-secret" not in str(found[0]) and "***" in str(found[0])


def test_a_403_for_one_image_is_its_own_fault() -> None:
    with ScriptedEndpoint(lambda asked: refusal(403, "flagged") if number_of(asked) else said(asked)) as endpoint:

        async def run() -> list[Answer]:
            async with Pool(config_of(endpoint.url).endpoint, "k") as pool:
                return [(await pool.ask(body(number)))[0] for number in range(2)]

        assert [one.words for one in asyncio.run(run())] == ["", "status 403: flagged"]


def test_stop_sends_no_more_and_lets_what_is_in_flight_finish() -> None:
    with ScriptedEndpoint(said, seconds=0.3) as endpoint:

        async def run() -> list[Any]:
            async with Pool(config_of(endpoint.url, endpoint__start=2, endpoint__concurrency=2).endpoint) as pool:
                tasks = [asyncio.create_task(pool.ask(body(number))) for number in range(5)]
                await asyncio.sleep(0.1)
                pool.stop()
                return await asyncio.gather(*tasks, return_exceptions=True)

        found = asyncio.run(run())
    assert [one[0] for one in found[:2]] == answers(2)
    assert all(isinstance(one, Stopping) for one in found[2:])
