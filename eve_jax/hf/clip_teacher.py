"""EVEv1's teacher, the vision tower of CLIP: from its own Hugging Face folder, and as part of an EVEv1 checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from eve_jax.errors import Field, FieldError, UserError, name_fields
from eve_jax.hf.config import CONFIG, clip_config
from eve_jax.hf.names import COMPRESSOR, TEACHER, Entry, clip
from eve_jax.hf.safetensors_io import TensorInfo, check_names, open_tensors
from eve_jax.model.clip_config import ClipConfig
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, abstract_params, init_params, of_groups
from eve_jax.model.weight import TRAINING_ONLY
from eve_jax.process.files import read_json
from eve_jax.process.paths import no_folder

TWIN = f"{COMPRESSOR}clip_layer.backbone."  # the original's second name for the teacher's weights
HEAD_SIZE = 64  # of every CLIP; the number of heads is in no tensor
RANDOM = "random"  # in place of CLIP's folder
TEXT_TOWER = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")  # of a whole CLIP


def describe_teacher(folder: str | Path) -> ClipConfig:
    """Sizes of the vision tower in a Hugging Face folder of CLIP's. Raises UserError when there is none."""
    if not Path(folder).is_dir():
        raise no_folder(folder)
    hf = read_json(Path(folder) / CONFIG)
    if hf.get("model_type") not in ("clip", "clip_vision_model"):
        raise UserError(f"{folder} is no CLIP: its model_type is {hf.get('model_type')!r}")
    with name_fields(lambda field: field.removeprefix("model."), f"{Path(folder) / CONFIG}: "):
        return clip_config(hf)


def open_teacher(folder: str | Path, cfg: ClipConfig) -> dict[str, TensorInfo]:
    """The tensors of the vision tower in CLIP's Hugging Face folder, by their names there; none is read yet.

    Raises UserError naming a tensor that is missing, unknown or of another shape than `cfg` says.
    """
    if (own := describe_teacher(folder)) != cfg:
        raise UserError(f"{folder} is of other sizes than the config's model.teacher or model.encoder: {own}, {cfg}")
    tensors = open_tensors(Path(folder))
    if not any(name.startswith("vision_model.") for name in tensors):  # newer releases save the tower without a prefix
        tensors = {f"vision_model.{name}": info for name, info in tensors.items()}
    sized = tower_only(cfg)
    shapes = abstract_params(sized)
    expected = ((n, e.their_shape(shapes[e.ours].shape)) for e in _table(cfg) for n in e.names(sized))
    found = {name: info.shape for name, info in tensors.items()}
    check_names(str(folder), expected, found, lambda name: name.startswith(TEXT_TOWER))
    return tensors


def _table(cfg: ClipConfig) -> list[Entry]:
    return [entry._replace(ours=f"teacher.{entry.ours}") for entry in clip(cfg)]


def load_teacher(folder: str | Path, cfg: ClipConfig) -> Params:
    """The weights (numpy) of that tower under our names (`teacher.`). Raises UserError as `open_teacher` does."""
    tensors, sized = open_teacher(folder, cfg), tower_only(cfg)
    params: Params = {}
    for entry in _table(cfg):
        parts = [entry.to_ours(tensors[n].read()) for n in entry.names(sized)]
        params[entry.ours] = np.stack(parts) if entry.stacked else parts[0]
    return params


def tower_only(cfg: ClipConfig) -> ModelConfig:
    """The smallest model that has such a teacher, in float32."""
    return ModelConfig(1, 1, 1, 1, 1, 1, 2, parts=(), dtype="float32", teacher=cfg)


def one_teacher(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The tensors of an EVEv1 folder with the teacher under its first name alone.

    The original's state has the teacher twice, under two names. Raises UserError when the two differ.
    """
    out = {name: info for name, info in tensors.items() if not name.startswith(TWIN)}
    for name in tensors.keys() - out.keys():
        first = TEACHER + name.removeprefix(TWIN)
        if first in out and not np.array_equal(out[first].read(), tensors[name].read()):
            raise UserError(f"tensors {first} and {name} differ, which are one weight")
        out.setdefault(first, tensors[name])
    return out


def sizes_from_tensors(
    cfg: ModelConfig, tensors: Mapping[str, TensorInfo], teacher_sizes: ClipConfig | None
) -> ModelConfig:
    """EVEv1's `cfg` with what only the tensors tell: side of a patch, and whether there is anything for aligning.

    `teacher_sizes` are the teacher's, where the folder's config.json has them.
    """
    conv = tensors.get("model.vision_tower.patch_embedding.weight")
    reads = tensors.get(f"{COMPRESSOR}input_layer.weight")
    if conv is not None:
        cfg = replace(cfg, sub_patch=conv.shape[-1])
    if reads is not None:
        cfg = replace(cfg, align_width=reads.shape[0])
    at = f"{TEACHER}vision_model."
    patches, position = (tensors.get(f"{at}embeddings.{n}.weight") for n in ("patch_embedding", "position_embedding"))
    up = tensors.get(f"{at}encoder.layers.0.mlp.fc1.weight")
    if teacher_sizes is not None:
        return replace(cfg, teacher=teacher_sizes)
    if patches is None or position is None or up is None:
        return cfg
    layers = sum(name.startswith(f"{at}encoder.layers.") and name.endswith("fc1.bias") for name in tensors)
    width, side = patches.shape[0], patches.shape[-1]
    image = math.isqrt(position.shape[0] - 1) * side
    return replace(cfg, teacher=ClipConfig(image, side, width, up.shape[0], layers, max(width // HEAD_SIZE, 1)))


def without_aligning(cfg: ModelConfig, params: Params) -> tuple[ModelConfig, Params]:
    """The model as it is used: no aligning layer, no teacher."""
    dropped = of_groups(cfg, *TRAINING_ONLY)
    kept = {name: value for name, value in params.items() if name not in dropped}
    return replace(cfg, align_weight=0.0, align_width=0, teacher=None), kept


def no_teacher() -> FieldError:
    """The error of a stage whose aligning layer has no teacher."""
    return FieldError(
        Field("init"),
        " has no teacher: name a folder of CLIP's by ",
        Field("teacher"),
        ", which configs take as teacher=DIR or encoder=DIR, or set align_weight=0",
    )


def with_aligning(cfg: ModelConfig, source: ModelConfig, params: Params, folder: str, seed: int) -> Params:
    """Return `params` of the model `source` with the aligning layer and the teacher of `cfg`, and no others.

    What is missing is taken from CLIP's `folder` (the teacher) or initialized from `seed` (the aligning layer, and with
    RANDOM as `folder` the teacher, too). Raises UserError when a teacher is missing and `folder` is "".
    """
    shapes = abstract_params(cfg)
    align, teacher, dropped = of_groups(cfg, "align"), of_groups(cfg, "teacher"), of_groups(source, *TRAINING_ONLY)
    out = {name: value for name, value in params.items() if name in shapes or name not in dropped}
    if cfg.align_width and not align & out.keys():
        out |= init_params(cfg, seed, "align")
    taught = bool(teacher & out.keys())
    if cfg.teacher and folder == RANDOM:
        out |= {} if taught else init_params(cfg, seed, "teacher")
    elif cfg.teacher and folder:
        out |= {name: jnp.asarray(value) for name, value in load_teacher(folder, cfg.teacher).items()}
    elif cfg.teacher and not taught:
        raise no_teacher()
    for name in sorted((align | teacher) & out.keys()):
        if out[name].shape != shapes[name].shape:
            raise UserError(f"config.init has {name} of shape {out[name].shape}, the model's is {shapes[name].shape}")
    return out
