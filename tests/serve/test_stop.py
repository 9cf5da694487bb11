"""A port has one server. At its end running answers end first, those that take too long as errors."""

import threading

import httpx
import pytest

from eve_jax import EVE
from eve_jax.errors import UserError
from eve_jax.serve import guard, process
from eve_jax.serve.settings import ServeSettings
from tests.serve.bodies import CHAT, HTTP, chat, events
from tests.serve.scripted import Scripted, serving, wait_for
from tests.serve.test_guard import post, raw, rest


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_stops_ends_its_answers_first(eve: EVE, stream: bool) -> None:
    scheduler = Scripted(eve)
    scheduler.pace = 0.01
    answers: list[httpx.Response] = []
    with serving(eve, scheduler, ServeSettings(quiet=True)) as address:

        def ask() -> None:
            answers.append(HTTP.post(address.url + CHAT, json=chat(stream=stream), timeout=30))

        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        wait_for(lambda: scheduler.running == 3)
    for thread in asking:
        thread.join(10)
    assert [answer.status_code for answer in answers] == [200] * 3 and scheduler.closed is True
    for answer in answers:
        ends = events(answer.text)[-1:] if stream else [answer.json()]
        assert [one["choices"][0]["finish_reason"] for one in ends] == ["stop"]
    with pytest.raises(httpx.ConnectError):
        HTTP.get(f"{address.url}/health")


def test_answers_that_are_late_when_the_server_stops_end_as_errors(
    eve: EVE, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """After --drain_time: an answer in whole, one in a stream, and a body that is still under way."""
    monkeypatch.setattr(guard, "DRAINED", 0.1)
    scheduler, answers = Scripted(eve), dict[bool, httpx.Response]()
    scheduler.pace = 0.05
    with serving(eve, scheduler, ServeSettings(), drain_time=0.3) as address:

        def ask(stream: bool) -> None:
            body = chat(stream=stream, ignore_eos=True, max_tokens=400)
            answers[stream] = HTTP.post(address.url + CHAT, json=body, headers={"X-Request-Id": f"id-{stream}"})

        asking = [threading.Thread(target=ask, args=[stream]) for stream in (False, True)]
        for thread in asking:
            thread.start()
        wait_for(lambda: scheduler.running == 2)
        sends = raw(address, post(100, b'{"a'))
        wait_for(lambda: len(address.server.server_state.tasks) == 3)
    for thread in asking:
        thread.join(10)
    whole, stream = answers[False], answers[True]
    assert whole.status_code == 503 and whole.headers["retry-after"] == "10" and whole.headers["x-request-id"]
    assert stream.status_code == 200
    for error in (whole.json(), events(stream.text)[-1]):
        assert error["error"]["code"] == 503 and "stopping" in error["error"]["message"]
    assert rest(sends).startswith(b"HTTP/1.1 503") and not scheduler.running
    told = capfd.readouterr().err.splitlines()
    assert sorted(line.split()[2] for line in told if line.startswith("POST")) == ["200", "503", "503"]
    assert [line for line in told if not line.startswith("POST")] == [
        "3 requests did not end within 0.3 seconds: answered as errors"
    ]
    assert not caplog.records  # of uvicorn


def test_a_port_is_taken_before_the_checkpoint_is_read() -> None:
    with process.listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UserError, match=f"^--host=127.0.0.1 --port={port}: .*in use; name another port$"):
            process.listening("127.0.0.1", port).close()
