"""Attention of packed rows by the Pallas kernel for TPU, splash attention, in one call with a static mask."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from eve_jax.model.blocked import ATTENTION
from eve_jax.model.splash_blocks import block_sizes

Blocks = tuple[tuple[str, int], ...]  # as in `Kernel`


class Tiles(NamedTuple):
    """Which tiles are visited, of the last `window` tokens, 0 for all, up to `reach` behind a query; their sizes."""

    window: int
    reach: int
    blocks: Blocks = ()


def splash(
    q: Float[Array, "B L N H"],
    k: Float[Array, "B L K H"],
    v: Float[Array, "B L K E"],
    segment: Int[Array, "B L"],
    end: Int[Array, "B L"] | None = None,
    *,
    interpret: bool,
    tiles: Tiles,
) -> Float[Array, "B L N E"]:
    """softmax(q k^T / sqrt(H)) v where token i sees j <= end(i) (None: i) of its segment, L a multiple of LANES.

    end(i) is at most i + `tiles.reach`. The static mask, causal and moved by that, says which tiles are visited; within
    one the kernel compares the key's number with that of the query, in whose place end(i) - `reach` is given.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    length, heads, size = q.shape[1:]
    reach = min(tiles.reach, length - 2)  # a mask that hides nothing would not be looked at
    attend = kernel_of(length, heads, tiles.window, reach, interpret, tiles.blocks)

    def row(q: Array, k: Array, v: Array, segment: Array, end: Array | None) -> Array:
        own = attend if end is None else _numbered(attend, end - reach)
        return own(q, k, v, segment_ids=SegmentIds(segment, segment))

    q, k, v = (x.swapaxes(1, 2) for x in (q * np.asarray(size**-0.5, q.dtype), k, v))  # heads before tokens
    return jax.vmap(row)(q, k, v, segment, end).swapaxes(1, 2).astype(q.dtype)


def kernel_of(length: int, heads: int, window: int, reach: int, interpret: bool = False, blocks: Blocks = ()) -> Any:
    """Return the kernel for rows of `length`; its three mask infos say which tiles it visits.

    The gradient of queries has a kernel of its own: the fused one holds partial sums of it by block of keys, the square
    of the row.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as kernels

    sizes: dict[str, Any] = {f"block_{name}": size for name, size in block_sizes(blocks, length).items()}
    shape = (length, length)
    seen = kernels.LocalMask(shape, (window - 1, 0), 0) if window else kernels.CausalMask(shape, reach)
    return kernels.make_splash_mha_single_device(
        kernels.MultiHeadMask([seen] * heads),
        block_sizes=kernels.BlockSizes(**sizes),
        residual_checkpoint_name=ATTENTION,
        interpret=interpret,
    )


def _numbered(kernel: Any, numbers: Int[Array, "L"]) -> Any:
    """`kernel`, a pytree with the numbers of the queries in each of its three mask infos, with other `numbers`."""
    infos, rest = kernel.tree_flatten()
    return type(kernel).tree_unflatten(rest, [info._replace(q_sequence=numbers) for info in infos])
