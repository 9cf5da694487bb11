"""Attention over packed rows, never across samples; one function, a kernel for each kind of processor.

A token sees those before it and itself; with `Ahead` also later ones, of its own image.

chunked   XLA, queries in chunks that read only the keys before their end: any processor
blocked   XLA, blocks of queries that read only the keys from their sample's beginning on: CPU, longer rows (blocked.py)
splash    Pallas, TPU (splash.py)
flash     Pallas on Triton, GPU (gpu_attention.py)
cudnn     cuDNN, GPU from Hopper on (gpu_attention.py)
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from eve_jax import sharding
from eve_jax.errors import Field, FieldError
from eve_jax.model import blocked, chunked, gpu_attention
from eve_jax.model.blocked import ATTENTION
from eve_jax.model.config import ModelConfig
from eve_jax.model.head_groups import gathered_heads, spread
from eve_jax.model.splash import Tiles, splash
from eve_jax.model.splash_blocks import LANES, Kernel

BY_PLATFORM = {"tpu": "splash", "gpu": "flash"}
MADE_FOR = {"splash": "tpu", "flash": "gpu", "cudnn": "gpu"}


class Ahead(NamedTuple):
    """What tokens see behind themselves: up to token `end` of their row; `reach` is the most that lie between.

    within: how many tokens of their image are before them, which they see whatever the window; None where no image is
    longer than that.
    """

    end: Int[Array, "B L"]
    reach: int
    within: Int[Array, "B L"] | None = None


def packed_attention(
    q: Float[Array, "B L N H"],
    k: Float[Array, "B L K H"],
    v: Float[Array, "B L K E"],
    segment: Int[Array, "B L"],
    kernel: str | Kernel = "auto",
    interpret: bool = False,
    window: int = 0,
    ahead: Ahead | None = None,
) -> Float[Array, "B L N E"]:
    """Attention of whole rows in causal order; token i sees j <= i of its own segment (pads, segment 0, see pads).

    With `window` > 0 it sees the last `window` of them, itself included; with `ahead` it sees j <= end(i).

    Memory is linear in L with every `kernel`; "auto" takes the one for the processor, where the row's length and the
    head's size suit it. `interpret` runs the Pallas kernels anywhere, slowly. Rows and heads may be sharded over the
    mesh in use.
    """
    capability = gpu_attention.compute_capability()
    suits = gpu_attention.takes(q.dtype, q.shape[3], capability)
    plain = ahead is None and q.shape[3] == v.shape[3]
    name, blocks = kernel if isinstance(kernel, Kernel) else Kernel(kernel)
    if ahead is not None and window:
        name = _of_two_limits(name)
    kernel = kernel_for(name, sharding.platform(), q.shape[1], q.shape[3], suits, window, plain)
    if kernel in ("chunked", "blocked") and q.shape[1] > chunked.QUERY_CHUNK:
        # A scan over layers computes before its loop whatever follows from `segment` alone: the masks of all chunks or
        # blocks, in memory that grows with the square of the row. The barrier has it wait for `q`.
        q, segment = jax.lax.optimization_barrier((q, segment))
    reach = ahead.reach if ahead else 0
    kernels: dict[str, Callable[..., Array]] = {
        "chunked": partial(chunked.chunked_attention, window=window, reach=reach),
        "blocked": partial(blocked.blocked_attention, window=window),
        "splash": partial(splash, interpret=interpret, tiles=Tiles(window, reach, blocks)),
        "flash": partial(gpu_attention.flash, capability=capability, interpret=interpret),
        "cudnn": partial(gpu_attention.cudnn, capability=capability),
    }
    attend = kernels[kernel]
    of_rows: tuple[Array, ...] = (segment,) if ahead is None else (segment, ahead.end)
    if ahead is not None and window and ahead.within is not None:
        of_rows = (segment, ahead.end, ahead.within)
    mesh, heads, kv_heads = sharding.current(), q.shape[2], k.shape[2]
    if mesh is not None:
        q, k, v = spread(q, k, v, sharding.shards(mesh, "heads"))
        if kernel == "chunked":  # of any number of rows
            q, k, v = (sharding.constrain(x, "batch", None, "heads", None) for x in (q, k, v))
        else:
            rows, by_head = (sharding.activation_spec("batch", *rest) for rest in ((None,), (None, "heads", None)))
            places = (by_head, by_head, by_head, *(rows for _ in of_rows))
            attend = jax.shard_map(attend, mesh=mesh, in_specs=places, out_specs=by_head, check_vma=False)
    out = gathered_heads(attend(q, k, v, *of_rows), heads, kv_heads)
    return checkpoint_name(out, ATTENTION) if kernel == "chunked" else out  # others name what they save themselves


def _of_two_limits(kernel: str) -> str:
    """The kernel for queries with two limits, a window behind and an image ahead. Raises FieldError for others."""
    if kernel not in ("auto", "chunked"):
        text = f"={kernel} has no local windows next to images that see themselves ("
        raise FieldError(Field("model.attention"), text, Field("model.image_attention"), "): use auto")
    return "chunked"


def check_kernel(cfg: ModelConfig, mesh: Mesh) -> None:
    """Raise FieldError where `cfg.attention` is a kernel that does not run on the devices of `mesh`."""
    kernel, field = cfg.attention, Field("model.attention")
    with sharding.use(mesh):
        platform, capability = sharding.platform(), gpu_attention.compute_capability()
    if MADE_FOR.get(kernel, platform) != platform:
        text = f"={kernel} runs on {MADE_FOR[kernel].upper()}, and these devices are {platform.upper()}: use auto"
        raise FieldError(field, text)
    if kernel == "cudnn" and not gpu_attention.takes(jnp.dtype(cfg.dtype), cfg.head_dim, capability):
        card = ".".join(map(str, capability))
        text = (
            f"=cudnn takes bfloat16, heads of a multiple of 8 up to 256, cards from compute capability 9.0 on; this "
            f"is {cfg.dtype}, {cfg.head_dim} and {card}: use auto"
        )
        raise FieldError(field, text)


def kernel_for(
    kernel: str,
    platform: str,
    length: int,
    head_size: int,
    cudnn: bool = False,
    window: int = 0,
    plain: bool = True,
) -> str:
    """What "auto" means on `platform` for rows of `length`; any other `kernel` is itself.

    cudnn: whether it takes such heads there (`gpu_attention.takes`). plain: causal, and queries, keys and values of one
    size. Raises FieldError for a kernel that has no local `window`, or is for plain attention alone.
    """
    if kernel in ("flash", "cudnn") and not plain:
        raise FieldError(
            Field("model.attention"),
            f"={kernel} is for causal attention with heads of one size (",
            Field("model.image_attention"),
            "=causal, ",
            Field("model.rope"),
            "=1d or sections): use auto",
        )
    if kernel in ("flash", "cudnn") and window:
        raise FieldError(
            Field("model.attention"),
            f"={kernel} has no local windows (",
            Field("model.window"),
            f"={window}): use auto",
        )
    if kernel != "auto":
        return kernel
    if platform == "gpu" and (window or not plain):
        return "chunked"
    if platform == "cpu" and length > chunked.QUERY_CHUNK and length % blocked.BLOCK == 0:
        return "blocked"
    if platform == "gpu" and cudnn and length % LANES == 0:
        return "cudnn"
    suits = length % LANES == 0 and head_size % 64 == 0
    return BY_PLATFORM.get(platform, "chunked") if suits else "chunked"


# keys, values, and the last entry that each of T new tokens sees, -1 for none; the first one, None for all
Part = tuple[Float[Array, "B K H S"], Float[Array, "B K S E"], Int[Array, "B T"], Int[Array, "B T"] | None]


def cached_attention(q: Float[Array, "B T N H"], parts: list[Part]) -> Float[Array, "B T N E"]:
    """Attention of new tokens over several caches as if they were one; scores and softmax are float32.

    As `plain_attention`, but keys and values have heads before entries, and keys their size before them: products need
    no copy of a cache in another order.
    """
    rows, queries, heads, size = q.shape
    kv_heads = parts[0][0].shape[1]
    groups = heads // kv_heads
    q = q.reshape(rows, queries, kv_heads, groups, size).transpose(0, 2, 1, 3, 4)
    ends = np.cumsum([part[0].shape[3] for part in parts])[:-1]

    def chunk(at: slice) -> Array:
        mine = q[:, :, at].reshape(rows, kv_heads, -1, size)
        scores = []
        for k, _, last, first in parts:
            hidden = jnp.arange(k.shape[3]) > jnp.repeat(last[:, at], groups, axis=1)[..., None]
            if first is not None:
                hidden |= jnp.arange(k.shape[3]) < jnp.repeat(first[:, at], groups, axis=1)[..., None]
            products = jnp.einsum("BKMH,BKHS->BKMS", mine, k, preferred_element_type=jnp.float32) * size**-0.5
            scores.append(jnp.where(hidden[:, None], jnp.finfo(jnp.float32).min, products))
        weights = jnp.split(jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(q.dtype), ends, axis=-1)
        outs = [jnp.einsum("BKMS,BKSH->BKMH", w, v) for w, (_, v, *_) in zip(weights, parts, strict=True)]
        return sum(outs[1:], outs[0]).reshape(*q[:, :, at].shape[:-1], -1)

    return _by_queries(chunk, queries).reshape(rows, queries, heads, -1)


def _by_queries(chunk: Callable[[slice], Array], queries: int) -> Float[Array, "B T K G E"]:
    """What `chunk` makes of `chunked.QUERY_CHUNK` queries at a time, [B, K, G, T, E] each, put together."""
    starts = range(0, queries, chunked.QUERY_CHUNK)
    outs = [chunk(slice(s, min(s + chunked.QUERY_CHUNK, queries))) for s in starts]
    return jnp.concatenate(outs, axis=2).transpose(0, 2, 1, 3, 4)


def blocks_attention(
    q: Float[Array, "B T N H"],
    new: Part,
    block: Callable[[Array], tuple[Float[Array, "B K H S"], Float[Array, "B K S E"]]],
    size: int,
    held: tuple[Int[Array, "B"], Int[Array, "B T"] | None],
) -> Float[Array, "B T N E"]:
    """`cached_attention` over `new` entries and those of a cache that is read block by block.

    held: how many entries a row of the cache has, and the first that each query sees, None where they see all. block:
    keys and values of a block of `size` entries by its number; those that no row has entries in are not read. Every
    query must see an entry of `new`.
    """
    rows, queries, heads, width = q.shape
    (keys, values, last, first_new), (length, first) = new, held
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
        by_head = partial(jnp.repeat, repeats=groups, axis=1)
        order = jnp.arange(keys.shape[3])
        hidden = order > by_head(last[:, at])[..., None]
        if first_new is not None:
            hidden |= order < by_head(first_new[:, at])[..., None]
        scores = products(mine, keys, hidden)
        top = jnp.max(scores, axis=-1, keepdims=True)

        def body(number: Array, so_far: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            top, total, out = so_far
            k, v = block(number)
            order = number * size + jnp.arange(size)
            hidden = (order >= length[:, None])[:, None]
            if first is not None:
                hidden |= order < by_head(first[:, at])[..., None]
            scores = products(mine, k, hidden)
            now = jnp.maximum(top, jnp.max(scores, axis=-1, keepdims=True))
            more, added = weighed(scores, now, v)
            shrunk = jnp.exp(top - now)
            return now, total * shrunk + more, out * shrunk + added

        _, total, out = jax.lax.fori_loop(0, count, body, (top, *weighed(scores, top, values)))
        return (out / total).astype(q.dtype).reshape(*q[:, :, at].shape[:-1], -1)

    return _by_queries(chunk, queries).reshape(rows, queries, heads, -1)
