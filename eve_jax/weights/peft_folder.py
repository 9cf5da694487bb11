"""Adapters as a folder of the library `peft`, which adds them to the exported base (docs/lora.md#with-peft)."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eve_jax.checkpoint.adapters import adapted_by
from eve_jax.checkpoint.named_step import find_checkpoint
from eve_jax.checkpoint.stage_folder import newest_step
from eve_jax.checkpoint.streaming import OrbaxSource
from eve_jax.errors import UserError
from eve_jax.hf.names import Entry, eve_names
from eve_jax.hf.safetensors_io import ADAPTER, SINGLE, TensorWriter
from eve_jax.model.config import ModelConfig
from eve_jax.process.files import write_json
from eve_jax.weights.import_export import new_folder
from eve_jax.weights.open import open_checkpoint, stored_source
from eve_jax.weights.peft_base import check_base, open_base

OUTER = "base_model.model."  # before the names of the base's modules
WEIGHT = ".weight"


class Pair(NamedTuple):
    """An adapter: the names of its two parameters, and the entry of the matrix that it is for."""

    a: str
    b: str
    entry: Entry


def export_peft(folder: str | Path, target: str | Path, base: str = "") -> Path:
    """Make the folder `target` of `peft` from the adapters of the run in the stage folder `folder`; returns it.

    It goes with the Hugging Face folder that `export_checkpoint` makes of the run's base, with values as they are
    stored; `base` is how that is named in it, a folder, whose weights are compared, or an id of the hub. Raises
    UserError with nothing left behind, also where the run's base is gone or holds other weights.
    """
    checkpoint, target = open_checkpoint(find_checkpoint(folder)), Path(target)
    folder, cfg = checkpoint.folder, checkpoint.cfg
    if cfg.lora is None:
        raise UserError(f"{folder} has no adapters: it is no run with config.lora.rank above 0")
    step = newest_step(folder) if checkpoint.step is None else checkpoint.step
    source = OrbaxSource(folder, step, cfg)
    table = {entry.ours: entry for entry in eve_names(replace(cfg, lora=None))}
    pairs = [Pair(own["lora_a"], own["lora_b"], table[name]) for name, own in adapted_by(cfg).items()]
    found = open_base(base)
    with new_folder(target) as temporary:
        adapted = {name for pair in pairs for name in pair.entry.names(cfg)}
        check_base(stored_source(folder, step), table.values(), adapted, found, base)
        specs = [spec for pair in pairs for spec in _specs(source, pair)]
        total = sum(np.dtype(s.dtype).itemsize * s.size for s in source.shapes.values())
        with TensorWriter(temporary, specs, max(total, 1)) as writer:
            for pair in pairs:
                pieces = zip(_modules(cfg, pair.entry), source.pieces(pair.a), source.pieces(pair.b), strict=True)
                for module, a, b in pieces:
                    for name, value in zip(_names(module), _theirs(pair.entry, a, b), strict=True):
                        writer.write(name, value)
        (temporary / SINGLE).rename(temporary / ADAPTER[1])
        settings = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base or None,
            "r": cfg.lora.rank,
            "lora_alpha": cfg.lora.alpha,
            "lora_dropout": cfg.lora.dropout,
            "target_modules": _pattern(pair.entry for pair in pairs),
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
        }
        write_json(temporary / ADAPTER[0], settings, indent=1)
    return target


def _modules(cfg: ModelConfig, entry: Entry) -> list[str]:
    """The modules of theirs whose weight `entry` is, one a layer where it is stacked."""
    return [name.removesuffix(WEIGHT) for name in entry.names(cfg)]


def _names(module: str) -> tuple[str, str]:
    return f"{OUTER}{module}.lora_A{WEIGHT}", f"{OUTER}{module}.lora_B{WEIGHT}"


def _theirs(entry: Entry, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A and B as `peft` has them: of a convolution A is one to `rank` channels, and B one of 1 x 1."""
    inner, outer = entry.to_theirs(a), b.T
    return inner, outer.reshape(*outer.shape, *[1] * (inner.ndim - 2))


def _specs(source: OrbaxSource, pair: Pair) -> list[tuple[str, np.dtype, tuple[int, ...]]]:
    stored = [source.shapes[name] for name in (pair.a, pair.b)]
    empty = [np.broadcast_to(np.zeros((), s.dtype), s.shape[pair.entry.stacked :]) for s in stored]
    both = _theirs(pair.entry, *empty)
    names = [_names(module) for module in _modules(source.cfg, pair.entry)]
    return [(n, np.dtype(v.dtype), v.shape) for each in names for n, v in zip(each, both, strict=True)]


def _pattern(entries: Iterable[Entry]) -> str:
    """A regular expression of the names of all modules, and of no others."""
    parts = [re.escape(entry.theirs.removesuffix(WEIGHT)) for entry in entries]
    return "|".join(sorted({part.replace(re.escape("{layer}"), r"\d+") for part in parts}))
