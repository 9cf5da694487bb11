"""Hugging Face tensors to our parameters, strictly: every name is accounted for or the conversion stops."""

from collections.abc import Mapping

import numpy as np

from eve_jax.convert.names import eve_qwen2
from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, abstract_params


def from_hf(cfg: ModelConfig, tensors: Mapping[str, np.ndarray]) -> Params:
    """Our parameters (numpy, dtype of the source) from the tensors of an EVEv2-Qwen2 checkpoint.

    Raises UserError naming a missing or unknown tensor, or one whose shape does not fit `cfg`.
    """
    shapes = abstract_params(cfg)
    used: set[str] = set()
    params: Params = {}
    for entry in eve_qwen2(cfg):
        names = [entry.theirs.format(layer=i) for i in range(cfg.num_layers)] if entry.stacked else [entry.theirs]
        missing = [n for n in names if n not in tensors]
        if missing:
            raise UserError(f"checkpoint: tensor {missing[0]} is missing")
        try:
            parts = [entry.to_ours(tensors[n]) for n in names]
        except ValueError as error:
            raise UserError(f"checkpoint: tensor {names[0]} has shape {tensors[names[0]].shape}: {error}") from error
        value = np.stack(parts) if entry.stacked else parts[0]
        if value.shape != shapes[entry.ours].shape:
            raise UserError(f"checkpoint: {names[0]} gives {value.shape}, the model wants {shapes[entry.ours].shape}")
        params[entry.ours] = value
        used.update(names)
    unknown = sorted(set(tensors) - used)
    if unknown:
        raise UserError(f"checkpoint: tensor {unknown[0]} is unknown to this model ({len(unknown)} such)")
    return params
