"""Patch embeddings whose positions are tables of rows and of columns: the $100 model's and Gemma 4 Unified's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from eve_jax.model.config import ModelConfig
from eve_jax.model.layers import LayerNorm, Linear, in_use
from eve_jax.model.patch_embed import normalised
from eve_jax.model.weight import normal, param

# Pixels as shares of 255, without a mean and a deviation.
ZERO_TO_ONE = np.zeros(3, np.float32), np.ones(3, np.float32)


class PlacedPatches(nnx.Module):
    """LN, linear, LN, + tables of row and column, LN, linear (the $100 model; docs/family.md#the-100-model).

    Between them the patches are `patch_hidden` wide; the tables have `patch_sides` entries, and no image has more rows
    or columns of patches (`eve_jax.batch.Layout`).
    """

    bias = True  # of the last product

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(cfg.dtype)
        width, hidden, table = cfg.patch_bytes, cfg.patch_hidden, (cfg.patch_sides, cfg.patch_hidden)
        self.pixel_norm = LayerNorm(cfg, rngs, width)
        self.input = Linear(cfg, rngs, width, hidden, works_on="patches")
        self.patch_norm = LayerNorm(cfg, rngs, hidden)
        axes = (None, None)  # rows are looked up, and few
        self.row = param(cfg, rngs, table, axes, normal(0.02), "table", works_on="")
        self.column = param(cfg, rngs, table, axes, normal(0.02), "table", works_on="")
        self.place_norm = LayerNorm(cfg, rngs, hidden)
        self.output = Linear(cfg, rngs, hidden, cfg.hidden_size, self.bias, works_on="patches")

    def __call__(self, batch: dict[str, Any]) -> Float[Array, "R V D"]:
        """Vision slots of the rows of a batch (docs/design.md#row-contract), patches alone."""
        own: PlacedPatches = in_use(self, self.dtype)
        pixels = normalised(batch["patches"], *ZERO_TO_ONE).astype(self.dtype)
        x = own.patch_norm(own.input(own.pixel_norm(pixels)))
        x = x + own.row[...][batch["place"][..., 0]] + own.column[...][batch["place"][..., 1]]
        return own.output(own.projected(own.place_norm(x)))

    def projected(self, x: Float[Array, "R P C"]) -> Float[Array, "R P C"]:
        """What the last product is of."""
        return x


class NormedPatches(PlacedPatches):
    """Gemma 4 Unified's: the same, with an RMS norm without weight before the last product, which has no bias."""

    bias = False

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        super().__init__(cfg, rngs)
        self.eps = cfg.rms_norm_eps

    def projected(self, x: Float[Array, "R P C"]) -> Float[Array, "R P C"]:
        """What the last product is of."""
        x32 = x.astype(jnp.float32)
        return (x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)).astype(x.dtype)
