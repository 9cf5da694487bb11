"""Logits kept within a cap (Gemma): cap tanh(l / cap)."""

import jax.numpy as jnp
from jax import Array


def capped(logits: Array, cap: float) -> Array:
    """Return `logits` within -cap..cap, as they are for a `cap` of 0."""
    return cap * jnp.tanh(logits / cap) if cap else logits


def slope(capped: Array, cap: float) -> Array | float:
    """Return the derivative of `capped` by the logits before it, of its results."""
    return 1 - jnp.square(capped / cap) if cap else 1.0
