"""Embedders: functions from images to features, each with a text that stands for what the features depend on."""

import numpy as np
from jaxtyping import Float32
from PIL import Image

from eve_jax.curate.config import CLIP, ENDPOINT, LITE, EmbedConfig
from eve_jax.curate.embedders.form import Embedder, Images

GRID = 8  # of `pixels`


def open_embedder(config: EmbedConfig) -> Embedder:
    """Return the embedder of a config. Raises UserError for a model that cannot be opened."""
    if config.kind == CLIP:
        from eve_jax.curate.embedders.clip import clip_embedder

        return clip_embedder(config.model, config.batch)
    if config.kind == ENDPOINT:
        from eve_jax.curate.embedders.endpoint import endpoint_embedder

        return endpoint_embedder(config.url, config.model)
    if config.kind == LITE:
        from eve_jax.curate.experts.tags import SIDE, features

        return Embedder(features, SIDE)
    return Embedder(pixel_features, 4 * GRID)


def check_embedder(config: EmbedConfig) -> None:
    """Raise UserError for a model or a package that is missing."""
    if config.kind == CLIP:
        from eve_jax.hf.clip_teacher import describe_teacher

        describe_teacher(config.model)
    elif config.kind == LITE:
        open_embedder(config).embed([])


def identity(config: EmbedConfig) -> str:
    """Return a text that differs whenever the features do; of files, by their names, sizes and ends."""
    if config.kind == CLIP:
        from eve_jax.curate.embedders.clip import clip_identity

        return clip_identity(config.model)
    return f"{config.kind} {config.model}"


def pixel_features(images: Images) -> Float32[np.ndarray, "n D"]:
    """Return the colors of 8 x 8 fields of each image, float32 [n, 192], each image's of mean 0.

    They need no model, and tell compositions and palettes apart, not things: for tests and for looking at a pipeline.
    """
    small = [Image.fromarray(image).resize((GRID, GRID), Image.Resampling.BOX) for image in images]
    fields = np.stack([np.asarray(image, np.float32).ravel() for image in small])
    return fields - fields.mean(axis=1, keepdims=True)
