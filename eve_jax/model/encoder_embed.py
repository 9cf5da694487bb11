"""A vision encoder before the LLM: CLIP's tower and a projector (docs/model.md#patch-embedding-by-a-vision-encoder).

The form of LLaVA-1.5: patches of the last layer but one, without class token; two linear layers with a GELU between.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from eve_jax.model.config import ModelConfig
from eve_jax.model.layers import Linear, in_use
from eve_jax.model.v1.clip import ClipVision
from eve_jax.model.weight import declare
from eve_jax.sharding import constrain

TOWER = "vision_encoder"  # in the names of its products in a compiled program


def row_major(patches: UInt8[Array, "*B E"], sub: int) -> UInt8[Array, "*B E"]:
    """Patches of 2 x 2 blocks of `sub` pixels a side (`eve_jax.data.image.patches.patchify`) as (y, x, channel)."""
    lead = patches.shape[:-1]
    return jnp.moveaxis(patches.reshape(*lead, 2, 2, sub, sub, 3), -4, -3).reshape(*lead, patches.shape[-1])


class EncoderEmbed(nnx.Module):
    """Vision encoder and projector.

    All images have the same number of patches, which follow each other in the row, so an image is a run of patch slots.
    """

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        assert cfg.encoder is not None
        self.dtype, self.sub, self.remat = jnp.dtype(cfg.dtype), cfg.sub_patch, cfg.remat != "none"
        self.patches = cfg.encoder.cells**2
        self.tower = declare(ClipVision(cfg, cfg.encoder, rngs), "encoder", works_on="patches")
        sizes = (cfg.encoder.hidden_size, cfg.hidden_size)
        self.project = nnx.List([Linear(cfg, rngs, n, cfg.hidden_size, works_on="patches") for n in sizes])

    def __call__(self, batch: dict[str, Any]) -> Float[Array, "R V D"]:
        """Vision slots of the rows of a batch (docs/design.md#row-contract): patches, zeros in slots of no image."""
        rows, slots = batch["patches"].shape[:2]
        count = slots // self.patches
        used, width = count * self.patches, self.project[1].kernel.shape[1]
        rest = jnp.zeros((rows, slots - used + batch["special_ids"].shape[1], width), self.dtype)
        if not count:
            return rest
        images = row_major(batch["patches"][:, :used], self.sub).reshape(rows * count, self.patches, -1)
        with jax.named_scope(TOWER):
            seen = self.tower.of_patches(constrain(images, "batch", None, None), remat=self.remat)[:, 1:]
        x = constrain(seen.reshape(rows, used, -1), "batch", None, None)
        first, second = (in_use(layer, self.dtype) for layer in self.project)
        return jnp.concatenate([second(jax.nn.gelu(first(x), approximate=False)), rest], axis=1)
