"""The server in a thread of the process that has the model: there in the block alone, and it tells what went wrong."""

from typing import Any

import httpx
import pytest

from eve_jax import EVE
from eve_jax.errors import UserError
from eve_jax.infer.scheduler import SchedulerSettings
from eve_jax.serve import local
from eve_jax.serve.settings import ServeSettings
from tests.serve.scripted import Scripted

SLOTS = SchedulerSettings(slots=2, context=256)


def test_it_answers_in_the_block_alone(eve: EVE, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = Scripted(eve, "A red bus.")
    monkeypatch.setattr(local, "Scheduler", lambda engine, slots: scripted)
    with local.served_here(eve, ServeSettings(names=("captioner",), quiet=True), SLOTS) as url:
        asked = {"model": "captioner", "messages": [{"role": "user", "content": "What is it?"}]}
        answer = httpx.post(f"{url}/chat/completions", json=asked).json()
    assert answer["choices"][0]["message"]["content"] == "A red bus."
    assert scripted.closed is True
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/models")


def test_what_keeps_the_model_from_being_served_is_raised(eve: EVE, monkeypatch: pytest.MonkeyPatch) -> None:
    class TooLarge(Scripted):
        def warm_up(self, progress: Any = None) -> int:
            raise UserError("slots=2 do not fit")

    monkeypatch.setattr(local, "Scheduler", lambda engine, slots: TooLarge(eve))
    with (
        pytest.raises(UserError, match="slots=2 do not fit"),
        local.served_here(eve, ServeSettings(quiet=True), SLOTS),
    ):
        raise AssertionError("it is not served")
