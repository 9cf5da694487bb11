"""Adapters of the golden models, with values that change something."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import init_adapters
from eve_jax.model.lora_config import Lora

ALL = ("text", "vision", "patch_embed")


def with_adapters(cfg: ModelConfig, groups: tuple[str, ...] = ALL, **more: Any) -> ModelConfig:
    """Return `cfg` with adapters of rank 4."""
    return replace(cfg, lora=Lora(4, 8.0, groups, **more))


def adapter_values(cfg: ModelConfig) -> dict[str, jax.Array]:
    """Return adapters as they begin, but with some noise, so that B is not zero."""
    rng = np.random.default_rng(0)
    return {n: v + jnp.asarray(0.02 * rng.normal(size=v.shape), v.dtype) for n, v in init_adapters(cfg).items()}
