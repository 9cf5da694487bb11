"""Attention over packed rows: causal, never across samples."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

QUERY_CHUNK = 512  # queries whose scores exist at one time


def plain_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    mask: Array,
) -> Float[Array, "B T N H"]:
    """softmax(q k^T / sqrt(H)) v under `mask` (bool [B, T, S]); N/K query heads share a key/value head.

    Scores and softmax are float32. A masked key contributes exactly zero, whatever it holds.
    """
    rows, queries, heads, size = q.shape
    groups = heads // k.shape[2]
    q = q.reshape(rows, queries, k.shape[2], groups, size)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", q, k, preferred_element_type=jnp.float32) * size**-0.5
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("BKGTS,BSKH->BTKGH", weights, v).reshape(rows, queries, heads, size)


def packed_attention(
    q: Float[Array, "B L N H"],
    k: Float[Array, "B L K H"],
    v: Float[Array, "B L K H"],
    segment: Int[Array, "B L"],
) -> Float[Array, "B L N H"]:
    """Attention of whole rows in causal order; token i sees j <= i of its own segment (pads, segment 0, see pads).

    Queries go in chunks that read only the keys before their end; scores are recomputed in the backward pass, so
    memory is linear in L.
    """
    length = q.shape[1]
    order = jnp.arange(length)

    def chunk(q, k, v, start, end):
        mask = segment[:, start:end, None] == segment[:, None, :end]
        mask &= order[start:end, None] >= order[:end]
        return plain_attention(q, k, v, mask)

    if length <= QUERY_CHUNK:
        return chunk(q, k, v, 0, length)
    chunk = jax.checkpoint(chunk, static_argnums=(3, 4))
    ends = range(QUERY_CHUNK, length + QUERY_CHUNK, QUERY_CHUNK)
    return jnp.concatenate(
        [chunk(q[:, e - QUERY_CHUNK : e], k[:, :e], v[:, :e], e - QUERY_CHUNK, min(e, length)) for e in ends], axis=1
    )


def cached_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    position: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """Attention of new tokens at `position` over a cache in causal order: each sees the entries up to its own."""
    entries = jnp.arange(k.shape[1])
    outs = []
    for start in range(0, q.shape[1], QUERY_CHUNK):
        part = slice(start, start + QUERY_CHUNK)
        outs.append(plain_attention(q[:, part], k, v, position[:, part, None] >= entries))
    return outs[0] if len(outs) == 1 else jnp.concatenate(outs, axis=1)
