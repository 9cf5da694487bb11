"""The weights of any checkpoint quantized (`eve_jax.model.quantized`) while they are read, a layer of one at a time."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh

from eve_jax.checkpoint.adapters import without_adapters
from eve_jax.checkpoint.vision_copies import Folded, ParamSource
from eve_jax.errors import Argument, FieldError, UserError
from eve_jax.hf.clip_teacher import without_aligning
from eve_jax.model import quantized
from eve_jax.model.config import DELTA, ModelConfig
from eve_jax.model.eve import Params, head_name, logical_axes, quantizable
from eve_jax.sharding import parameter_sharding
from eve_jax.weights.not_finite import count
from eve_jax.weights.open import Checkpoint, stored_source
from eve_jax.weights.shards import Shards, filled, read

TABLE_ROWS = 8192
_quantize = jax.jit(quantized.quantize, static_argnums=1)


def kept_weights(checkpoint: Checkpoint, weights: str) -> str:
    """Return what the weights of `checkpoint` are when `weights` are asked for: those, or as the folder has them.

    Raises UserError when the folder has others, and where the library is missing.
    """
    stored = getattr(checkpoint.source, "weights", "")
    if stored and weights not in ("", stored):
        raise FieldError(
            Argument("weights"),
            f"={weights}: {checkpoint.folder} holds {stored} weights; name the model they were made of",
        )
    return quantized.check_weights(weights or stored)


def quantized_as(cfg: ModelConfig, weights: str) -> dict[str, str]:
    """Return the parameters of `cfg` that `weights` quantizes, and how: matrices of layers so, the LM head by row."""
    if not weights:
        return {}
    return dict.fromkeys(sorted(quantizable(cfg)), weights) | {head_name(cfg): quantized.BY_ROW}


def for_inference(checkpoint: Checkpoint, weights: str, mesh: Mesh | None = None) -> tuple[ModelConfig, Params]:
    """Sizes and parameters as `Checkpoint.for_inference` has them, quantized to `weights`, int8 or int4, as of
    `quantized_as`.

    "" leaves them as they are stored.

    On a mesh each parameter lies where the rules of training put it. The host holds a layer of one parameter, and the
    ones that its own devices get. Raises UserError.
    """
    source = inner(checkpoint)
    cfg, _ = without_aligning(replace(checkpoint.here, parts=source.cfg.parts, lora=None), {})
    axes, kinds = logical_axes(cfg), quantized_as(cfg, weights)
    params: Params = {}
    for name in axes:
        place = partial(_place, mesh, axes[name])
        if name in kinds:
            params[name] = quantized.placed(_read_quantized(source, name, kinds[name], place), mesh, axes[name])
        else:
            params[name] = read(source, name, place(source.shapes[name].shape))
    return cfg, params


def inner(checkpoint: Checkpoint) -> ParamSource:
    """All parameters of `checkpoint`, to be read by layers, with gated deltas and adapters added into the weights."""
    source = without_adapters(checkpoint.source or stored_source(checkpoint.folder, checkpoint.step))
    return Folded(source) if DELTA in source.cfg.parts else source


def quantized_pieces(source: ParamSource, name: str, weights: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Values and scales of each layer of parameter `name`, as they are stored, or quantized here.

    The table of the LM head is quantized here of a folder that was written while exports kept it whole, too.
    """
    if getattr(source, "weights", "") and (weights != quantized.BY_ROW or source.packed(name)):  # type: ignore[attr-defined]
        yield from source.quantized_pieces(name, weights)  # type: ignore[attr-defined]
        return
    yield from (quantized_piece(piece, weights, name) for piece in source.pieces(name))


def quantized_piece(piece: np.ndarray, weights: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and scales of a table or of the matrix of one layer of parameter `name`, quantized on the first device of
    this process, a table TABLE_ROWS rows at a time.

    Raises UserError for values that are not finite: int8 and int4 have none, so they would become others.
    """
    table = weights == quantized.BY_ROW
    if bad := count(piece):
        raise UserError(
            f"{name} is NaN or infinite in {bad:,} weights{'' if table else ' of a layer'}, which cannot be quantized "
            f"to {weights.split()[0]}: use another checkpoint"
        )
    rows = TABLE_ROWS if table else len(piece)
    found = [_quantize(piece[start : start + rows], weights) for start in range(0, len(piece), rows)]
    return np.concatenate([part.qvalue for part in found]), np.concatenate([part.scale for part in found])


def _place(mesh: Mesh | None, axes: tuple[str | None, ...], shape: tuple[int, ...]) -> jax.sharding.Sharding:
    if mesh is None:
        return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return parameter_sharding(mesh, axes, shape)


def _read_quantized(source: ParamSource, name: str, weights: str, place: partial) -> "quantized.QArray":
    shape, types = source.shapes[name].shape, quantized.dtypes(weights)
    shapes = shape, quantized.scale_shape(shape, weights)
    shards = [Shards(own, kind, place(own)) for own, kind in zip(shapes, types, strict=True)]
    return quantized.joined(*filled(shards, quantized_pieces(source, name, weights)))
