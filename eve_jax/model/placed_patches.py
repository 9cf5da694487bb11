"""Patch embeddings whose positions are tables of rows and of columns: the $100 model's and Gemma 4 Unified's."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from eve_jax.model.config import ModelConfig
from eve_jax.model.layers import LayerNorm, Linear, in_use
from eve_jax.model.patch_embed import normalised
from eve_jax.model.rms import rms_normed
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
        width, hidden = cfg.patch_bytes, cfg.patch_hidden
        self.pixel_norm = LayerNorm(cfg, rngs, width)
        self.input = Linear(cfg, rngs, width, hidden, works_on="patches")
        self.patch_norm = LayerNorm(cfg, rngs, hidden)
        # Of each number its entry as a column and as a row, one after the other; they are looked up, and few.
        places = (2 * cfg.patch_sides, hidden)
        self.places = param(cfg, rngs, places, (None, None), normal(0.02), "table", works_on="")
        self.place_norm = LayerNorm(cfg, rngs, hidden)
        self.output = Linear(cfg, rngs, hidden, cfg.hidden_size, self.bias, works_on="patches")

    def __call__(self, batch: dict[str, Any]) -> Float[Array, "R V D"]:
        """Vision slots of the rows of a batch (docs/design.md#row-contract), patches alone."""
        own: PlacedPatches = in_use(self, self.dtype)
        pixels = normalised(batch["patches"], *ZERO_TO_ONE).astype(self.dtype)
        x = own.patch_norm(own.input(own.pixel_norm(pixels)))
        row, column = (batch["place"][..., axis] for axis in (0, 1))
        x = x + own.places[...][2 * row + 1] + own.places[...][2 * column]
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
        return rms_normed(x, self.eps)
