"""Weights after an update, in the dtype that they are stored in: bfloat16 by stochastic rounding.

Rounded to the nearest, an update of less than half the distance to the next bfloat16 number would be lost, step after
step, and at usual learning rates almost all are so small. Rounded up with the probability of its share of the way, a
weight is right on average.
"""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eve_jax.model.eve import Params

LOST = 16  # bits of a float32 number that a bfloat16 number does not have


def in_float32(params: Any) -> Any:
    """A tree of arrays in float32, which has every bfloat16 number: what an optimizer makes its moments like."""
    return jax.tree.map(lambda p: p.astype(jnp.float32), params)


def updated(params: Params, updates: Params, step: Int[Array, ""]) -> Params:
    """`params` plus `updates` (float32), each in the dtype of the parameter.

    What is random about the rounding follows from the parameter's name, its entry and `step`, the number of steps that
    were taken before: a run that resumes, on any mesh, rounds the same way.
    """
    return {name: _added(name, value, updates[name], step) for name, value in params.items()}


def _added(name: str, value: Array, update: Array, step: Array) -> Array:
    wanted = value.astype(jnp.float32) + update
    if value.dtype != jnp.bfloat16:
        return wanted.astype(value.dtype)
    key = jax.random.fold_in(jax.random.key(zlib.crc32(name.encode()), impl="threefry2x32"), step)
    return to_bfloat16(wanted, key)


def to_bfloat16(x: Float[Array, "*S"], key: Array) -> Array:
    """float32 `x` as one of the two bfloat16 numbers around it, on average `x`; infinities and NaN as they are."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    kept = jnp.right_shift(bits + noise, LOST).astype(jnp.uint16)  # of the magnitude: the sign is a bit of its own
    return jnp.where(jnp.isfinite(x), jax.lax.bitcast_convert_type(kept, jnp.bfloat16), x.astype(jnp.bfloat16))
