"""Requests and settings that a scheduler refuses."""

from typing import Any

import pytest

from eve_jax.errors import UserError
from eve_jax.infer.engine import Engine
from eve_jax.infer.requests import Request
from eve_jax.infer.sampling import Sampling
from eve_jax.infer.scheduler import Scheduler, SchedulerSettings
from tests import reference as ref
from tests.infer.mixed import Heard, prompt


@pytest.fixture(scope="module")
def scheduler() -> Scheduler:
    cfg = ref.config()
    return Scheduler(Engine(cfg, ref.params(cfg)), SchedulerSettings(slots=4, context=160, chunk=16))


WRONG = [
    (lambda: Request(prompt([5] * 100), 61), "100 tokens of the prompt, .* max_new_tokens=61 do not fit .* 160 tokens"),
    (lambda: Request(prompt([5, 320]), 4), "the prompt has token 320, the model has 320"),
    (lambda: Request(prompt([5, ref.IMAGE_ID]), 4), "1 place for images, patches of 0, 0 grids"),
    (lambda: Request(prompt([]), 4), "the prompt is empty"),
    (lambda: Request(prompt([5]), 0), "max_new_tokens=0: expected a whole number of at least 1"),
    (lambda: Request(prompt([5]), 4, logprobs=21), "logprobs=21: expected -1"),
    (lambda: Request(prompt([5]), 4, min_tokens=5), "min_tokens=5 is more than max_new_tokens=4"),
    (lambda: Request(prompt([5]), 4, stop_ids=(320,)), r"stop ids \[320\]: the model has tokens 0 to 319"),
    (lambda: Request(prompt([5]), 4, stop_ids=tuple(range(65))), "65 stop ids: at most 64"),
    (lambda: Request(prompt([5]), 4, Sampling(logit_bias=((320, 1.0),))), "logit_bias: token 320 is not one of"),
]


@pytest.mark.parametrize(("make", "says"), WRONG, ids=[says[:30] for _, says in WRONG])
def test_requests_that_cannot_be_answered(scheduler, make, says):
    with pytest.raises(UserError, match=says):
        scheduler.submit(make(), Heard().listener(0))
    assert not scheduler.busy


@pytest.mark.parametrize("name", ["slots", "context", "chunk", "queue", "prefix_bytes", "block"])
def test_settings_out_of_range(name):
    wrong: dict[str, Any] = {name: -1}
    with pytest.raises(UserError, match=f"{name}=-1: expected a whole number of at least"):
        SchedulerSettings(**wrong)


def test_a_preference_that_is_none():
    with pytest.raises(UserError, match="prefer='speed': expected latency or throughput"):
        SchedulerSettings(prefer="speed")  # type: ignore[arg-type]
