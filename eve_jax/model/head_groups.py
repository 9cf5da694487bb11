"""Attention heads for a mesh with more parts than a model has key/value heads, or whose parts do not divide its heads.

Each key/value head is copied until the parts divide their number, and its query heads are divided among the copies,
filled up with heads of zeros, so that every part holds the key/value heads of its query heads and no others.

Dimensions: B rows, L tokens, N query heads, K key/value heads, H.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float


def grouped_heads(heads: int, kv_heads: int, parts: int) -> tuple[int, int]:
    """Numbers of query and key/value heads, of which `parts` divides both; those given where it does already."""
    copies = parts // math.gcd(parts, kv_heads)
    if copies == 1:
        return heads, kv_heads
    return kv_heads * copies * -(-heads // (kv_heads * copies)), kv_heads * copies


def spread(
    q: Float[Array, "B L N H"], k: Float[Array, "B L K H"], v: Float[Array, "B L K H"], parts: int
) -> tuple[Array, Array, Array]:
    """q, k and v with the heads of `grouped_heads`; themselves where those are the same."""
    rows, length, heads, size = q.shape
    kv_heads = k.shape[2]
    new, new_kv = grouped_heads(heads, kv_heads, parts)
    if new_kv == kv_heads:
        return q, k, v
    each = heads // kv_heads
    q = jnp.pad(q.reshape(rows, length, kv_heads, each, size), ((0, 0),) * 3 + ((0, new // kv_heads - each), (0, 0)))
    k, v = (jnp.repeat(x, new_kv // kv_heads, axis=2) for x in (k, v))
    return q.reshape(rows, length, new, size), k, v


def gathered_heads(out: Float[Array, "B L M H"], heads: int, kv_heads: int) -> Float[Array, "B L N H"]:
    """The outputs of the `heads` query heads that `spread` made M of; `kv_heads` as they were before."""
    if out.shape[2] == heads:
        return out
    rows, length, new, size = out.shape
    by_group = out.reshape(rows, length, kv_heads, new // kv_heads, size)
    return by_group[:, :, :, : heads // kv_heads].reshape(rows, length, heads, size)
