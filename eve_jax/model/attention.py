"""Attention over packed rows: causal, never across samples; one function, a kernel for each kind of processor.

chunked   XLA, queries in chunks that read only the keys before their end: any processor
blocked   XLA, blocks of queries that read only the keys from their sample's beginning on: CPU, longer rows (blocked.py)
splash    Pallas, TPU
flash     Pallas on Triton, GPU
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from eve_jax import sharding
from eve_jax.errors import Field, FieldError
from eve_jax.model import blocked
from eve_jax.model.blocked import ATTENTION, SCOPE

QUERY_CHUNK = 512  # queries whose scores exist at one time
SPLASH_BLOCK = 512  # queries and keys of a tile, at most
LANES = 128  # the kernels' unit of length
BY_PLATFORM = {"tpu": "splash", "gpu": "flash"}


@jax.named_scope(SCOPE)
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
    kernel: str = "auto",
    interpret: bool = False,
) -> Float[Array, "B L N H"]:
    """Attention of whole rows in causal order; token i sees j <= i of its own segment (pads, segment 0, see pads).

    Memory is linear in L with every `kernel`; "auto" takes the one for the processor, where the row's length and the
    head's size suit it. `interpret` runs the Pallas kernels anywhere, slowly. Rows and heads may be sharded over the
    mesh in use.
    """
    kernel = kernel_for(kernel, sharding.platform(), q.shape[1], q.shape[3])
    if kernel in ("chunked", "blocked") and q.shape[1] > QUERY_CHUNK:
        # A scan over layers computes before its loop whatever follows from `segment` alone: the masks of all chunks or
        # blocks, in memory that grows with the square of the row. The barrier has it wait for `q`.
        q, segment = jax.lax.optimization_barrier((q, segment))
    if kernel == "chunked":
        return checkpoint_name(_chunked_attention(q, k, v, segment), ATTENTION)
    if kernel == "blocked":
        local = blocked.blocked_attention
    else:
        local = partial(_splash if kernel == "splash" else _flash, interpret=interpret)
    mesh = sharding.current()
    if mesh is not None:
        if k.shape[2] % sharding.shards(mesh, "heads"):  # a query head then lies next to a copy of its key/value head
            k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], axis=2) for x in (k, v))
        over = None if k.shape[2] % sharding.shards(mesh, "heads") else "heads"
        rows, heads = (sharding.activation_spec("batch", *rest) for rest in ((None,), (None, over, None)))
        local = jax.shard_map(local, mesh=mesh, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False)
    return checkpoint_name(local(q, k, v, segment), ATTENTION)


def check_kernel(kernel: str, platform: str) -> None:
    """Raise FieldError for a `kernel` that is made for another platform than cpu, gpu or tpu as given."""
    made_for = next((where for where, name in BY_PLATFORM.items() if name == kernel), platform)
    if made_for != platform:
        text = f"={kernel} runs on {made_for.upper()}, and these devices are {platform.upper()}: use auto"
        raise FieldError(Field("model.attention"), text)


def kernel_for(kernel: str, platform: str, length: int, head_size: int) -> str:
    """What "auto" means on `platform` for rows of `length`; any other `kernel` is itself."""
    if kernel != "auto":
        return kernel
    if platform == "cpu" and length > QUERY_CHUNK and length % blocked.BLOCK == 0:
        return "blocked"
    suits = length % LANES == 0 and head_size % 64 == 0
    return BY_PLATFORM.get(platform, "chunked") if suits else "chunked"


def _splash(q: Array, k: Array, v: Array, segment: Array, interpret: bool) -> Array:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length, heads, size = q.shape[1:]
    block = next(b for b in (SPLASH_BLOCK, 256, LANES) if length % b == 0)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,  # the fused kernel holds partial sums of dq by block of keys: the square of the row
        block_kv_dq=block,
    )
    mask = splash.MultiHeadMask([splash.CausalMask((length, length))] * heads)
    attend = splash.make_splash_mha_single_device(
        mask, block_sizes=sizes, residual_checkpoint_name=ATTENTION, interpret=interpret
    )

    def row(q: Array, k: Array, v: Array, segment: Array) -> Array:
        return attend(q, k, v, segment_ids=splash.SegmentIds(segment, segment))

    q, k, v = (x.swapaxes(1, 2) for x in (q * np.asarray(size**-0.5, q.dtype), k, v))  # heads before tokens
    return jax.vmap(row)(q, k, v, segment).swapaxes(1, 2).astype(q.dtype)


def _flash(q: Array, k: Array, v: Array, segment: Array, interpret: bool) -> Array:
    from jax.experimental.pallas.ops.gpu import attention

    groups = q.shape[2] // k.shape[2]
    k, v = (jnp.repeat(x, groups, axis=2) for x in (k, v))
    return attention.mha(q, k, v, segment, sm_scale=q.shape[3] ** -0.5, causal=True, interpret=interpret)


def _chunked_attention(q: Array, k: Array, v: Array, segment: Array) -> Array:
    """Scores exist for QUERY_CHUNK queries at a time and are recomputed in the backward pass."""
    length = q.shape[1]
    order = jnp.arange(length)

    def chunk(q, k, v, start, end):
        mask = segment[:, start:end, None] == segment[:, None, :end]
        mask &= order[start:end, None] >= order[:end]
        return plain_attention(q[:, start:end], k[:, :end], v[:, :end], mask)

    if length <= QUERY_CHUNK:
        return chunk(q, k, v, 0, length)
    chunk = jax.checkpoint(chunk, static_argnums=(3, 4))
    starts = range(0, length, QUERY_CHUNK)
    return jnp.concatenate([chunk(q, k, v, s, min(s + QUERY_CHUNK, length)) for s in starts], axis=1)


# keys, values, and the last entry that each of T new tokens sees, -1 for none
Part = tuple[Float[Array, "B K H S"], Float[Array, "B K S H"], Int[Array, "B T"]]


def cached_attention(q: Float[Array, "B T N H"], parts: list[Part]) -> Float[Array, "B T N H"]:
    """Attention of new tokens over several caches as if they were one; scores and softmax are float32.

    As `plain_attention`, but keys and values have heads before entries, and keys their size before them: products need
    no copy of a cache in another order.
    """
    rows, queries, heads, size = q.shape
    kv_heads = parts[0][0].shape[1]
    groups = heads // kv_heads
    q = q.reshape(rows, queries, kv_heads, groups, size).transpose(0, 2, 1, 3, 4)
    ends = np.cumsum([k.shape[3] for k, _, _ in parts])[:-1]

    def chunk(at: slice) -> Array:
        mine = q[:, :, at].reshape(rows, kv_heads, -1, size)
        scores = []
        for k, _, last in parts:
            hidden = jnp.arange(k.shape[3]) > jnp.repeat(last[:, at], groups, axis=1)[..., None]
            products = jnp.einsum("BKMH,BKHS->BKMS", mine, k, preferred_element_type=jnp.float32) * size**-0.5
            scores.append(jnp.where(hidden[:, None], jnp.finfo(jnp.float32).min, products))
        weights = jnp.split(jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(q.dtype), ends, axis=-1)
        outs = [jnp.einsum("BKMS,BKSH->BKMH", w, v) for w, (_, v, _) in zip(weights, parts, strict=True)]
        return sum(outs[1:], outs[0]).reshape(q[:, :, at].shape)

    starts = range(0, queries, QUERY_CHUNK)
    outs = [chunk(slice(s, min(s + QUERY_CHUNK, queries))) for s in starts]
    return jnp.concatenate(outs, axis=2).transpose(0, 2, 1, 3, 4).reshape(rows, queries, heads, size)


def blocks_attention(
    q: Float[Array, "B T N H"],
    new: Part,
    block: Callable[[Array], tuple[Float[Array, "B K H S"], Float[Array, "B K S H"]]],
    size: int,
    length: Int[Array, "B"],
) -> Float[Array, "B T N H"]:
    """`cached_attention` over `new` entries and the first `length` ones of a cache that is read block by block.

    block: keys and values of a block of `size` entries by its number. Those that no row has entries in are not read.
    Every query must see an entry of `new`.
    """
    rows, queries, heads, width = q.shape
    keys, values, last = new
    kv_heads = keys.shape[1]
    groups = heads // kv_heads
    q = q.reshape(rows, queries, kv_heads, groups, width).transpose(0, 2, 1, 3, 4)
    scale, least = width**-0.5, jnp.finfo(jnp.float32).min
    count = (jnp.max(length) + size - 1) // size

    def products(mine: Array, k: Array, hidden: Array) -> Array:
        scores = jnp.einsum("BKMH,BKHS->BKMS", mine, k, preferred_element_type=jnp.float32) * scale
        return jnp.where(hidden[:, None], least, scores)

    def weighed(scores: Array, top: Array, v: Array) -> tuple[Array, Array]:
        weights = jnp.exp(scores - top)
        out = jnp.einsum("BKMS,BKSH->BKMH", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
        return jnp.sum(weights, axis=-1, keepdims=True), out

    def chunk(at: slice) -> Array:
        mine = q[:, :, at].reshape(rows, kv_heads, -1, width)
        scores = products(mine, keys, jnp.arange(keys.shape[3]) > jnp.repeat(last[:, at], groups, axis=1)[..., None])
        top = jnp.max(scores, axis=-1, keepdims=True)

        def body(number: Array, so_far: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            top, total, out = so_far
            k, v = block(number)
            scores = products(mine, k, (number * size + jnp.arange(size) >= length[:, None])[:, None])
            now = jnp.maximum(top, jnp.max(scores, axis=-1, keepdims=True))
            more, added = weighed(scores, now, v)
            shrunk = jnp.exp(top - now)
            return now, total * shrunk + more, out * shrunk + added

        _, total, out = jax.lax.fori_loop(0, count, body, (top, *weighed(scores, top, values)))
        return (out / total).astype(q.dtype).reshape(q[:, :, at].shape)

    starts = range(0, queries, QUERY_CHUNK)
    outs = [chunk(slice(s, min(s + QUERY_CHUNK, queries))) for s in starts]
    return jnp.concatenate(outs, axis=2).transpose(0, 2, 1, 3, 4).reshape(rows, queries, heads, width)
