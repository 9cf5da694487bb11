"""The equations of a decoder layer's parts: RMSNorm, projections, rotary positions, SwiGLU.

Dimensions: B rows, T tokens, D hidden size, N query heads, K key/value heads, H head size, F feed-forward size.
Every weight declares its shape, logical axes and initialiser in one place (`param`); shardings derive from the axes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from eve_jax.model.config import ModelConfig

Init = Callable[[Array, tuple[int, ...], jnp.dtype], Array]


def normal(std: float) -> Init:
    """Initialiser: Gaussian of standard deviation `std`."""
    return lambda key, shape, dtype: std * jax.random.normal(key, shape, dtype)


def zeros(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Initialiser: zeros (biases)."""
    return jnp.zeros(shape, dtype)


def ones(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Initialiser: ones (norm weights)."""
    return jnp.ones(shape, dtype)


def param(
    cfg: ModelConfig, rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str | None, ...], init: Init
) -> nnx.Param:
    """A weight of `shape` with one logical axis name (or None) a dimension."""
    if len(axes) != len(shape):
        raise ValueError(f"{len(axes)} axes for shape {shape}")
    return nnx.Param(init(rngs.params(), shape, jnp.dtype(cfg.param_dtype)), axes=axes)


class RMSNorm(nnx.Module):
    """x / rms(x) * scale over the last axis; the mean square is taken in float32."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        self.eps = cfg.rms_norm_eps
        self.scale = param(cfg, rngs, (cfg.hidden_size,), ("embed",), ones)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return normed.astype(x.dtype) * self.scale[...].astype(x.dtype)


class HeadProjection(nnx.Module):
    """Hidden states to heads: BTD,DNH->BTNH, with a bias where the backbone has one (Qwen2: q, k, v)."""

    def __init__(self, cfg: ModelConfig, heads: int, rngs: nnx.Rngs):
        shape = (cfg.hidden_size, heads, cfg.head_dim)
        self.kernel = param(cfg, rngs, shape, ("embed", "heads", None), normal(cfg.hidden_size**-0.5))
        if cfg.qkv_bias:
            self.bias = param(cfg, rngs, shape[1:], ("heads", None), zeros)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T N H"]:
        y = jnp.einsum("BTD,DNH->BTNH", x, self.kernel[...].astype(x.dtype))
        return y + self.bias[...].astype(x.dtype) if hasattr(self, "bias") else y


class OutProjection(nnx.Module):
    """Heads back to hidden states: BTNH,NHD->BTD, no bias."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        shape = (cfg.num_heads, cfg.head_dim, cfg.hidden_size)
        fan_in = cfg.num_heads * cfg.head_dim
        init = normal((2 * cfg.num_layers * fan_in) ** -0.5)
        self.kernel = param(cfg, rngs, shape, ("heads", None, "embed"), init)

    def __call__(self, x: Float[Array, "B T N H"]) -> Float[Array, "B T D"]:
        return jnp.einsum("BTNH,NHD->BTD", x, self.kernel[...].astype(x.dtype))


class MLP(nnx.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), no biases."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        d, f = cfg.hidden_size, cfg.intermediate_size
        self.gate = param(cfg, rngs, (d, f), ("embed", "mlp"), normal(d**-0.5))
        self.up = param(cfg, rngs, (d, f), ("embed", "mlp"), normal(d**-0.5))
        self.down = param(cfg, rngs, (f, d), ("mlp", "embed"), normal((2 * cfg.num_layers * f) ** -0.5))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        gate = jnp.einsum("BTD,DF->BTF", x, self.gate[...].astype(x.dtype))
        up = jnp.einsum("BTD,DF->BTF", x, self.up[...].astype(x.dtype))
        return jnp.einsum("BTF,FD->BTD", jax.nn.silu(gate) * up, self.down[...].astype(x.dtype))


def rotary_angles(position: Int[Array, "B T"], head_dim: int, theta: float) -> tuple[Array, Array]:
    """Cosines and sines, float32 [B, T, 1, H/2], of position * theta^(-2i/H)."""
    inv_freq = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = position[..., None, None].astype(jnp.float32) * inv_freq
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "B T N H"], angles: tuple[Array, Array]) -> Float[Array, "B T N H"]:
    """Rotary positions in the rotate-half convention (first and second half of a head form the pairs)."""
    cos, sin = angles
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
