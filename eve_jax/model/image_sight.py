"""What images see of themselves in packed rows: behind a token up to its image's end, before it past a window."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from eve_jax.model.attention import Ahead
from eve_jax.model.config import ModelConfig
from eve_jax.model.permute import permute


def sees_beyond(cfg: ModelConfig, longest: int) -> bool:
    """Return whether images of up to `longest` tokens see more of themselves than a window lets them."""
    return cfg.image_attention == "image" and cfg.image_reach == "all" and 0 < cfg.window < longest


def ahead_of(cfg: ModelConfig, batch: dict[str, Any], vision_slots: int) -> Ahead | None:
    """Return what tokens of whole rows, in causal order, see behind themselves; None for nothing."""
    if cfg.image_attention == "causal":
        return None
    further = permute(batch["end"] - batch["position"], batch["perm"], batch["inv"])
    end, reach = jnp.arange(further.shape[1]) + further, _reach(cfg, further.shape[1], vision_slots)
    return Ahead(end, reach, within_images(end) if sees_beyond(cfg, reach + 1) else None)


def within_images(end: Int[Array, "R L"]) -> Int[Array, "R L"]:
    """Return how many tokens before each, in causal order, have the same `end`: those of its image."""
    order = jnp.arange(end.shape[1])
    begins = jnp.concatenate([jnp.ones((end.shape[0], 1), bool), end[:, 1:] != end[:, :-1]], axis=1)
    return order - jax.lax.cummax(jnp.where(begins, order, 0), axis=1)


def _reach(cfg: ModelConfig, length: int, vision_slots: int) -> int:
    """The most tokens that one sees behind itself in rows of `length`: of the longest image, or of all as one."""
    longest = min(vision_slots, cfg.longest_image or vision_slots)
    return length - 1 if cfg.image_attention == "prefix" else max(longest - 1, 0)
