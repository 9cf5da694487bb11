"""Attention over packed rows in plain XLA, for any processor: queries in chunks that read only the keys they may see.

Dimensions: B rows, T queries, S keys, N heads, K key/value heads, H size of queries and keys, E of values.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from eve_jax.model.blocked import SCOPE

QUERY_CHUNK = 512  # queries whose scores exist at one time


@jax.named_scope(SCOPE)
def plain_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K E"],
    mask: Array,
) -> Float[Array, "B T N E"]:
    """softmax(q k^T / sqrt(H)) v under `mask` (bool [B, T, S]); N/K query heads share a key/value head.

    Scores and softmax are float32. A masked key contributes exactly zero, whatever it holds. Values may be of another
    size E than queries and keys.
    """
    rows, queries, heads, size = q.shape
    groups = heads // k.shape[2]
    q = q.reshape(rows, queries, k.shape[2], groups, size)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", q, k, preferred_element_type=jnp.float32) * size**-0.5
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("BKGTS,BSKH->BTKGH", weights, v).reshape(rows, queries, heads, v.shape[3])


def chunked_attention(
    q: Float[Array, "B L N H"],
    k: Float[Array, "B L K H"],
    v: Float[Array, "B L K E"],
    segment: Int[Array, "B L"],
    seen: Int[Array, "B L"] | None = None,
    within: Int[Array, "B L"] | None = None,
    *,
    window: int,
    reach: int,
) -> Float[Array, "B L N E"]:
    """Attention of whole rows; scores exist for QUERY_CHUNK queries at a time and are recomputed in the backward pass.

    seen: the last token that each sees, at most `reach` behind it; None for itself. within: `Ahead.within`.
    """
    rows, length = segment.shape
    order = jnp.broadcast_to(jnp.arange(length), (rows, length))
    most = window - 1 if within is None else max(window - 1, reach)  # keys before a query that it may see
    before = jnp.maximum(window - 1, 0 if within is None else within) if window else order
    queries = _Seen(segment, order, order if seen is None else seen, jnp.broadcast_to(before, order.shape))
    width = most + QUERY_CHUNK + reach
    if window and length % QUERY_CHUNK == 0 and width < length:
        return _by_windows(q, k, v, queries, (most, width))

    def chunk(q: Array, k: Array, v: Array, start: int, end: int) -> Array:
        keys = slice(max(start - most, 0) if window else 0, min(end + reach, length))
        own = queries.cut(slice(start, end))
        return plain_attention(q[:, start:end], k[:, keys], v[:, keys], own.mask(segment[:, keys], order[:, keys]))

    if length <= QUERY_CHUNK:
        return chunk(q, k, v, 0, length)
    by_chunk = jax.checkpoint(chunk, static_argnums=(3, 4))
    starts = range(0, length, QUERY_CHUNK)
    return jnp.concatenate([by_chunk(q, k, v, s, min(s + QUERY_CHUNK, length)) for s in starts], axis=1)


class _Seen(NamedTuple):
    """What queries see: keys of their sample, up to `last`, at most `before` before themselves."""

    segment: Int[Array, "B T"]
    order: Int[Array, "B T"]
    last: Int[Array, "B T"]
    before: Int[Array, "B T"]

    def cut(self, at: slice) -> "_Seen":
        return _Seen(*(part[:, at] for part in self))

    def mask(self, segment: Int[Array, "B S"], order: Int[Array, "B S"]) -> Bool[Array, "B T S"]:
        """Which of the keys of `segment`, at `order` in their rows, each query sees."""
        mine = _Seen(*(part[..., None] for part in self))
        same = mine.segment == segment[:, None]
        return same & (mine.last >= order[:, None]) & (mine.order - order[:, None] <= mine.before)


def _by_windows(q: Array, k: Array, v: Array, queries: _Seen, sizes: tuple[int, int]) -> Float[Array, "B L N E"]:
    """`chunked_attention` of windows as a loop, whose program is of one chunk: each reads as many keys.

    sizes: keys before the first query of a chunk, and of all. Keys before and behind the row are of no sample.
    """
    (most, width), length = sizes, q.shape[1]
    ends = (most, width - most - QUERY_CHUNK)
    k, v = (jnp.pad(x, ((0, 0), ends, (0, 0), (0, 0))) for x in (k, v))
    segment = jnp.pad(queries.segment, ((0, 0), ends), constant_values=-1)

    @jax.checkpoint
    def chunk(start: Int[Array, ""]) -> Float[Array, "B T N E"]:
        own = _Seen(*(jax.lax.dynamic_slice_in_dim(part, start, QUERY_CHUNK, 1) for part in queries))
        near = jax.lax.dynamic_slice_in_dim(segment, start, width, 1)
        order = jnp.broadcast_to(start - most + jnp.arange(width), near.shape)
        keys, values = (jax.lax.dynamic_slice_in_dim(x, start, width, 1) for x in (k, v))
        mine = jax.lax.dynamic_slice_in_dim(q, start, QUERY_CHUNK, 1)
        return plain_attention(mine, keys, values, own.mask(near, order))

    out = jax.lax.map(chunk, jnp.arange(0, length, QUERY_CHUNK))
    return jnp.moveaxis(out, 0, 1).reshape(q.shape[0], length, *out.shape[3:])
