"""Parameters as the engine takes them, of a checkpoint or of a model that trains, and batches, on a mesh."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from eve_jax import sharding
from eve_jax.checkpoint.vision_copies import fold
from eve_jax.hf.clip_teacher import without_aligning
from eve_jax.model import quantized
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Batch, Params, logical_axes, parameter_shardings
from eve_jax.weights.open import Checkpoint
from eve_jax.weights.quantize import for_inference, kept_weights


def loaded(
    checkpoint: Checkpoint, mesh: Mesh | None = None, dtype: str = "", weights: str = ""
) -> tuple[ModelConfig, Params]:
    """Sizes and parameters of `checkpoint` as the engine requires them, for computation in `dtype` ("": its own).

    On a mesh every parameter is read straight to where it lies there: no device holds more of it than its share.
    `weights` int8 or int4 quantizes the matrices of the layers while they are read ("": they are as the folder has
    them). Raises UserError.
    """
    return _cast(*stored(checkpoint, mesh, dtype, weights))


def stored(
    checkpoint: Checkpoint, mesh: Mesh | None = None, dtype: str = "", weights: str = ""
) -> tuple[ModelConfig, Params]:
    """`loaded` with the parameters in the types that they are stored in."""
    weights = kept_weights(checkpoint, weights)
    if weights or mesh is not None:
        cfg, params = for_inference(checkpoint, weights, mesh)
    else:
        cfg, params = checkpoint.for_inference()
    return replace(cfg, dtype=dtype or cfg.dtype), params


def ready(cfg: ModelConfig, params: Params) -> tuple[ModelConfig, Params]:
    """Sizes and parameters as the engine requires them, of a model that trains: `Engine(*ready(cfg, params), mesh)`.

    `params` are all of its parameters, on the training's mesh. Those that have the computation's dtype are shared, not
    copied, so an engine of them ends with the next step, which overwrites what it trains; the others are cast.
    """
    return _cast(*without_aligning(*fold(cfg, params)))


def _cast(cfg: ModelConfig, params: Params) -> tuple[ModelConfig, Params]:
    """Parameters, whose dict is the caller's alone, in the computation's dtype, as each would be before its use.

    Quantized ones keep their types.
    """
    for name in list(params):  # one at a time, so that both copies exist of one weight only
        if not quantized.is_quantized(params[name]):
            params[name] = jnp.asarray(params[name], cfg.dtype)
    return replace(cfg, remat="none", longest_image=0), params


def shard_params(cfg: ModelConfig, params: Params, mesh: Mesh) -> Params:
    """`params` where they lie on `mesh` while a model trains; those that are there are not copied."""
    places = parameter_shardings(cfg, mesh)
    axes = logical_axes(cfg)
    out = {}
    for name, value in params.items():
        if quantized.is_quantized(value):
            out[name] = jax.tree.map(partial(_part, mesh, axes[name]), quantized.placed(value, mesh, axes[name]))
        else:
            out[name] = sharding.place(value, places[name])
    return out


def _part(mesh: Mesh, axes: tuple[str | None, ...], value: Any) -> Any:
    """Values or scales of a quantized weight of logical `axes` on `mesh`."""
    return sharding.place(value, sharding.parameter_sharding(mesh, axes, value.shape))


def on_mesh(mesh: Mesh | None, batch: Batch) -> Batch:
    """`batch`, which every process has in whole, with its rows over `mesh`; as it is without one."""
    if mesh is None:
        return batch
    return {name: sharding.place(value, sharding.batch_sharding(mesh)) for name, value in batch.items()}
