"""Attention over packed rows that does not compute what the mask would throw away, for processors that branch (CPU).

Queries go in blocks, row after row. A block reads the keys from the beginning of its first query's sample on, in one of
a few sizes of window, of which each is a branch of the program. Scores exist for one block at a time and are computed
again in the backward pass, so memory is linear in the row's length.

Dimensions: B rows, L tokens, K key/value heads, G query heads for each, T queries of a block, S keys of a window, H of
queries and keys, E of values.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

ATTENTION = "attention"  # name under which remat policies know the output
SCOPE = "attention_by_rows"  # in the names of its products in a compiled program
BLOCK = 128  # queries and keys
MASKED = float(np.finfo(np.float32).min)  # score of a key that is not seen


def blocked_attention(
    q: Float[Array, "B L N H"],
    k: Float[Array, "B L K H"],
    v: Float[Array, "B L K E"],
    segment: Int[Array, "B L"],
    end: Int[Array, "B L"] | None = None,
    *,
    window: int = 0,
) -> Float[Array, "B L N E"]:
    """softmax(q k^T / sqrt(H)) v where token i sees j <= i of its own segment; L is a multiple of BLOCK.

    With `window` > 0 it sees the last `window` of them, itself included; with `end` it sees j <= end(i).

    Scores, softmax and the sums of gradients over blocks are float32.
    """
    rows, length, heads, size = q.shape
    q = q.reshape(rows, length, k.shape[2], heads // k.shape[2], size).transpose(0, 2, 3, 1, 4)
    out = _attend(q, k.swapaxes(1, 2), v.swapaxes(1, 2), Seen(segment, end), window)
    return out.transpose(0, 3, 1, 2, 4).reshape(rows, length, heads, -1)


class Seen(NamedTuple):
    """What the tokens of rows see: those of their `segment`, up to `end`, where that is None up to themselves."""

    segment: Int[Array, "*B L"]
    end: Int[Array, "*B L"] | None


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(
    q: Float[Array, "B K G L H"],
    k: Float[Array, "B K L H"],
    v: Float[Array, "B K L E"],
    seen: Seen,
    window: int,
) -> Float[Array, "B K G L E"]:
    return _forward(q, k, v, seen, window)[0]


def _forward(q: Array, k: Array, v: Array, seen: Seen, window: int) -> tuple[Array, tuple[Any, ...]]:
    forward: Callable[..., Any] = partial(_row_forward, window=window)
    out, log_total = jax.lax.map(lambda row: forward(*row), (q, k, v, seen))
    out, log_total = checkpoint_name(out, ATTENTION), checkpoint_name(log_total, ATTENTION)
    return out, (q, k, v, seen, out, log_total)


def _backward(window: int, saved: tuple[Any, ...], d_out: Array) -> tuple[Array, Array, Array, None]:
    backward: Callable[..., Any] = partial(_row_backward, window=window)
    return *jax.lax.map(lambda row: backward(*row), (*saved, d_out)), None


_attend.defvjp(_forward, _backward)


def window_sizes(blocks: int, window: int = 0) -> list[int]:
    """Sizes of windows in blocks, each a block or a quarter larger than the one before, up to the whole row, or to what
    the queries of a block see of the last `window` tokens."""
    if window:
        blocks = min(blocks, -(-(window - 1) // BLOCK) + 1)
    sizes = [1]
    while sizes[-1] < blocks:
        sizes.append(min(max(sizes[-1] + 1, sizes[-1] * 5 // 4), blocks))
    return sizes


def _windows(seen: Seen, window: int) -> tuple[Array, Array, Array]:
    """For each block of a row: its number, which of `window_sizes` it reads, and where that window begins."""
    segment = seen.segment
    blocks = len(segment) // BLOCK
    changed = jnp.concatenate([jnp.ones(1, bool), segment[1:] != segment[:-1]])
    first = jax.lax.cummax(jnp.where(changed, jnp.arange(len(segment)), 0))  # token of each token's sample
    if window:
        first = jnp.maximum(first, jnp.arange(len(segment)) - window + 1)
    number = jnp.arange(blocks)
    sizes = jnp.array(window_sizes(blocks, window))
    behind = number + 1 if seen.end is None else seen.end.reshape(blocks, BLOCK).max(axis=1) // BLOCK + 1
    needed = behind - first[::BLOCK] // BLOCK
    which = jnp.sum(sizes < needed[:, None], axis=1)
    return number, which, jnp.maximum(behind - sizes[which], 0) * BLOCK


class _Place(NamedTuple):
    """A block of queries and its window of keys. window: how many tokens a query sees, 0 for all."""

    number: Array
    start: Array
    window: int


def _seen(seen: Seen, at: _Place, length: int, keys_first: bool) -> Bool[Array, "..."]:
    """Which keys of the window of `length` the queries of the block `at` see: [T, S], or [S, T]."""
    segment = seen.segment
    order = at.number * BLOCK + jnp.arange(BLOCK)
    own = jax.lax.dynamic_slice_in_dim(segment, at.number * BLOCK, BLOCK)
    last = order if seen.end is None else jax.lax.dynamic_slice_in_dim(seen.end, at.number * BLOCK, BLOCK)
    keys = jax.lax.dynamic_slice_in_dim(segment, at.start, length), at.start + jnp.arange(length)
    if keys_first:
        visible = (keys[0][:, None] == own) & (keys[1][:, None] <= last)
        return visible & (order - keys[1][:, None] < at.window) if at.window else visible
    visible = (own[:, None] == keys[0]) & (last[:, None] >= keys[1])
    return visible & (order[:, None] - keys[1] < at.window) if at.window else visible


def _block(x: Array, number: Array, axis: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, number * BLOCK, BLOCK, axis)[None]


def _joined(blocks: Array) -> Array:
    """[n, K, G, T, ...] -> [K, G, L, ...]."""
    moved = jnp.moveaxis(blocks, 0, 2)
    return moved.reshape(*moved.shape[:2], -1, *moved.shape[4:])


@jax.named_scope(SCOPE)
def _row_forward(
    q: Float[Array, "K G L H"],
    k: Float[Array, "K L H"],
    v: Float[Array, "K L E"],
    seen: Seen,
    window: int,
) -> tuple[Float[Array, "K G L E"], Float[Array, "K G L"]]:
    """A row's output, and the logarithm of each query's sum of exponentials."""

    def block(_: None, at: tuple[Array, Array, Array]) -> tuple[None, tuple[Array, Array]]:
        number, which, start = at
        mine = _block(q, number, 2)

        def attend(size: int) -> tuple[Array, Array]:
            keys, values = (jax.lax.dynamic_slice_in_dim(x, start, size, 1)[None] for x in (k, v))
            scores = (
                jnp.einsum("BKGTH,BKSH->BKGTS", mine, keys, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
            )
            scores = jnp.where(_seen(seen, _Place(number, start, window), size, False), scores, MASKED)
            peak = scores.max(axis=-1, keepdims=True)
            weights = jnp.exp(scores - peak)
            total = weights.sum(axis=-1, keepdims=True)
            out = jnp.einsum("BKGTS,BKSH->BKGTH", weights.astype(v.dtype), values, preferred_element_type=jnp.float32)
            return (out / total)[0].astype(q.dtype), (peak + jnp.log(total))[0, ..., 0]

        return None, _by_size(which, window_sizes(len(seen.segment) // BLOCK, window), attend)

    _, (out, log_total) = jax.lax.scan(block, None, _windows(seen, window))
    return _joined(out), _joined(log_total)


@jax.named_scope(SCOPE)
def _row_backward(
    q: Array, k: Array, v: Array, seen: Seen, out: Array, log_total: Array, d_out: Array, window: int
) -> tuple[Array, Array, Array]:
    """Gradients of a row's q, k and v.

    Scores are transposed, [K, S, M] for the M = G T queries of a block: every product then contracts axes that lie as
    it requires them, and only blocks of q and windows of k are copied in another order.
    """
    delta = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1)
    kv_heads, groups, _, size = q.shape

    def block(carry: tuple[Array, Array], at: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        number, which, start = at
        mine, d_mine = (_block(x, number, 2).reshape(kv_heads, -1, x.shape[-1]) for x in (q, d_out))
        log_sum, shift = (_block(x, number, 2).reshape(kv_heads, 1, -1) for x in (log_total, delta))

        def attend(length: int) -> tuple[tuple[Array, Array], Array]:
            keys, values = (jax.lax.dynamic_slice_in_dim(x, start, length, 1) for x in (k, v))
            visible = _seen(seen, _Place(number, start, window), length, True)[:, None]
            scores = jnp.einsum("KSH,KMH->KSM", keys, mine, preferred_element_type=jnp.float32) * size**-0.5
            scores = (scores - log_sum).reshape(kv_heads, length, groups, BLOCK)
            weights = jnp.exp(jnp.where(visible, scores, MASKED)).reshape(kv_heads, length, -1)
            d_weights = jnp.einsum("KSE,KME->KSM", values, d_mine, preferred_element_type=jnp.float32)
            d_scores = (weights * (d_weights - shift) * size**-0.5).astype(q.dtype)
            d_keys = jnp.einsum("KSM,KMH->KSH", d_scores, mine, preferred_element_type=jnp.float32)
            d_values = jnp.einsum("KSM,KME->KSE", weights.astype(v.dtype), d_mine, preferred_element_type=jnp.float32)
            added = [
                jax.lax.dynamic_update_slice_in_dim(
                    sums, jax.lax.dynamic_slice_in_dim(sums, start, length, 1) + more, start, 1
                )
                for sums, more in zip(carry, (d_keys, d_values), strict=True)
            ]
            return (added[0], added[1]), jnp.einsum("KSH,KSM->KHM", keys, d_scores)

        sums, d_mine = _by_size(which, window_sizes(len(seen.segment) // BLOCK, window), attend)
        return sums, d_mine.swapaxes(1, 2).reshape(kv_heads, groups, BLOCK, size)

    zero = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    (d_k, d_v), d_q = jax.lax.scan(block, zero, _windows(seen, window))
    return _joined(d_q), d_k.astype(k.dtype), d_v.astype(v.dtype)


def _by_size(which: Array, sizes: list[int], attend: Callable[[int], Any]) -> Any:
    """attend(tokens) of size number `which` of `sizes` in blocks."""
    branches = [lambda s=size: attend(s * BLOCK) for size in sizes]
    return jax.lax.switch(which, branches)
