"""Attention over packed rows in plain XLA, for any processor: queries in chunks that read only the keys they may see.

Dimensions: B rows, T queries, S keys, N heads, K key/value heads, H size of queries and keys, E of values.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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
    q: Array,
    k: Array,
    v: Array,
    segment: Array,
    seen: Array | None = None,
    within: Array | None = None,
    *,
    window: int,
    reach: int,
) -> Array:
    """Attention of whole rows; scores exist for QUERY_CHUNK queries at a time and are recomputed in the backward pass.

    seen: the last token that each sees, at most `reach` behind it; None for itself. within: `Ahead.within`.
    """
    length = q.shape[1]
    order = jnp.arange(length)
    last = order[None] if seen is None else seen
    before = jnp.maximum(window - 1, order[None] * 0 if within is None else within)
    most = window - 1 if within is None else max(window - 1, reach)

    def chunk(q, k, v, start, end):
        first = max(start - most, 0) if window else 0
        keys = slice(first, min(end + reach, length))
        mask = segment[:, start:end, None] == segment[:, None, keys]
        mask &= last[:, start:end, None] >= order[keys]
        if window:
            mask &= order[start:end, None] - order[keys] <= before[:, start:end, None]
        return plain_attention(q[:, start:end], k[:, keys], v[:, keys], mask)

    if length <= QUERY_CHUNK:
        return chunk(q, k, v, 0, length)
    chunk = jax.checkpoint(chunk, static_argnums=(3, 4))
    starts = range(0, length, QUERY_CHUNK)
    return jnp.concatenate([chunk(q, k, v, s, min(s + QUERY_CHUNK, length)) for s in starts], axis=1)
