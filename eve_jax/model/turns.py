"""Layers of two kinds whose weights differ in shape: local ones, and wide ones that see all (Gemma 4 Unified).

They take turns: a scan's body is one layer of each place of `ModelConfig.layer_kinds`, so that weights of a place are
stacked. What a layer of a kind is, is said by sizes of its own (`of_kind`).
"""

from dataclasses import replace
from typing import Any

from eve_jax.model.config import ModelConfig

WIDE = "full"  # the kind of the layers that have `wide_head_dim`


def of_kind(cfg: ModelConfig, kind: str) -> ModelConfig:
    """Return the sizes of the layers of a `kind` alone, where those of different kinds take turns."""
    alone: dict[str, Any] = {"layer_kinds": (kind,), "wide_head_dim": 0, "wide_kv_heads": 0}
    if kind != WIDE:
        return replace(cfg, **alone, key_values="none")
    if cfg.image_reach == "window":
        alone |= {"image_reach": "all", "image_attention": "causal"}
    sizes: dict[str, Any] = {"head_dim": cfg.wide_head_dim, "num_kv_heads": cfg.wide_kv_heads}
    return replace(cfg, **alone, **sizes, window=0, local_rope_theta=0.0)


def turns(cfg: ModelConfig) -> list[ModelConfig]:
    """Return the sizes of the layers of one turn, in their order; those of all layers where they are alike."""
    if not cfg.in_turns:
        return [cfg]
    return [of_kind(cfg, kind) for kind in cfg.layer_kinds]
