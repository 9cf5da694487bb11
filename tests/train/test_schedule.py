"""The learning rate by step: warm-up, cosine, constant and WSD, against plain formulas."""

import math

import numpy as np
import pytest

from configs import base
from eve_jax.train.schedule import schedule

STEPS, PEAK, LOWEST = 40, 2e-3, 1e-4
LEFT = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "sqrt": lambda x: 1 - x**0.5,
}


def rates(**fields: object) -> list[float]:
    """The rates of STEPS steps, and that after them."""
    optim = base.get_config("tiny").optim
    optim.update({"lr": PEAK, "warmup": 0.0, **fields})
    rate = schedule(optim, STEPS)
    return [float(rate(np.int32(step))) for step in range(STEPS + 1)]


@pytest.mark.parametrize(("given", "warmup"), [({"warmup": 0.06}, 3), ({"warmup_steps": 5}, 5), ({}, 0)])
@pytest.mark.parametrize("lowest", [0.0, LOWEST])
def test_cosine_to_a_lowest_rate(given: dict, warmup: int, lowest: float) -> None:
    def wanted(step: int) -> float:
        if step < warmup:
            return PEAK * step / warmup
        return lowest + (PEAK - lowest) * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup))) / 2

    np.testing.assert_allclose(
        rates(min_lr=lowest, **given), [wanted(s) for s in range(STEPS + 1)], rtol=1e-5, atol=1e-9
    )


def test_a_constant_rate_after_the_warm_up() -> None:
    got = rates(schedule="constant", warmup_steps=4)
    np.testing.assert_allclose(got, [PEAK * min(step / 4, 1) for step in range(STEPS + 1)], rtol=1e-6)
    assert set(rates(schedule="constant")) == {np.float32(PEAK)}


@pytest.mark.parametrize(
    ("shape", "lowest"),
    [*((shape, lowest) for shape in LEFT for lowest in (0.0, LOWEST)), ("exponential", LOWEST)],
)
def test_warm_up_stable_decay(shape: str, lowest: float) -> None:
    """The decay is the last 30%, 12 of 40 steps, and ends with the run."""
    got = rates(schedule="wsd", warmup_steps=4, decay=0.3, decay_shape=shape, min_lr=lowest)

    def wanted(step: int) -> float:
        over = max(step - 28, 0) / 12
        if shape == "exponential":
            return PEAK * min(step / 4, 1) * (lowest / PEAK) ** over
        return (
            lowest + (PEAK * min(step / 4, 1) - lowest) * LEFT[shape](over) if step >= 28 else PEAK * min(step / 4, 1)
        )

    np.testing.assert_allclose(got, [wanted(step) for step in range(STEPS + 1)], rtol=1e-5, atol=1e-9)


def test_wsd_unless_said_otherwise_decays_in_a_fifth_along_a_line() -> None:
    assert rates(schedule="wsd") == rates(schedule="wsd", decay=0.2, decay_shape="linear")
    got = rates(schedule="wsd")
    assert got[32] == np.float32(PEAK) and got[33] == pytest.approx(PEAK * 7 / 8) and got[40] == 0


def test_shares_that_are_rounded_up_share_the_steps() -> None:
    """Half and half of three steps are two and the one that is left."""
    optim = base.get_config("tiny").optim
    optim.update({"lr": 1.0, "warmup": 0.5, "schedule": "wsd", "decay": 0.5})
    assert [float(schedule(optim, 3)(step)) for step in range(4)] == [0, 0.5, 1, 0]
