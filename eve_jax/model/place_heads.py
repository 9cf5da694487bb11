"""The part of queries and keys that turns by row and column in images, next to that which turns by a token's number.

Dimensions: B rows, T tokens, D hidden size, N heads of size H.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from eve_jax.model.config import ModelConfig
from eve_jax.model.layers import RMSNorm
from eve_jax.model.lora import adapted
from eve_jax.model.product import product
from eve_jax.model.weight import normal, param
from eve_jax.sharding import constrain


class PlaceHeads(nnx.Module):
    """The part of queries or keys that turns by row and column in images, of a head's size again (NEO, section 3.2).

    With `qk_norm` of heads, its halves for rows and for columns are normed each for itself.
    """

    def __init__(self, cfg: ModelConfig, heads: int, rngs: nnx.Rngs, **new: Any):
        """`new`: fields of `Weight` that say what the matrix starts as next to those of a base LLM."""
        self.heads, width = heads, heads * cfg.head_dim
        init = normal(cfg.hidden_size**-0.5)
        self.kernel = param(cfg, rngs, (cfg.hidden_size, width), ("embed", "heads"), init, "matrix", **new)
        if cfg.qk_norm == "head":
            self.h_norm = RMSNorm(cfg, rngs, cfg.head_dim // 2)
            self.w_norm = RMSNorm(cfg, rngs, cfg.head_dim // 2)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T N H"]:
        y = adapted(self, "kernel", x, product(x, self.kernel[...]))
        y = constrain(y.reshape(*y.shape[:-1], self.heads, y.shape[-1] // self.heads), "batch", None, "heads", None)
        if not hasattr(self, "h_norm"):
            return y
        h, w = jnp.split(y, 2, axis=-1)
        return jnp.concatenate([self.h_norm(h), self.w_norm(w)], axis=-1)


def quarters(kernel: Any, heads: int) -> Any:
    """What the matrix of queries [*L, D, N H] becomes as that of their place: of each head its first and third quarter,
    both of them twice, the pairs of the highest frequencies (NEO's start from a plain LLM)."""
    size = kernel.shape[-1] // heads
    once = np.concatenate([np.arange(size // 4), size // 2 + np.arange(size // 4)])
    columns = np.arange(heads)[:, None] * size + np.concatenate([once, once])
    return kernel[..., columns.reshape(-1)]
