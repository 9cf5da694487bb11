"""Sessions: rows of tokens in a key/value cache that can be continued, and the sizes that share compiled programs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eve_jax.batch import ROW_MULTIPLE, RowShape
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Cache, empty_cache


def round_up(n: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `n`."""
    return -(-n // step) * step


def roomy(n: int) -> int:
    """`n` rounded up in steps of an eighth of its magnitude, at least 16; 0 stays 0."""
    return round_up(n, max(16, 2 ** max((n - 1).bit_length() - 3, 0))) if n else 0


def bucket(need: tuple[int, int, int]) -> RowShape:
    """A row shape that holds `need` (patches, specials, text tokens), roomy, so that prompts share shapes."""
    patches, specials, text = map(roomy, need)
    return RowShape(patches, specials, round_up(patches + specials + text, ROW_MULTIPLE) - patches - specials)


@dataclass
class Session:
    """Rows of one sequence each, of which the cache holds `length` (int32 [R]) tokens.

    `pending` are a row's last tokens that are not in the cache: an answer that was cut leaves one. The next prompt goes
    after them.
    """

    cache: Cache
    length: np.ndarray
    pending: list[list[int]]

    @classmethod
    def empty(cls, cfg: ModelConfig, rows: int) -> "Session":
        """A session of `rows` rows without tokens."""
        return cls(empty_cache(cfg, rows, 0), np.zeros(rows, np.int32), [[] for _ in range(rows)])

    @property
    def capacity(self) -> int:
        """Tokens of a row that the cache has room for."""
        return self.cache[1].shape[3]

    def reserve(self, tokens: int) -> None:
        """Enlarge the cache to hold `tokens` a row: at least to twice its size, since every size is compiled for."""
        if tokens > self.capacity:
            self.cache = _enlarged(self.cache, max(round_up(roomy(tokens), ROW_MULTIPLE), 2 * self.capacity))

    def mark(self) -> tuple[np.ndarray, list[list[int]]]:
        """Return what `rewind` takes to come back to the tokens of now."""
        return self.length, self.pending

    def rewind(self, mark: tuple[np.ndarray, list[list[int]]]) -> None:
        """Forget what was appended since `mark`. Its entries become zero: a masked NaN would still spread."""
        self.length, self.pending = mark
        self.cache = _cut(self.cache, self.length)


@partial(jax.jit, donate_argnums=0)
def _cut(cache: Cache, length: Array) -> Cache:
    keys, values = cache
    held = (jnp.arange(values.shape[3]) < length[:, None])[None, :, None, None]  # [1, R, 1, 1, C]
    return jnp.where(held, keys, 0), jnp.where(held.swapaxes(3, 4), values, 0)


@partial(jax.jit, static_argnums=1)
def _enlarged(cache: Cache, capacity: int) -> Cache:
    keys, values = cache
    room = capacity - values.shape[3]
    none = (0, 0)
    return jnp.pad(keys, (none, none, none, none, (0, room))), jnp.pad(values, (none, none, none, (0, room), none))


def appended(cache: Cache, recent: Cache, length: Array) -> Cache:
    """`cache` with all entries of `recent` behind the `length` [R] entries of each row, for which it must have room."""

    def behind(axis: int) -> Callable[[Array, Array, Array], Array]:
        return lambda old, new, start: jax.lax.dynamic_update_slice_in_dim(old, new, start, axis)

    keys, values = (
        jax.vmap(behind(axis), (1, 1, 0), 1)(old, new, length)
        for old, new, axis in zip(cache, recent, (3, 2), strict=True)
    )
    return keys, values
