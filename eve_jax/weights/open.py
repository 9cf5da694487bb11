"""A folder with a model in it, ours or Hugging Face's, opened without knowing which."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from eve_jax.checkpoint.adapters import merge
from eve_jax.checkpoint.frozen_weights import Origin, origins
from eve_jax.checkpoint.named_step import check_step
from eve_jax.checkpoint.stage_folder import CONFIG, newest_step, read_config, steps_in
from eve_jax.checkpoint.stored import load_stored, stored_shapes
from eve_jax.checkpoint.streaming import OrbaxSource, Referring, check_shapes
from eve_jax.checkpoint.vision_copies import Completed, ParamSource, add_vision_copies, copied_from, fold
from eve_jax.checkpoint.weight_fingerprint import fingerprints
from eve_jax.checkpoint.zero_weights import check_needed
from eve_jax.errors import UserError
from eve_jax.hf.clip_teacher import without_aligning
from eve_jax.hf.safetensors_io import refuse_adapter
from eve_jax.hf.tensors import HfSource
from eve_jax.model.config import VARIANTS, ModelConfig
from eve_jax.model.eve import Params, abstract_params
from eve_jax.process.at_step import at_step
from eve_jax.process.paths import no_folder
from eve_jax.sharding import place
from eve_jax.weights.divided import read_params
from eve_jax.weights.stage_config import stage_config


@dataclass(frozen=True)
class Checkpoint:
    """A model in a folder: sizes, the settings that go with it (`config.data`'s names), and its parameters."""

    folder: Path
    cfg: ModelConfig
    data: dict[str, Any]
    source: ParamSource | None = None  # None: a stage folder of ours
    step: int | None = None  # of a stage folder of ours; None: the newest that is sound

    @property
    def name(self) -> Path:
        """Return what opens it again: its folder, with the step where one was named."""
        return self.folder if self.step is None else Path(f"{self.folder}@{self.step}")

    def params(self, shardings: dict[str, Any] | None = None, names: Collection[str] | None = None) -> Params:
        """Parameters on the devices, all or `names` as far as the model has them, also those that are only referred to.

        `shardings` may name a sharding for some, the others go to the default device. Raises UserError.
        """
        default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        places = defaultdict(lambda: default, shardings or {})
        if self.source is not None:
            if kept := getattr(self.source, "weights", ""):
                raise UserError(
                    f"{self.folder} holds {kept} weights, which are for answers and losses alone; name the model that "
                    "they were made of"
                )
            here = [n for n in self.source.shapes if names is None or n in names]
            return read_params(self.source, here, places)
        step = newest_step(self.folder) if self.step is None else self.step
        stored, elsewhere = stored_shapes(self.folder, step), origins(self.folder, step)
        model = abstract_params(self.cfg)
        referred = {n: model[n] for origin in elsewhere for n in origin.weights if n in model and n not in stored}
        check_shapes(self.folder, self.cfg, stored | referred)
        wanted = {
            n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=places[n])
            for n, s in stored.items()
            if names is None or n in names
        }
        params = load_stored(self.folder, step, wanted) if wanted else {}
        check_needed(f"{self.folder}, step {step}", params)
        for origin in elsewhere:
            params |= load_frozen(origin, self.folder, self.cfg, places, names)
        return params

    @property
    def here(self) -> ModelConfig:
        """Sizes for answers and losses on these devices: the kernel of attention is theirs, whatever training took."""
        return replace(self.cfg, remat="none", attention="auto", longest_image=0)

    def for_inference(self, shardings: dict[str, Any] | None = None) -> tuple[ModelConfig, Params]:
        """Sizes and parameters with gated deltas and adapters added into the weights, and nothing that only training
        needs.

        `shardings` as in `params`.
        """
        return without_aligning(*fold(*merge(self.here, self.params(shardings))))


def load_frozen(
    origin: Origin,
    folder: Path,
    cfg: ModelConfig,
    shardings: Mapping[str, Any],
    names: Collection[str] | None = None,
) -> Params:
    """The weights (all or `names` of them) that the partial checkpoint in `folder`, of sizes `cfg`, has from `origin`.

    Raises UserError when the origin is gone or holds other weights.
    """
    wanted = [n for n in origin.weights if names is None or n in names]
    found = _opened(origin, folder)
    first = {n: copied_from(cfg, n) for n in wanted}
    given = found.params({first[n]: shardings[n] for n in wanted} | dict(shardings), {*wanted, *first.values()})
    whole = add_vision_copies(cfg, given)
    params = {n: place(whole[n].astype(origin.weights[n][0]), shardings[n]) for n in wanted if n in whole}
    if len(params) < len(wanted):
        raise _gone(folder, next(n for n in wanted if n not in params), found)
    origin.check(folder, fingerprints(params))
    return params


def stored_source(folder: Path, step: int | None = None, average: bool = False) -> ParamSource:
    """All parameters of checkpoint `step` (None: the newest sound one) of a stage folder, to be read layer by layer.

    average: those that train as their moving average. Raise UserError when the checkpoint has none.
    """
    cfg, _ = stage_config(folder)
    step = newest_step(folder) if step is None else step
    others = []
    for origin in origins(folder, step):
        found = _opened(origin, folder)
        inner = stored_source(found.folder, found.step) if found.source is None else found.source
        others.append((origin, Completed(inner, cfg.parts, origin.seed)))
        if missing := [name for name in origin.weights if name not in others[-1][1].shapes]:
            raise _gone(folder, missing[0], found)
    return Referring(folder, OrbaxSource(folder, step, cfg, average), others)


def open_average(folder: str | Path) -> Checkpoint:
    """The model in a stage folder of ours, FOLDER or FOLDER@STEP, with the moving average of what trains.

    Raise UserError when it has none.
    """
    found = open_checkpoint(folder)
    if found.source is not None:
        raise UserError(f"{folder} is a Hugging Face folder, which has no average of the weights")
    return replace(found, source=stored_source(found.folder, found.step, average=True))


def _opened(origin: Origin, folder: Path) -> Checkpoint:
    """The origin's model, at the step that it had or, when that is gone, the newest: its fingerprints tell."""
    place = origin.find(folder)
    found = open_checkpoint(place, seed=origin.seed, patch_hidden=origin.patch_hidden)
    there = found.source is None and origin.step in steps_in(place)
    return replace(found, step=origin.step) if there else found


def _gone(folder: Path, name: str, origin: Checkpoint) -> UserError:
    return UserError(f"{folder} has {name} from {origin.folder}, which does not hold it now; put back what was there")


def load_params(folder: Path, shardings: dict[str, Any] | None = None) -> tuple[ModelConfig, Params]:
    """Sizes and newest parameters of a stage folder of ours, without the optimizer; see `Checkpoint.params`."""
    cfg, _ = stage_config(folder)
    return cfg, Checkpoint(folder, cfg, {}).params(shardings)


def is_ours(folder: Path) -> bool:
    """True for a stage folder of ours, False for a Hugging Face folder; UserError when it is neither."""
    if not folder.is_dir():
        raise no_folder(folder)
    if not (folder / CONFIG).is_file():
        refuse_adapter(folder)
    config = read_config(folder)
    if "model" in config:
        return True
    if "model_type" not in config:
        raise UserError(f"{folder / CONFIG} is of no model: it has neither a section `model` nor a field `model_type`")
    return False


def open_checkpoint(folder: str | Path, variant: str = "", seed: int = 0, **patch: Any) -> Checkpoint:
    """The model in `folder`: a stage folder of ours, an EVE folder of Hugging Face's layout, or a plain LLM's.

    FOLDER@STEP is a stage folder of ours at that step, which has to be there; its files are not looked at.

    Of a Hugging Face model, `variant` asks for vision copies as copies of the text weights ("" = those it has); a
    plain LLM gets the patch embedding that `patch` describes (fields of ModelConfig: patch_embed, patch_hidden,
    sub_patch), initialized from `seed`. Raises UserError.
    """
    place, step = at_step(folder)
    folder = Path(place)
    if is_ours(folder):
        if step is not None and step not in steps_in(folder):
            check_step(folder, step)
        return Checkpoint(folder, *stage_config(folder), step=step)
    if step is not None:
        raise UserError(f"{folder}@{step}: a Hugging Face folder has no steps; name it without @{step}")
    source = HfSource(folder, **patch)
    completed = Completed(source, VARIANTS[variant] if variant else source.cfg.parts, seed)
    return Checkpoint(folder, completed.cfg, source.data, completed)
