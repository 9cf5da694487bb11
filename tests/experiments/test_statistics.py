"""Statistics over seeds and questions, on made-up tables: how often intervals hold the truth, and what is said."""

import numpy as np
import pytest

from eve_jax.experiments import statistics
from eve_jax.experiments.statistics import Effect, effects, over_questions, spread, words

TRUTH = 0.3


def table(random: np.random.Generator, shape: tuple[int, int], parts: tuple[float, float, float]) -> np.ndarray:
    """Values around 0 with standard deviations of the seeds, of the questions and of the rest."""
    of_seeds, of_questions, rest = parts
    seeds = of_seeds * random.standard_normal((shape[0], 1))
    questions = of_questions * random.standard_normal((1, shape[1]))
    return seeds + questions + rest * random.standard_normal(shape)


def test_spread() -> None:
    found = spread(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
    assert found.seeds == (0.5, 1.0, 0.0)
    assert found[:3] == pytest.approx((0.5, 0.5, 0.5 / 3**0.5))
    assert spread(np.ones((1, 4)))[:3] == (1.0, None, None)


@pytest.mark.parametrize(
    ("seeds", "parts"),
    [(2, (0.1, 0.3, 1.0)), (3, (1.0, 0.0, 0.1)), (3, (0.0, 1.0, 0.1)), (3, (0.0, 0.0, 1.0)), (5, (0.3, 0.3, 1.0))],
)
def test_how_often_the_interval_holds_the_truth(
    seeds: int, parts: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 1000)
    random = np.random.default_rng(seeds)
    held, repeats = 0, 150
    for _ in range(repeats):
        given = table(random, (seeds, 40), parts)
        found = effects({"a": given, "b": given + table(random, (seeds, 40), parts) + TRUTH})["b", "a"].interval
        assert found is not None
        held += found[0] <= TRUTH <= found[1]
    assert held / repeats > 0.9


def test_a_real_difference_is_found_and_none_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 1000)
    random = np.random.default_rng(0)
    claimed = found = 0
    for _ in range(60):
        arms = {name: table(random, (3, 60), (0.1, 0.2, 0.5)) for name in "abcd"}
        claimed += any(effect.is_clear for effect in effects(arms).values())
        arms["d"] = arms["d"] + 3.0
        found += effects(arms)["d", "a"].is_clear
    assert claimed <= 6, "of 60 sets of arms that do not differ"
    assert found == 60


def test_pairing_takes_out_what_arms_share() -> None:
    random = np.random.default_rng(0)
    shared = table(random, (3, 200), (5.0, 5.0, 0.0))
    one, other = (shared + 0.1 * random.standard_normal(shared.shape) + shift for shift in (0.0, 0.2))
    effect = effects({"a": one, "b": other})["b", "a"]
    assert effect.is_clear and effect.value == pytest.approx(0.2, abs=0.02)
    assert effect == effects({"a": one, "b": other})["b", "a"], "the same tables, the same draws"
    assert effect.seeds == pytest.approx((other - one).mean(axis=1))


@pytest.mark.parametrize(("shape", "why"), [((1, 50), "with one seed"), ((3, 9), "with fewer than 10 questions")])
def test_too_little_to_say_anything(shape: tuple[int, int], why: str) -> None:
    effect = effects({"a": np.zeros(shape), "b": np.ones(shape)})["b", "a"]
    assert (effect.value, effect.interval, effect.wide, effect.is_clear) == (1.0, None, None, False)
    assert (
        words(("b", "a"), effect, "points", 100) == f"b and a differ by 100.0 points; {why} nothing can be said of it."
    )


def test_arms_without_noise_and_tables_that_do_not_fit() -> None:
    assert effects({"a": np.zeros((3, 20)), "b": np.ones((3, 20))})["b", "a"].interval == (1.0, 1.0)
    assert effects({"a": np.zeros((3, 20))}) == {}
    with pytest.raises(ValueError, match="are not paired"):
        effects({"a": np.zeros((3, 20)), "b": np.zeros((3, 21))})


@pytest.mark.parametrize(
    ("value", "interval", "wide", "says"),
    [
        (0.02, (0.01, 0.03), (0.005, 0.035), "x is above y by 2.0 points (95% interval +1.0 to +3.0)."),
        (-0.02, (-0.03, -0.01), (-0.04, -0.005), "x is below y by 2.0 points (95% interval -3.0 to -1.0)."),
        (0.02, (-0.01, 0.05), (-0.02, 0.06), "x and y are not told apart: +2.0 points (95% interval -1.0 to +5.0)."),
        (
            0.02,
            (0.01, 0.03),
            (-0.01, 0.05),
            "x is above y by 2.0 points (95% interval +1.0 to +3.0): clear on its own, but not among as many "
            "differences as are looked at here.",
        ),
    ],
)
def test_words_follow_from_the_intervals(value: float, interval: tuple, wide: tuple, says: str) -> None:
    assert words(("x", "y"), Effect(value, interval, wide, (value, value)), "points", 100) == says


def test_passages_weigh_by_their_tokens() -> None:
    values = over_questions([1.0, 3.0], [30, 10])
    assert values.mean() == pytest.approx(1.5)
