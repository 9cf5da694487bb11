"""The vision encoder of a model with `patch_embed` clip: where training takes it from."""

from collections.abc import Collection
from dataclasses import asdict

import jax.numpy as jnp

from eve_jax.errors import Field, FieldError
from eve_jax.hf.clip_teacher import RANDOM, load_teacher, open_teacher
from eve_jax.model.clip_config import ClipConfig
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, of_groups

TOWER = "patch_embed.tower."


def check_encoder(cfg: ModelConfig, folder: str, known: Collection[str] | None) -> None:
    """Raise UserError where `with_encoder` would, without reading weights.

    known: names of the parameters that `config.init` has, None when training begins with random ones.
    """
    if cfg.encoder is None:
        return
    if folder not in ("", RANDOM):
        open_teacher(folder, _sizes(cfg))
    elif not folder and known is not None and not of_groups(cfg, "encoder") <= set(known):
        raise FieldError(
            Field("init"),
            " has no vision encoder: name a folder of CLIP's by ",
            Field("encoder"),
            ", which configs take as encoder=DIR, or encoder=random",
        )


def with_encoder(cfg: ModelConfig, params: Params, folder: str) -> Params:
    """Return `params` with the vision encoder in CLIP's `folder`; "" and RANDOM keep the one that they have."""
    if cfg.encoder is None or folder in ("", RANDOM):
        return params
    found = load_teacher(folder, _sizes(cfg))
    return params | {TOWER + name.removeprefix("teacher."): jnp.asarray(value) for name, value in found.items()}


def _sizes(cfg: ModelConfig) -> ClipConfig:
    assert cfg.encoder is not None
    return ClipConfig(**asdict(cfg.encoder))
