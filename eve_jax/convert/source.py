"""A folder with a model in it, ours or Hugging Face's, opened without knowing which."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from eve_jax.convert.hf import HfSource
from eve_jax.convert.surgery import Completed, ParamSource, fold
from eve_jax.convert.teacher import without_aligning
from eve_jax.errors import UserError
from eve_jax.model.config import VARIANTS, ModelConfig
from eve_jax.model.eve import Params
from eve_jax.train.checkpoint import CONFIG, load_params, read_config


@dataclass(frozen=True)
class Checkpoint:
    """A model in a folder: sizes, the settings that go with it (`config.data`'s names), and its parameters."""

    folder: Path
    cfg: ModelConfig
    data: dict[str, Any]
    source: ParamSource | None = None  # None: a stage folder of ours

    def params(self, shardings: dict[str, Any] | None = None) -> Params:
        """All parameters on the devices; `shardings` may name a sharding for some, the others go to the default."""
        if self.source is None:
            return load_params(self.folder, shardings)[1]
        default = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        places = {name: (shardings or {}).get(name, default) for name in self.source.shapes}
        return {name: jax.device_put(_gather(self.source, name), place) for name, place in places.items()}

    def for_inference(self) -> tuple[ModelConfig, Params]:
        """Sizes and parameters with gated deltas added into the weights, and nothing that only training needs."""
        return without_aligning(*fold(self.cfg, self.params()))


def _gather(source: ParamSource, name: str) -> np.ndarray:
    shape = source.shapes[name]
    out = np.empty(shape.shape, shape.dtype)
    for i, piece in enumerate(source.pieces(name)):
        out[i if piece.ndim < out.ndim else ...] = piece
    return out


def is_ours(folder: Path) -> bool:
    """True for a stage folder of ours, False for a Hugging Face folder; UserError when it is neither."""
    config = read_config(folder)
    if "model" in config:
        return True
    if "model_type" not in config:
        raise UserError(f"{folder / CONFIG} is of no model: it has neither a section `model` nor a field `model_type`")
    return False


def open_checkpoint(folder: str | Path, variant: str = "", seed: int = 0, **patch: Any) -> Checkpoint:
    """The model in `folder`: a stage folder of ours, an EVE folder of Hugging Face's layout, or a plain LLM's.

    Of a Hugging Face model, `variant` asks for vision twins as copies of the text weights ("" = those it has); a
    plain LLM gets the patch embedding that `patch` describes (fields of ModelConfig: patch_embed, patch_hidden,
    sub_patch), initialised from `seed`. Raises UserError.
    """
    folder = Path(folder)
    if is_ours(folder):
        config = read_config(folder)
        return Checkpoint(folder, ModelConfig.from_dict(config["model"]), config["data"])
    source = HfSource(folder, **patch)
    completed = Completed(source, VARIANTS[variant] if variant else source.cfg.parts, seed)
    return Checkpoint(folder, completed.cfg, source.data, completed)
