"""Patch embeddings by the name that `config.model.patch_embed` has."""

from collections.abc import Callable
from typing import Any

from flax import nnx

from eve_jax.model.code_embed import CodeEmbed
from eve_jax.model.config import ModelConfig
from eve_jax.model.encoder_embed import EncoderEmbed
from eve_jax.model.patch_embed import PatchEmbed
from eve_jax.model.placed_patches import NormedPatches, PlacedPatches
from eve_jax.model.plain_patches import LinearPatches, RotaryPatches
from eve_jax.model.v1.patch_embed import WindowEmbed

PATCH_EMBEDS: dict[str, Callable[[ModelConfig, nnx.Rngs], Any]] = {
    "v2": PatchEmbed,
    "v1": WindowEmbed,
    "conv_gelu_rope": RotaryPatches,
    "linear": LinearPatches,
    "ln_linear_pos": PlacedPatches,
    "ln_linear_pos_norm": NormedPatches,
    "clip": EncoderEmbed,
    "vq": CodeEmbed,
}
