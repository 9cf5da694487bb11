"""Keys and values of a layer: of rows that grow, and of rows that are only read, as far as they have entries."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eve_jax.model.attention import Part, blocks_attention, cached_attention
from eve_jax.model.config import ModelConfig

BLOCK = 128  # entries of a cache that are read at a time


class LayerCache(NamedTuple):
    """A layer's place in the keys [layers, R, K, H, C] and values [layers, R, K, C, H] of several: updated there.

    fold: number and size of its heads, where a head is kept as several of size H, and K is more than they are.
    """

    keys: Array
    values: Array
    layer: Array | int
    fold: tuple[int, int] | None = None

    def read(self, dtype: jnp.dtype) -> tuple[Float[Array, "R K H C"], Float[Array, "R K C H"]]:
        """The layer's own keys and values."""
        keys, values = (jax.lax.dynamic_index_in_dim(x, self.layer, keepdims=False) for x in (self.keys, self.values))
        return _unfolded(keys, -2, self.fold).astype(dtype), _unfolded(values, -1, self.fold).astype(dtype)

    def append(
        self, k: Float[Array, "R T K H"], v: Float[Array, "R T K H"], start: Int[Array, "R"] | Int[Array, ""]
    ) -> "LayerCache":
        """With new entries of the layer from `start` on, which is one for all rows or each row's own."""

        def put(old: Array, new: Array, axis: int) -> Array:
            new = new.astype(old.dtype)
            if not start.ndim:
                place = [self.layer, *[0] * (old.ndim - 1)]
                place[axis] = start
                return jax.lax.dynamic_update_slice(old, new[None], place)
            # In the layer's own slice: with the rows of all layers, XLA would copy them in another order.
            at = partial(jax.lax.dynamic_update_slice_in_dim, axis=axis)
            own = jax.lax.dynamic_index_in_dim(old, self.layer, keepdims=False)
            return jax.lax.dynamic_update_index_in_dim(old, jax.vmap(at)(own, new, start), self.layer, 0)

        heads, size = self.keys.shape[2:4]
        k, v = (_folded(x, heads, size) if self.fold else x for x in (k, v))
        return self._replace(
            keys=put(self.keys, k.transpose(0, 2, 3, 1), -1), values=put(self.values, v.swapaxes(1, 2), -2)
        )

    def attend(
        self, q: Float[Array, "R T N H"], length: Int[Array, "R"], first: Int[Array, "R T"] | None, new: Part
    ) -> Float[Array, "R T N H"]:
        """Attention of new tokens over the `length` entries of their rows, from `first` on, and over `new` ones."""
        return cached_attention(q, [(*self.read(q.dtype), length[:, None] - 1, first), new])


def _folded(x: Float[Array, "R T N E"], heads: int, size: int) -> Float[Array, "R T K H"]:
    """Heads of another size as `heads` of `size`, with zeros for those that there are more."""
    x = x.reshape(*x.shape[:2], -1, size)
    return jnp.pad(x, ((0, 0), (0, 0), (0, heads - x.shape[2]), (0, 0)))


def _unfolded(x: Array, axis: int, fold: tuple[int, int] | None) -> Array:
    """Keys [R, K, H, C] or values [R, K, C, H], whose heads have their size on `axis`, as before `_folded`."""
    if fold is None:
        return x
    heads, size = fold
    parts = size // x.shape[axis]
    x = x[:, : heads * parts].reshape(x.shape[0], heads, parts, *x.shape[2:])
    x = jnp.moveaxis(x, 2, axis - 1)  # next to the numbers of a part
    return x.reshape(*x.shape[:2], *((size, x.shape[-1]) if axis == -2 else (x.shape[2], size)))


class HeldLayer(NamedTuple):
    """A layer of a cache that is only read: the rows `slots` int32 [R] of it, all of them where that is None."""

    keys: Array
    values: Array
    layer: Array | int
    slots: Array | None
    fold: tuple[int, int] | None = None  # as of a `LayerCache`

    def attend(
        self, q: Float[Array, "R T N H"], length: Int[Array, "R"], first: Int[Array, "R T"] | None, new: Part
    ) -> Float[Array, "R T N H"]:
        """As `LayerCache.attend`; only as many blocks of the cache are read as the longest row has entries in."""

        def block(number: Array) -> tuple[Float[Array, "R K H C"], Float[Array, "R K C H"]]:
            keys, values = self._block(self.keys, 4, number, q.dtype), self._block(self.values, 3, number, q.dtype)
            return _unfolded(keys, -2, self.fold), _unfolded(values, -1, self.fold)

        return blocks_attention(q, new, block, BLOCK, (length, first))

    def _block(self, x: Array, axis: int, number: Array, dtype: jnp.dtype) -> Array:
        sizes = [1, *x.shape[1:]]
        sizes[axis] = BLOCK
        at: list[Any] = [self.layer, 0, 0, 0, 0]
        at[axis] = number * BLOCK
        if self.slots is None:
            return jax.lax.dynamic_slice(x, at, sizes)[0].astype(dtype)
        sizes[1] = 1
        rows = [jax.lax.dynamic_slice(x, [at[0], slot, *at[2:]], sizes)[0] for slot in self.slots]
        return jnp.concatenate(rows).astype(dtype)


def empty_cache(cfg: ModelConfig, rows: int, capacity: int) -> tuple[Array, Array]:
    """Return zeroed keys and values of all layers for `rows` rows of up to `capacity` tokens, in `cfg.dtype`."""
    outer = cfg.num_layers, rows, cfg.num_kv_heads
    return (
        jnp.zeros((*outer, cfg.qk_dim, capacity), cfg.dtype),
        jnp.zeros((*outer, capacity, cfg.head_dim), cfg.dtype),
    )
