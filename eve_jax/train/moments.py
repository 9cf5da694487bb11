"""Moments of an optimizer in bfloat16, or in blocks of 8-bit numbers.

A rule that has them in float32 sees them in float32: they are unpacked before its update and packed after it. Packing
rounds at random, right on average: a second moment changes by a thousandth a step, which a number rounded to the
nearest would never take in. What is random follows from the moment's place in the state, its entry and the update's
number, so that a run that resumes, on any mesh, packs the same way.

8-bit moments (block-wise as in Dettmers et al. 2022, arXiv:2110.02861) are the largest magnitude of their block times
(c / 127)^2 with a sign, or times (c / 255)^4 for second moments, c a whole number: small moments have finer steps.
"""

import zlib
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import DictKey, GetAttrKey
from jaxtyping import Array, Float, Float32, Int

from eve_jax.model.eve import Params
from eve_jax.train.rounding import to_bfloat16

BLOCKS = (128, 64, 32)  # sizes of a block along the last axis
SHARDS = 16  # as many devices as may share the last axis, with whole blocks
SECOND = "nu"  # the state's name of second moments
PACKED = ("mu", SECOND)


class Blocks(NamedTuple):
    """An array [..., W] in 8 bits: codes [..., W], int8 or (second moments) uint8, scales of blocks [..., W / B]."""

    codes: Array
    scales: Float32[Array, "*S N"]


def block_size(width: int) -> int:
    """Return the numbers of a block along an axis of `width`: all where no size of BLOCKS divides it."""
    whole = [size for size in BLOCKS if width % (size * SHARDS) == 0] or [s for s in BLOCKS if width % s == 0]
    return whole[0] if whole else width


def _power(codes: Any) -> tuple[int, int]:
    """The largest magnitude of the codes' dtype, and the power that it is taken to."""
    return (255, 4) if codes == jnp.uint8 else (127, 2)


def _in_blocks(x: Array, count: int) -> Array:
    return x.reshape(*x.shape[:-1], count, x.shape[-1] // count)


def unpack(blocks: Blocks) -> Float[Array, "*S W"]:
    """Return the float32 numbers of `blocks`."""
    top, power = _power(blocks.codes.dtype)
    share = _in_blocks(blocks.codes.astype(jnp.float32), blocks.scales.shape[-1]) / top
    square = share * share
    value = square * square if power == 4 else share * jnp.abs(share)
    return (value * blocks.scales[..., None]).reshape(blocks.codes.shape)


def pack(x: Float[Array, "*S W"], key: Array, second: bool) -> Blocks:
    """Return `x` in 8 bits, each number one of the two around it, on average `x`; `second`: of numbers >= 0.

    Of these, none but 0 becomes 0: something would be divided by its root.
    """
    dtype = jnp.uint8 if second else jnp.int8
    top, power = _power(dtype)
    parts = _in_blocks(x, x.shape[-1] // block_size(x.shape[-1]))
    scales = jnp.max(jnp.abs(parts), axis=-1)
    share = jnp.abs(parts) / jnp.where(scales > 0, scales, 1)[..., None]
    root = jnp.sqrt(jnp.sqrt(share)) if power == 4 else jnp.sqrt(share)
    below = jnp.clip(jnp.floor(root * top), 0, top - 1)
    low, high = (below / top) ** power, ((below + 1) / top) ** power
    up = jax.random.uniform(key, x.shape).reshape(parts.shape) < (share - low) / (high - low)
    codes = below + up
    codes = jnp.maximum(codes, parts > 0) if second else codes * jnp.sign(parts)
    return Blocks(codes.reshape(x.shape).astype(dtype), scales)


def packed(tx: optax.GradientTransformation, kind: str, names: Collection[str]) -> optax.GradientTransformation:
    """Return the rule `tx` with the moments of the parameters `names` stored as `kind`: float32, bfloat16 or int8."""
    if kind == "float32":
        return tx

    def init(params: Params) -> Any:
        return _packed(tx.init(params), kind, names)

    def update(updates: Params, state: Any, params: Params) -> tuple[Params, Any]:
        wide = jax.tree.map(_unpacked, state, is_leaf=lambda x: isinstance(x, Blocks))
        updates, state = tx.update(updates, wide, params)
        return updates, _packed(state, kind, names)

    return optax.GradientTransformation(init, update)


def _unpacked(leaf: Any) -> Array:
    if isinstance(leaf, Blocks):
        return unpack(leaf)
    return leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf


def _packed(state: Any, kind: str, names: Collection[str]) -> Any:
    number: Int[Array, ""] = optax.tree_utils.tree_get_all_with_path(state, "count")[0][1]

    def leaf(path: tuple[Any, ...], value: Array) -> Any:
        match path:
            case (*_, GetAttrKey(name=moment), DictKey(key=name)) if moment in PACKED and name in names:
                seed = jax.random.key(zlib.crc32(jax.tree_util.keystr(path).encode()), impl="threefry2x32")
                key = jax.random.fold_in(seed, number)
                return to_bfloat16(value, key) if kind == "bfloat16" else pack(value, key, moment == SECOND)
        return value

    return jax.tree_util.tree_map_with_path(leaf, state)
