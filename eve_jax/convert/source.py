"""A folder with a model in it, ours or Hugging Face's, opened without knowing which."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from flax import nnx

from eve_jax.convert.hf import HfSource
from eve_jax.errors import UserError
from eve_jax.model.config import VARIANTS, ModelConfig
from eve_jax.model.eve import Params, abstract_params
from eve_jax.model.patch_embed import PatchEmbed
from eve_jax.train.checkpoint import CONFIG, load_params, read_config
from eve_jax.train.stages import text_twin


class ParamSource(Protocol):
    """Parameters that are read one at a time."""

    cfg: ModelConfig
    shapes: Params  # name -> jax.ShapeDtypeStruct

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Parameter `name`: its layers in order when it is stacked, else the one array."""


class Completed:
    """`source` as a model of `parts`: the vision twins that it lacks are copies of its text weights, a patch embedding
    that it lacks is initialised from `seed` (the values of `init_params`)."""

    def __init__(self, source: ParamSource, parts: tuple[str, ...], seed: int = 0):
        self.source, self.seed = source, seed
        self.cfg = replace(source.cfg, parts=parts)
        lost = set(source.cfg.parts) - set(parts)
        if lost:
            raise UserError(f"the checkpoint has vision weights for {', '.join(sorted(lost))}, which would be dropped")
        self.shapes: Params = {}
        for name, shape in abstract_params(self.cfg).items():
            origin = self._origin(name)
            self.shapes[name] = source.shapes[origin] if origin else shape

    def _origin(self, name: str) -> str | None:
        return next((n for n in (name, text_twin(name)) if n in self.source.shapes), None)

    @cached_property
    def _fresh(self) -> Params:
        @jax.jit  # as in init_params: uncompiled, the last bits differ
        def make(key: jax.Array) -> Params:
            state = nnx.state(PatchEmbed(self.cfg, nnx.Rngs(key)))
            return {f"patch_embed.{'.'.join(map(str, path))}": v[...] for path, v in nnx.to_flat_state(state)}

        return make(jax.random.key(self.seed))

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Parameter `name`: its layers in order when it is stacked, else the one array."""
        origin = self._origin(name)
        if origin is None:
            yield np.asarray(self._fresh[name])
        else:
            yield from self.source.pieces(origin)


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


def open_checkpoint(folder: str | Path, variant: str = "", seed: int = 0, patch_hidden: int = 1024) -> Checkpoint:
    """The model in `folder`: a stage folder of ours, an EVE folder of Hugging Face's layout, or a plain LLM's.

    Of a Hugging Face model, `variant` asks for vision twins as copies of the text weights ("" = those it has); a
    plain LLM gets a patch embedding of `patch_hidden` channels initialised from `seed`. Raises UserError.
    """
    folder = Path(folder)
    if is_ours(folder):
        config = read_config(folder)
        return Checkpoint(folder, ModelConfig.from_dict(config["model"]), config["data"])
    source = HfSource(folder, patch_hidden)
    completed = Completed(source, VARIANTS[variant] if variant else source.cfg.parts, seed)
    return Checkpoint(folder, completed.cfg, source.data, completed)
