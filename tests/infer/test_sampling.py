"""Drawn tokens: the right distribution, the same whatever else is in the batch, and settings that make no sense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.errors import UserError
from eve_jax.infer.choosing import choose
from eve_jax.infer.engine import Engine
from eve_jax.infer.sampling import Sampling
from tests import reference as ref
from tests.infer.test_generate import NEW, prompts

PROBABILITIES = np.array([0.02, 0.5, 0.08, 0.3, 0.1])
DRAWS = 20_000


@jax.jit
def draw(sampling):
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(PROBABILITIES, jnp.float32)), (DRAWS, 5))
    return choose(logits, jnp.arange(DRAWS), sampling)


def shares(sampling: Sampling) -> np.ndarray:
    return np.bincount(np.asarray(draw(sampling.arrays())), minlength=5) / DRAWS


@pytest.mark.parametrize(
    ("temperature", "top_p", "kept"),
    [
        (1.0, 1.0, [0, 1, 2, 3, 4]),
        (0.5, 1.0, [0, 1, 2, 3, 4]),
        (1.0, 0.85, [1, 3, 4]),  # 0.5 + 0.3 is not enough
        (1.0, 0.79, [1, 3]),
        (2.0, 0.01, [1]),
    ],
)
def test_distribution(temperature, top_p, kept):
    expected = np.zeros(5)
    expected[kept] = PROBABILITIES[kept] ** (1 / temperature)
    expected /= expected.sum()
    np.testing.assert_allclose(shares(Sampling(temperature, top_p)), expected, atol=0.015)


def test_seed_and_position_decide():
    once, again, other = (np.asarray(draw(Sampling(1.0, 1.0, seed).arrays())) for seed in (3, 3, 4))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
    logits = jnp.log(jnp.asarray(PROBABILITIES, jnp.float32))[None]
    sampling = Sampling(1.0, 1.0, 3).arrays()
    for position in (0, 7, 19_999):  # alone as among the others
        assert int(choose(logits, jnp.array([position]), sampling)[0]) == once[position]


def test_greedy_takes_the_first_of_equals():
    assert choose(jnp.array([[0.0, 2.0, 2.0], [5.0, 2.0, 2.0]]), jnp.zeros(2, jnp.int32), None).tolist() == [1, 0]
    assert Sampling().arrays() is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ((-1.0,), "temperature=-1.0: expected 0"),
        ((float("nan"),), "temperature=nan"),
        ((1.0, 0.0), "top_p=0.0: expected more than 0"),
        ((1.0, 1.5), "top_p=1.5"),
        ((0.0, 0.9), "top_p=0.9 needs a temperature"),
        ((1.0, 1.0, -1), "seed=-1"),
    ],
)
def test_settings_that_make_no_sense(settings, says):
    with pytest.raises(UserError, match=says):
        Sampling(*settings)


def test_each_place_draws_for_itself():
    """Every token of an answer is drawn by its own index in the sequence, the first one's is the prompt's length."""
    cfg = ref.config()
    engine = Engine(cfg, ref.params(cfg))
    prompt, sampling = prompts()["text"], Sampling(3.0, 1.0, 5)
    places = []

    def choose_noting(logits, position, how, *rest):
        jax.debug.callback(lambda p: places.append(int(p[0])), position, ordered=True)
        return choose(logits, position, how, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eve_jax.infer.choosing.choose", choose_noting)
        jax.clear_caches()
        engine.generate([prompt], 4, [], sampling)
    jax.clear_caches()
    assert places == [len(prompt) + n for n in range(4)]


def test_a_prompt_draws_the_same_alone_in_a_batch_and_as_a_stream():
    cfg = ref.config()
    engine = Engine(cfg, ref.params(cfg))
    sampling = Sampling(0.8, 0.9, 5)
    every = list(prompts().values())
    alone = [engine.generate([p], NEW, [], sampling)[0] for p in every]
    assert engine.generate(every, NEW, [], sampling) == alone
    assert list(engine.stream(every[0], NEW, [], sampling)) == alone[0]
    others = engine.generate(every, NEW, [], Sampling(0.8, 0.9, 6))
    assert all(a != b for a, b in zip(alone, others, strict=True))


LOGITS = np.array([[0.0, 3.0, 1.0, 2.999], [-80.0, -90.0, -80.5, -3000.0], [3e38, -3e38, 1e38, 0.0]], np.float32)


@pytest.mark.parametrize("temperature", [5e-324, 1e-46, 1e-40, 1.17e-38, 1.2e-38, 1e-38, 1e-30, 1e-12, 1e-6])
@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_a_temperature_towards_0_tends_to_the_greedy_answer(temperature, top_p):
    for seed in range(5):
        sampling = Sampling(temperature, top_p, seed).arrays()
        assert choose(jnp.asarray(LOGITS), jnp.arange(3), sampling).tolist() == [1, 0, 0]


@pytest.mark.parametrize("top_p", [5e-324, 1e-40, 1e-38, 1e-20, 1e-6])
@pytest.mark.parametrize("temperature", [1.0, 1e3])
def test_a_nucleus_towards_0_is_the_most_probable_token(top_p, temperature):
    for seed in range(5):
        sampling = Sampling(temperature, top_p, seed).arrays()
        assert choose(jnp.asarray(LOGITS), jnp.arange(3), sampling).tolist() == [1, 0, 0]


@pytest.mark.parametrize("temperature", [1e30, 3e38, 1e39, 1.7e308])
def test_a_temperature_towards_infinity_tends_to_any_token(temperature):
    np.testing.assert_allclose(shares(Sampling(temperature)), 0.2, atol=0.015)
