"""A vision vocabulary: an embedding for each code of a vision tokenizer (docs/model.md#patch-embedding-by-codes)."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from eve_jax.model.config import ModelConfig
from eve_jax.model.weight import normal, param
from eve_jax.sharding import constrain


class CodeEmbed(nnx.Module):
    """A table of embeddings; there are no special tokens."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(cfg.dtype)
        shape, axes = (cfg.codes, cfg.hidden_size), ("vocab", "table")
        use: dict[str, Any] = {"group": "vocabulary", "works_on": "", "input_grad": False}
        self.table = param(cfg, rngs, shape, axes, normal(0.02), "table", **use)

    def __call__(self, batch: dict[str, Any]) -> Float[Array, "R V D"]:
        """Vision slots of the rows of a batch (docs/design.md#row-contract), whose patches are codes of two bytes."""
        low, high = (batch["patches"][..., n].astype(jnp.int32) for n in (0, 1))
        ids = constrain(low + 256 * high, "id_batch", None)  # as the word embedding is looked up
        x = self.table[...].astype(self.dtype)[ids]
        x = constrain(constrain(x, "id_batch", None, "table"), "batch", None, None)
        rows, count = batch["special_ids"].shape
        return jnp.concatenate([x, jnp.zeros((rows, count, x.shape[-1]), self.dtype)], axis=1)
