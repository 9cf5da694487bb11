"""Rotary positions: both ways in which halves change places, against the formula of a pair."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from eve_jax.model import rotary

HALVES = (8, 4, 4)  # of a head of 32: what turns by number, row and column
ROWS, TOKENS, HEADS = 2, 5, 3


def of_pairs(x: Array, cos: Array, sin: Array) -> Array:
    """(a cos - b sin, b cos + a sin) of the halves a and b of each part."""
    out, first = [], 0
    for half in HALVES:
        a, b = (x[..., first + i * half :][..., :half].astype(jnp.float32) for i in (0, 1))
        c, s = cos[..., first : first + half], sin[..., first : first + half]
        out += [a * c - b * s, b * c + a * s]
        first += 2 * half
    return jnp.concatenate(out, axis=-1).astype(x.dtype)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_heads_turn_in_pairs(platform: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients, bit for bit: a number and its partner are never added to others'."""
    monkeypatch.setattr(rotary, "platform", lambda: platform)
    keys = jax.random.split(jax.random.key(0), 3)
    x, weight = (jax.random.normal(key, (ROWS, TOKENS, HEADS, 32)).astype(dtype) for key in keys[:2])
    angle = jax.random.uniform(keys[2], (ROWS, TOKENS, 1, 16), maxval=40)
    parts = np.split(np.asarray(angle), np.cumsum(HALVES)[:-1], axis=-1)
    whole = jnp.concatenate([half for part in parts for half in (part, part)], axis=-1)
    angles = jnp.cos(whole), jnp.sin(whole)

    def both(turn: Callable[..., Array]) -> tuple[Array, Array]:
        out, back = jax.vjp(lambda x: turn(x), x)
        return out, back(weight)[0]

    ours = both(lambda x: rotary.rotate(x, angles, HALVES))
    wanted = both(lambda x: of_pairs(x, *angles))
    for mine, theirs in zip(ours, wanted, strict=True):
        assert mine.dtype == dtype
        np.testing.assert_array_equal(np.asarray(mine, np.float32), np.asarray(theirs, np.float32))


@pytest.mark.parametrize(("platform", "half", "products"), [("tpu", 64, 1), ("tpu", 128, 0), ("cpu", 64, 0)])
def test_vectors_are_not_taken_apart_on_a_tpu(
    platform: str, half: int, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A permutation where a half is no whole number of vectors."""
    monkeypatch.setattr(rotary, "platform", lambda: platform)
    x, angles = jnp.ones((1, 2, 1, 2 * half)), (jnp.ones((1, 2, 1, 2 * half)),) * 2
    found = str(jax.make_jaxpr(lambda x: rotary.rotate(x, angles, (half,)))(x)).count("dot_general")
    assert found == products
