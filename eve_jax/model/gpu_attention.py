"""Attention kernels for NVIDIA GPUs: Pallas on Triton ("flash"), and cuDNN's ("cudnn"), for rows of several samples.

Both keep the output and the logarithm of each query's sum of exponentials for the backward pass, under the name that
remat policies know.

Dimensions: B rows, L tokens, N query heads, K key/value heads, H, S samples of a row.
"""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from eve_jax.model.blocked import ATTENTION
from eve_jax.sharding import device

# Shared memory that a block of threads may use, KiB, by compute capability (NVIDIA's CUDA C++ Programming Guide, table
# of compute capabilities); the largest that is not above a card's counts.
SHARED = {(7, 0): 96, (7, 5): 64, (8, 0): 163, (8, 6): 99, (8, 7): 163, (8, 9): 99, (9, 0): 227, (12, 0): 99}
RESERVED = 8  # KiB of it, for scores on their way and segments
STAGES = 2  # tiles of keys that are loaded ahead
TILES = (128, 64, 32, 16)
BACKWARD_TILE = 64  # at most: Hopper's tensor cores take 64 rows, and larger tiles do not fit the registers
HOPPER = (9, 0)  # the first on which cuDNN takes rows of several samples
MOST_SAMPLES = 32  # of a row, that cuDNN is asked for: it writes sums for as many of the row's length


def compute_capability() -> tuple[int, int]:
    """That of the NVIDIA GPU that the traced function will run on; (0, 0) of anything else."""
    found = re.fullmatch(r"(\d+)\.(\d+)", str(getattr(device(), "compute_capability", "")))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def tiles(head_size: int, itemsize: int, capability: tuple[int, int]) -> tuple[int, int]:
    """Queries and keys of a tile in the forward and in the backward kernel, the largest that fit the card's memory.

    The forward kernel holds a tile of queries and STAGES of keys and values; the backward kernel a tile of keys and
    values, and STAGES of queries and of gradients.
    """
    known = [c for c in SHARED if c <= capability]
    memory = ((SHARED[max(known)] if known else min(SHARED.values())) - RESERVED) * 1024
    row = (1 << (head_size - 1).bit_length()) * itemsize

    def largest(held: int, most: int) -> int:
        return next((t for t in TILES if t <= most and t * held * row <= memory), TILES[-1])

    return largest(1 + 2 * STAGES, TILES[0]), largest(2 + 2 * STAGES, BACKWARD_TILE)


def repeated(q: Array, *kv: Array) -> tuple[Array, ...]:
    """Keys and values with a head for each query head."""
    return tuple(jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in kv)


def flash(
    q: Float[Array, "B L N H"],
    k: Float[Array, "B L K H"],
    v: Float[Array, "B L K H"],
    segment: Int[Array, "B L"],
    capability: tuple[int, int],
    interpret: bool,
) -> Float[Array, "B L N H"]:
    """Attention by jax.experimental.pallas.ops.gpu.attention, with tiles for a card of the compute `capability`."""
    return _flash(q, *repeated(q, k, v), segment, HOPPER if interpret else capability, interpret)


def _options(q: Array, capability: tuple[int, int], interpret: bool) -> dict[str, Any]:
    from jax.experimental.pallas.ops.gpu import attention

    forward, back = tiles(q.shape[3], q.dtype.itemsize, capability)
    forward, back = (min(t, q.shape[1] & -q.shape[1]) for t in (forward, back))  # rows are a multiple of a power of two
    sizes = attention.BlockSizes(forward, forward, back, back, back, back)
    return {
        "sm_scale": q.shape[3] ** -0.5,
        "causal": True,
        "block_sizes": sizes,
        "backward_pass_impl": "triton",
        "num_warps": None,
        "num_stages": STAGES,
        "grid": None,
        "interpret": interpret,
        "debug": False,
    }


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _flash(q: Array, k: Array, v: Array, segment: Array, capability: tuple[int, int], interpret: bool) -> Array:
    return _flash_forward(q, k, v, segment, capability, interpret)[0]


def _flash_forward(
    q: Array, k: Array, v: Array, segment: Array, capability: tuple[int, int], interpret: bool
) -> tuple[Array, tuple[Array, ...]]:
    from jax.experimental.pallas.ops.gpu import attention

    options = _options(q, capability, interpret)
    out, log_total = attention.mha(q, k, v, segment, **options, return_residuals=True)
    out, log_total = checkpoint_name(out, ATTENTION), checkpoint_name(log_total, ATTENTION)
    return out, (q, k, v, segment, out, log_total)


def _flash_backward(
    capability: tuple[int, int], interpret: bool, saved: tuple[Array, ...], d_out: Array
) -> tuple[Array, ...]:
    from jax.experimental.pallas.ops.gpu import attention

    options = _options(saved[0], capability, interpret)
    gradients: tuple[Array, ...] = attention._mha_backward(*options.values(), False, saved, d_out)  # type: ignore[call-arg]
    return gradients


_flash.defvjp(_flash_forward, _flash_backward)


def cudnn(
    q: Float[Array, "B L N H"],
    k: Float[Array, "B L K H"],
    v: Float[Array, "B L K H"],
    segment: Int[Array, "B L"],
    capability: tuple[int, int],
) -> Float[Array, "B L N H"]:
    """Attention by cuDNN, bfloat16 or float16, samples as sequences of a packed layout.

    Batches with a row of more than MOST_SAMPLES samples go by `flash`, which a branch of the program decides.
    """
    return _packed(q, *repeated(q, k, v), segment, capability)


def sequences(segment: Int[Array, "B L"]) -> tuple[Int[Array, "B"], Int[Array, "B S"], Int[Array, "B S+1"]]:
    """Runs of one segment in each row, pads too: how many there are, and lengths and offsets of the first MOST_SAMPLES.

    Entries after the last are -1, as in the arguments of jax's cuDNN attention.
    """
    length = segment.shape[1]
    begins = jnp.diff(segment, axis=1, prepend=segment[:, :1] - 1) != 0
    count = jnp.sum(begins, axis=1, dtype=jnp.int32)
    starts = jax.vmap(lambda b: jnp.nonzero(b, size=MOST_SAMPLES + 1, fill_value=length)[0])(begins).astype(jnp.int32)
    number = jnp.arange(MOST_SAMPLES + 1)
    lengths = jnp.where(number[:-1] < count[:, None], jnp.diff(starts, axis=1), -1)
    return count, lengths, jnp.where(number < count[:, None], starts, -1)


def _by_token(segment: Int[Array, "B L"]) -> tuple[Int[Array, "B L"], Int[Array, "B L"]]:
    """Of each token: the number of its run, counted through all rows as cuDNN does, and its place in it."""
    begins = jnp.diff(segment, axis=1, prepend=segment[:, :1] - 1) != 0
    order = jnp.arange(segment.shape[1])
    place = order - jax.lax.cummax(jnp.where(begins, order, 0), axis=1)
    return jnp.cumsum(begins.reshape(-1)).reshape(segment.shape) - 1, place


def _asked(segment: Array) -> tuple[Array, dict[str, Any]]:
    """Whether cuDNN can take the batch, and its sequences as its arguments."""
    count, lengths, offsets = sequences(segment)
    return jnp.all(count <= MOST_SAMPLES), {
        "q_seqlen": lengths,
        "kv_seqlen": lengths,
        "q_offsets": offsets,
        "kv_offsets": offsets,
    }


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _packed(q: Array, k: Array, v: Array, segment: Array, capability: tuple[int, int]) -> Array:
    return _packed_forward(q, k, v, segment, capability)[0]


def _packed_forward(
    q: Array, k: Array, v: Array, segment: Array, capability: tuple[int, int]
) -> tuple[Array, tuple[Array, ...]]:
    from jax._src.cudnn import fused_attention_stablehlo as fused

    few, asked = _asked(segment)

    def by_cudnn(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
        mask = fused.MaskType.PADDING_CAUSAL
        scale = q.shape[3] ** -0.5
        out, sums = fused.dot_product_attention(q, k, v, **asked, scale=scale, mask_type=mask, return_residual=True)
        run, place = _by_token(segment)
        return out, sums.transpose(0, 2, 1)[run, place].transpose(0, 2, 1)  # of tokens, instead of S times the row

    def by_flash(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
        out, saved = _flash_forward(q, k, v, segment, capability, False)
        return out, saved[-1]

    out, log_total = jax.lax.cond(few, by_cudnn, by_flash, q, k, v)
    out, log_total = checkpoint_name(out, ATTENTION), checkpoint_name(log_total, ATTENTION)
    return out, (q, k, v, segment, out, log_total)


def _packed_backward(capability: tuple[int, int], saved: tuple[Array, ...], d_out: Array) -> tuple[Any, ...]:
    from jax._src.cudnn import fused_attention_stablehlo as fused

    q, k, v, segment, out, log_total = saved
    few, asked = _asked(segment)

    def by_cudnn(log_total: Array) -> tuple[Array, ...]:
        rows, length, heads, size = q.shape
        run, place = _by_token(segment)
        sums = jnp.zeros((rows * MOST_SAMPLES, length, heads), jnp.float32)
        sums = sums.at[run, place].set(log_total.transpose(0, 2, 1)).transpose(0, 2, 1)
        none = jnp.zeros(0, q.dtype)
        given = (q, k, v, none, *asked.values(), none, none, sums, out)
        options = (size**-0.5, 42, 0.0, (False, False), fused.MaskType.PADDING_CAUSAL, fused.AttentionLayout.BTNH.value)
        return fused._dot_product_attention_bwd_rule(*options, None, True, False, given, d_out)[:3]

    def by_flash(log_total: Array) -> tuple[Array, ...]:
        return _flash_backward(capability, False, (q, k, v, segment, out, log_total), d_out)[:3]

    return *jax.lax.cond(few, by_cudnn, by_flash, log_total), None


_packed.defvjp(_packed_forward, _packed_backward)


def takes(dtype: np.dtype, head_size: int, capability: tuple[int, int]) -> bool:
    """Whether cuDNN takes rows of several samples with heads of this dtype and size on a card of the `capability`."""
    return dtype in (jnp.bfloat16, jnp.float16) and head_size % 8 == 0 and head_size <= 256 and capability >= HOPPER
