"""Dropout whose choices follow from a key alone: the same on every mesh, and again when a run resumes.

What is traced within `use(key)` leaves values out, each call in its turn; without one, nothing is left out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax
import jax.numpy as jnp
from jax import Array


class _Keys:
    """Keys made of one, a new one each time."""

    def __init__(self, key: Array) -> None:
        self._key, self._made = key, 0

    def next(self) -> Array:
        """Return the next key."""
        self._made += 1
        return jax.random.fold_in(self._key, self._made)


_KEYS: ContextVar[_Keys | None] = ContextVar("dropout", default=None)


@contextmanager
def use(key: Array | None) -> Iterator[None]:
    """Leave values out by `key` in what is traced meanwhile; None: nothing."""
    token = _KEYS.set(None if key is None else _Keys(key))
    try:
        yield
    finally:
        _KEYS.reset(token)


def layer_keys(layers: int) -> Array | None:
    """Return a key for each of `layers` layers, [layers]; None where nothing is left out."""
    keys = _KEYS.get()
    return None if keys is None else jax.random.split(keys.next(), layers)


def dropped(x: Array, rate: float) -> Array:
    """Return `x` with a share `rate` of its values 0, and the others as much larger."""
    keys = _KEYS.get()
    if keys is None or not rate:
        return x
    return jnp.where(jax.random.bernoulli(keys.next(), 1 - rate, x.shape), x / (1 - rate), 0).astype(x.dtype)
