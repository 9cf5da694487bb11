"""How far training moved a model from the LLM that it started as (EVEv2 paper, Fig. 3)."""

import numpy as np

from eve_jax.checkpoint.adapters import without_adapters
from eve_jax.checkpoint.vision_copies import Folded, ParamSource, copied_from
from eve_jax.errors import UserError
from eve_jax.model.config import DELTA
from eve_jax.model.eve import declared


def weight_changes(before: ParamSource, after: ParamSource) -> dict[str, list[float]]:
    """Mean absolute change of every weight of the decoder layers: name in `after` -> a value a layer.

    Text weights are compared with their own values in `before`, vision weights with the text weights they were copied
    from, both with gated deltas and adapters added in. Reads a layer of two weights at a time. Raises UserError when
    the two models do not have the same layers.
    """
    before, after = _folded(before), _folded(after)
    changes = {}
    for name in (n for n in after.shapes if declared(after.cfg)[n].stacked):
        origin, shape = copied_from(after.cfg, name), after.shapes[name].shape
        found = before.shapes.get(origin)
        if found is None or found.shape != shape:
            raise UserError(f"{name} has shape {shape}, {origin} of the model before {found and found.shape}")
        pairs = zip(before.pieces(origin), after.pieces(name), strict=True)
        changes[name] = [_mean_change(old, new) for old, new in pairs]
    return changes


def _folded(source: ParamSource) -> ParamSource:
    source = without_adapters(source)
    return Folded(source) if DELTA in source.cfg.parts else source


def _mean_change(old: np.ndarray, new: np.ndarray) -> float:
    return float(np.abs(new.astype(np.float32) - old.astype(np.float32)).mean(dtype=np.float64))
