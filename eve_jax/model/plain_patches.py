"""Patch embeddings without class and split tokens: NEO's convolutions with rotary positions, SAIL's matrix."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from eve_jax.model.config import ModelConfig
from eve_jax.model.layers import in_use
from eve_jax.model.lora import adapted
from eve_jax.model.patch_embed import normalised
from eve_jax.model.product import product
from eve_jax.model.weight import normal, param, zeros

# Mean and deviation of ImageNet's pixels.
IMAGENET = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
SUB = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.int32)  # row and column of a patch's blocks, in their order


def turned(x: Float[Array, "*B C"], row: Int[Array, "*B"], column: Int[Array, "*B"], theta: float) -> Array:
    """`x` with rotary positions, float32: its first half by the column, its second by the row, pairs side by side."""
    size = x.shape[-1] // 2
    frequency = theta ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
    angles = jnp.concatenate([n[..., None] * frequency for n in (column, row)], axis=-1)
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], size, 2)
    a, b, cos, sin = pairs[..., 0], pairs[..., 1], jnp.cos(angles), jnp.sin(angles)
    return jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(x.shape)


class RotaryPatches(nnx.Module):
    """NEO's (arXiv 2510.14979, section 3.1): a convolution, GELU, rotary positions by row and column, a convolution.

    Both convolutions are without overlap: matrix products on the four blocks of a patch, and on their outputs.
    """

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        self.dtype, self.theta = jnp.dtype(cfg.dtype), cfg.patch_theta
        sub, hidden, d = cfg.patch_bytes // 4, cfg.patch_hidden, cfg.hidden_size
        pixels: Any = {"works_on": "patches", "times": 4, "input_grad": False}
        init1, init2 = normal((3 * sub) ** -0.5), normal((12 * hidden) ** -0.5)
        self.kernel1 = param(cfg, rngs, (sub, hidden), (None, "patch"), init1, "matrix", **pixels)
        self.bias1 = param(cfg, rngs, (hidden,), ("patch",), zeros, "bias")
        self.kernel2 = param(cfg, rngs, (4 * hidden, d), ("patch", "embed"), init2, "matrix", works_on="patches")
        self.bias2 = param(cfg, rngs, (d,), (None,), zeros, "bias")

    def __call__(self, batch: dict[str, Any]) -> Float[Array, "R V D"]:
        """Vision slots of the rows of a batch (docs/design.md#row-contract), patches alone."""
        own: RotaryPatches = in_use(self, self.dtype)
        quarters = jnp.split(normalised(batch["patches"], *IMAGENET).astype(self.dtype), 4, axis=-1)
        x = jnp.concatenate([own.block(q, batch["place"], at) for q, at in zip(quarters, SUB, strict=True)], axis=-1)
        return adapted(own, "kernel2", x, product(x, own.kernel2[...])) + own.bias2[...]

    def block(self, pixels: Float[Array, "R P B"], place: Int[Array, "R P 2"], at: np.ndarray) -> Float[Array, "R P C"]:
        """The blocks `at` a row and a column of their patches."""
        x = adapted(self, "kernel1", pixels, product(pixels, self.kernel1[...])) + self.bias1[...]
        row, column = (2 * place[..., axis] + at[axis] for axis in (0, 1))
        return turned(jax.nn.gelu(x, approximate=False), row, column, self.theta).astype(self.dtype)


class LinearPatches(nnx.Module):
    """SAIL's (arXiv 2504.10462): the product of a patch's pixels with a matrix, no bias; `patch_token` adds to it."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(cfg.dtype)
        width, d = cfg.patch_bytes, cfg.hidden_size
        init = normal((3 * width) ** -0.5)
        pixels: Any = {"works_on": "patches", "input_grad": False}
        self.kernel = param(cfg, rngs, (width, d), (None, "embed"), init, "matrix", **pixels)

    def __call__(self, batch: dict[str, Any]) -> Float[Array, "R V D"]:
        """Vision slots of the rows of a batch (docs/design.md#row-contract), patches alone."""
        own: LinearPatches = in_use(self, self.dtype)
        pixels = normalised(batch["patches"], *IMAGENET).astype(self.dtype)
        return adapted(own, "kernel", pixels, product(pixels, own.kernel[...]))
