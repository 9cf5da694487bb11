"""Sessions: rows of tokens in a key/value cache that can be continued, and the sizes that share compiled programs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from eve_jax.batch import ROW_MULTIPLE, RowShape
from eve_jax.infer.prompt import Held
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Cache
from eve_jax.model.layer_cache import empty_cache
from eve_jax.sharding import batch_parts, constrain, use

T = TypeVar("T")


def round_up(n: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `n`."""
    return -(-n // step) * step


def roomy(n: int) -> int:
    """`n` rounded up in steps of an eighth of its magnitude, at least 16; 0 stays 0."""
    return round_up(n, max(16, 2 ** max((n - 1).bit_length() - 3, 0))) if n else 0


def bucket(need: tuple[int, int, int], multiple: int = ROW_MULTIPLE, snug: bool = False) -> RowShape:
    """A row shape that holds `need` (patches, specials, text tokens), roomy, so that prompts share shapes.

    Its length is a multiple of `multiple`, by default of what the kernels of training take. `snug`: each number is
    rounded up in steps of 8 alone.
    """
    patches, specials, text = (round_up(n, 8) if snug else roomy(n) for n in need)
    return RowShape(patches, specials, round_up(patches + specials + text, multiple) - patches - specials)


@dataclass
class Session:
    """Rows of one sequence each, of which the cache holds `length` (int32 [R]) tokens, and what else `held` says.

    `pending` are a row's last tokens that are not in the cache: an answer that was cut leaves one. The next prompt goes
    after them. `mesh`: what the cache is sharded over, rows and heads. `text`: all text tokens of each row, those of
    answers included, which a repetition penalty looks at.
    """

    cache: Cache
    held: Held
    pending: list[list[int]]
    mesh: Mesh | None = None
    text: list[list[int]] = field(default_factory=list)

    @classmethod
    def empty(cls, cfg: ModelConfig, rows: int, mesh: Mesh | None = None) -> "Session":
        """A session of `rows` rows without tokens; on a mesh, of as many rows as fill all its parts."""
        rows = round_up(rows, batch_parts(mesh))
        cache = empty_cache(cfg, rows, 0) if mesh is None else _empty(cfg, rows, mesh)
        return cls(cache, Held.nothing(rows), [[] for _ in range(rows)], mesh, [[] for _ in range(rows)])

    @property
    def length(self) -> np.ndarray:
        """Tokens of each row."""
        return self.held.length

    @property
    def rows(self) -> int:
        """Rows of the cache, those included that only fill up a mesh."""
        return len(self.length)

    @property
    def capacity(self) -> int:
        """Tokens of a row that the cache has room for."""
        return self.cache[1].shape[3]

    def reserve(self, tokens: int) -> None:
        """Enlarge the cache to hold `tokens` a row: at least to twice its size, since every size is compiled for."""
        if tokens > self.capacity:
            self.cache = _enlarged(self.cache, max(_roomy_cache(tokens), 2 * self.capacity), self.mesh)

    def mark(self) -> tuple[Held, list[list[int]], list[list[int]]]:
        """Return what `rewind` takes to come back to the tokens of now."""
        return self.held, self.pending, [list(ids) for ids in self.text]

    def rewind(self, mark: tuple[Held, list[list[int]], list[list[int]]]) -> None:
        """Forget what was appended since `mark`. Its entries become zero: a masked NaN would still spread."""
        self.held, self.pending, self.text = mark
        self.cache = _cut(self.cache, self.length, self.mesh)


def filled(items: Sequence[T], count: int) -> list[T]:
    """`items` and as many copies of the last one as make them `count`."""
    return [*items, *[items[-1]] * (count - len(items))]


def placed(cache: Cache) -> Cache:
    """`cache` with rows and heads sharded over the mesh in use; heads are replicated where it does not divide them."""
    keys, values = (constrain(x, None, "batch", "heads", None, None) for x in cache)
    return keys, values


def _roomy_cache(tokens: int) -> int:
    return round_up(roomy(tokens), ROW_MULTIPLE)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _empty(cfg: ModelConfig, rows: int, mesh: Mesh) -> Cache:
    with use(mesh):
        return placed(empty_cache(cfg, rows, 0))


@partial(jax.jit, static_argnums=2, donate_argnums=0)
def _cut(cache: Cache, length: Array, mesh: Mesh | None) -> Cache:
    keys, values = cache
    held = (jnp.arange(values.shape[3]) < length[:, None])[None, :, None, None]  # [1, R, 1, 1, C]
    with use(mesh):
        return placed((jnp.where(held, keys, 0), jnp.where(held.swapaxes(3, 4), values, 0)))


@partial(jax.jit, static_argnums=(1, 2))
def _enlarged(cache: Cache, capacity: int, mesh: Mesh | None) -> Cache:
    """`cache` with room for `capacity` tokens a row: zeros behind its entries."""
    keys, values = cache
    room, none = capacity - values.shape[3], (0, 0)
    with use(mesh):
        return placed(
            (
                jnp.pad(keys, (none, none, none, none, (0, room))),
                jnp.pad(values, (none, none, none, (0, room), none)),
            )
        )


def appended(cache: Cache, recent: Cache, length: Array) -> Cache:
    """`cache` with all entries of `recent` behind the `length` [R] entries of each row, for which it must have room."""

    def behind(axis: int) -> Callable[[Array, Array, Array], Array]:
        return lambda old, new, start: jax.lax.dynamic_update_slice_in_dim(old, new, start, axis)

    keys, values = (  # a layer's rows by themselves: those of all layers, XLA would copy in another order
        jax.vmap(jax.vmap(behind(axis)), (0, 0, None))(old, new, length)
        for old, new, axis in zip(cache, recent, (2, 1), strict=True)
    )
    return keys, values
