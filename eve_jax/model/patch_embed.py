"""Patch embedding layer of EVEv2 on flat patches (docs/model.md#patch-embedding-of-evev2)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from eve_jax.batch import CLASS, SPLIT
from eve_jax.model.config import ModelConfig
from eve_jax.model.layers import in_use
from eve_jax.model.lora import adapter_of
from eve_jax.model.product import product
from eve_jax.model.weight import normal, param, zeros
from eve_jax.sharding import gather

PIXEL_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)  # CLIP's
PIXEL_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def normalised(
    pixels: UInt8[Array, "*B N"], mean: np.ndarray = PIXEL_MEAN, std: np.ndarray = PIXEL_STD
) -> Float[Array, "*B N"]:
    """Return uint8 RGB, the channels of a pixel together on the last axis, as float32 of mean 0 and deviation 1.

    `mean` and `std`, float32 [3], are those of the pixels of a large set of images, by default CLIP's.
    """
    mean, std = (np.tile(c, pixels.shape[-1] // 3) for c in (mean, std))
    return (pixels.astype(jnp.float32) * np.float32(1 / 255) - mean) / std


class PatchEmbed(nnx.Module):
    """Two strided convolutions without overlap, so two matrix products on 2x2 sub-patches of 16x16 pixels."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(cfg.dtype)
        sub, hidden, d = cfg.patch_bytes // 4, cfg.patch_hidden, cfg.hidden_size
        pixels: Any = {"works_on": "patches", "times": 4, "input_grad": False}  # on the four sub-patches of each
        token: Any = {"works_on": "specials", "input_grad": False}
        init1, init2 = normal((3 * sub) ** -0.5), normal((12 * hidden) ** -0.5)
        self.kernel1 = param(cfg, rngs, (sub, hidden), (None, "patch"), init1, "matrix", **pixels)
        self.bias1 = param(cfg, rngs, (hidden,), ("patch",), zeros, "bias")
        self.kernel2 = param(cfg, rngs, (4 * hidden, d), ("patch", "embed"), init2, "matrix", works_on="patches")
        self.bias2 = param(cfg, rngs, (d,), (None,), zeros, "bias")
        self.class_embed = param(cfg, rngs, (d,), (None,), normal(0.02), "table", **token)
        self.split_embed = param(cfg, rngs, (d,), (None,), normal(0.02), "table", **token)

    def __call__(self, batch: dict[str, Any]) -> Float[Array, "R V D"]:
        """Vision slots of the rows of a batch (docs/design.md#row-contract): patches, then special tokens."""
        special_ids = batch["special_ids"]
        kernel1, bias1, kernel2, bias2 = (
            gather(p[...], p.axes, self.dtype) for p in (self.kernel1, self.bias1, self.kernel2, self.bias2)
        )
        # Sub-patches are slices: as an axis of 4 they would be laid out anew, and padded to 8, on a TPU.
        quarters = jnp.split(normalised(batch["patches"]).astype(self.dtype), 4, axis=-1)
        x = jnp.concatenate(
            [
                jax.nn.gelu(self._adapted("kernel1", q, product(q, kernel1)) + bias1, approximate=False)
                for q in quarters
            ],
            axis=-1,
        )
        x = self._adapted("kernel2", x, product(x, kernel2)) + bias2
        table = jnp.stack([self.class_embed[...], self.split_embed[...]]).astype(self.dtype)
        one_hot = special_ids[..., None] == jnp.array([CLASS, SPLIT])
        return jnp.concatenate([x, one_hot.astype(self.dtype) @ table], axis=1)

    def _adapted(self, name: str, x: Array, y: Array) -> Array:
        """`y`, the product of `x` with the matrix `name`, with that of its adapter, if it has one."""
        adapter = adapter_of(self, name)
        return y if adapter is None else y + in_use(adapter, self.dtype)(x)
