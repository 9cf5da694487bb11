"""The RMS norm without a weight (Gemma 4: of values, and of patches before their last product)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def rms_normed(x: Float[Array, "*B D"], eps: float) -> Float[Array, "*B D"]:
    """Return x / sqrt(mean(x^2) + eps) over the last axis, worked out in float32, in the dtype of `x`."""
    x32 = x.astype(jnp.float32)
    return (x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)).astype(x.dtype)
