"""The projections of a decoder layer's attention: queries, keys and values, their norms, the output."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from eve_jax.model.config import ModelConfig
from eve_jax.model.layers import HeadNorm, HeadProjection, OutProjection
from eve_jax.model.place_heads import PlaceHeads
from eve_jax.model.rms import rms_normed
from eve_jax.model.routing import Hidden, Routed, Rows
from eve_jax.model.weight import PLACE_GROUP


class SelfAttention(nnx.Module):
    """Projections of one attention block; the attention itself belongs to the rows."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        part = cfg.divided("self_attn")
        self.q = Routed(lambda: HeadProjection(cfg, cfg.num_heads, rngs), part)
        self.k = Routed(lambda: HeadProjection(cfg, cfg.num_kv_heads, rngs), part)
        shared = cfg.key_values in cfg.layer_kinds  # values are the keys as they are before their norm
        self.v = None if shared else Routed(lambda: HeadProjection(cfg, cfg.num_kv_heads, rngs), part)
        self.value_eps = cfg.rms_norm_eps if cfg.value_norm else None
        self.o = Routed(lambda: OutProjection(cfg, rngs), part)
        if cfg.qk_norm != "none":
            self.q_norm = Routed(lambda: HeadNorm(cfg, cfg.num_heads, rngs), part)
            self.k_norm = Routed(lambda: HeadNorm(cfg, cfg.num_kv_heads, rngs), part)
        if cfg.rope == "thw":
            self.q_place = Routed(lambda: PlaceHeads(cfg, cfg.num_heads, rngs, taken_from="q"), part, PLACE_GROUP)
            self.k_place = Routed(lambda: PlaceHeads(cfg, cfg.num_kv_heads, rngs, start=0.0), part, PLACE_GROUP)
        # Kernels divide scores by the square root of a query's size.
        self.q_factor = (cfg.qk_dim / (cfg.attention_size or cfg.head_dim)) ** 0.5

    def project(self, x: Hidden, rows: Rows) -> tuple[Hidden, Hidden, Hidden]:
        """Queries, keys and values of normed hidden states."""
        q, k = rows.route(self.q, x), rows.route(self.k, x)
        v = k if self.v is None else rows.route(self.v, x)
        if self.value_eps is not None:
            v = jax.tree.map(partial(rms_normed, eps=self.value_eps), v)
        if hasattr(self, "q_norm"):
            q, k = rows.route(self.q_norm, q), rows.route(self.k_norm, k)
        if hasattr(self, "q_place"):
            q, k = _beside(q, rows.route(self.q_place, x)), _beside(k, rows.route(self.k_place, x))
        if self.q_factor != 1.0:
            q = jax.tree.map(lambda a: a * self.q_factor, q)
        return q, k, v


def _beside(x: Hidden, y: Hidden) -> Hidden:
    """Heads of the one with those of the other behind them, as one head each."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=-1), x, y)
