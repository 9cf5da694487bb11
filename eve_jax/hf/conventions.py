"""The conventions that an EVE checkpoint was trained with: sizes of its images, their order, its chat template.

The weights do not tell them, and with others the model is another one. Each is taken from the first of these that says
it; what none of them says is refused by name (docs/data.md has the table):

    section `eve_jax` of config.json (an export of ours) -> preprocessor_config.json -> the teacher's own sizes (EVEv1)
    -> the names that config.json gives (`mm_vision_tower`, `mm_vision_tower_clip`)
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

from eve_jax.data.image.rule import LARGEST, ImageRule
from eve_jax.errors import UserError
from eve_jax.hf.clip_teacher import describe_teacher
from eve_jax.hf.config import (
    CONFIG,
    SIZES,
    V1,
    is_plain,
    model_config,
    tower_size,
)
from eve_jax.hf.preprocessor import PREPROCESSOR, WINDOW, read_preprocessor, whole_number
from eve_jax.hf.section import REQUIRED, located, read_section
from eve_jax.model.config import ModelConfig
from eve_jax.process.files import read_json

# The original puts an image first in its turn, learns by the training rule and has no cap on an image's aspect ratio.
ORIGINAL = {"fit": "shrink", "max_aspect": 0.0, "image_first": True}
OUR_OWN: dict[str, Any] = {
    "image_mode": "anyratio_ld",
    "max_size": 800,
    "max_aspect": 8.0,
    "fit": "shrink",
    "image_first": False,
}
CLIP_NAME = re.compile(r"clip-vit-\w+-patch(?P<patch>\d{1,9})(?:-(?P<size>\d{1,9}))?")
TEACHER = ("image_size_clip", "patch_stride_clip")
CLIP_SIZE = 224  # of a CLIP whose name does not state another


def describe(folder: Path) -> tuple[dict[str, Any], str]:
    """Sizes of the LLM in a Hugging Face folder, under the names of `config.model`, and its chat template.

    Raises UserError when its config.json is not that of a model we know.
    """
    hf = read_json(folder / CONFIG)
    cfg = model_config(hf, folder)
    return {name: getattr(cfg, name) for name in SIZES}, read_section(hf, folder).get("template") or chat_template(hf)


def chat_template(hf: dict[str, Any]) -> str:
    """The chat template that goes with the LLM: of LLaMA's models the size of the vocabulary tells the generation."""
    if hf.get("model_type") == V1:
        return "v1"
    if hf.get("model_type") not in ("llama", "eve-llama3"):
        return "qwen2"
    vocab = hf.get("vocab_size", 0)
    if 32_000 <= vocab <= 32_100:  # LLaMA-2 and Vicuna, perhaps with a few tokens added
        return "v1"
    return "llama3" if vocab >= 128_000 or hf["model_type"] == "eve-llama3" else "qwen2"


def data_settings(hf: dict[str, Any], where: Path, cfg: ModelConfig) -> dict[str, Any]:
    """Image and chat settings of the model in the folder `where`, under the names of `config.data` (DATA_FIELDS).

    `hf` is its config.json, `cfg` its sizes, with what the tensors tell of EVEv1's patches and teacher. An EVE model
    has the original's conventions, an export of ours those that it was trained with, a plain LLM our defaults. Raises
    UserError naming the file and the field that is missing, unknown or contradicts the weights.
    """
    ours = read_section(hf, where)
    if is_plain(hf):
        data = OUR_OWN | {"template": chat_template(hf)} | ours
    elif ours.keys() >= REQUIRED:
        data = ours  # of an earlier version without fit and image_first, which mean the training rule and False
    else:
        data = ORIGINAL | {"template": chat_template(hf)} | _image_settings(hf, where, cfg, ours) | ours
    try:
        rule = ImageRule.of(data)
    except UserError as error:
        raise located(error, ours, where) from error
    stated = {
        "eve_jax.patch": (rule.patch, WINDOW * cfg.sub_patch),
        "mm_patch_size": (hf.get("mm_patch_size"), cfg.sub_patch),
    }
    for name, (given, patch) in stated.items():
        if not is_plain(hf) and given not in (None, patch):
            raise UserError(f"{where / CONFIG}: {name} is {given!r}, but the weights are for {patch}")
    if cfg.teacher and rule.teacher != (cfg.teacher.image_size, cfg.teacher.patch_size):
        raise UserError(
            f"{where}: the teacher's images are {rule.teacher[0]} pixels in patches of {rule.teacher[1]}, but "
            f"its weights are for {cfg.teacher.image_size} in patches of {cfg.teacher.patch_size}; "
            f"correct {f'eve_jax.teacher in {CONFIG}' if 'teacher' in ours else PREPROCESSOR}"
        )
    return data


def _image_settings(hf: dict[str, Any], where: Path, cfg: ModelConfig, ours: dict[str, Any]) -> dict[str, Any]:
    """image_mode, max_size, and for EVEv1 patch and teacher; `token_limit` where config.json states one."""
    v1 = hf["model_type"] == V1
    found = read_preprocessor(hf, where, cfg, v1)
    size = ours.get("max_size") or found.get("image_size" if v1 else "max_size") or _named_size(hf, where, cfg, v1)
    data: dict[str, Any] = {"max_size": size}
    if v1:
        data |= {"image_mode": "square", "patch": WINDOW * cfg.sub_patch}
        data["teacher"] = ours.get("teacher") or _teacher(hf, where, cfg, found)
    else:
        data["image_mode"] = "anyratio_hd" if size > OUR_OWN["max_size"] else "anyratio_ld"
    if hf.get("tokenizer_model_max_length"):
        data["token_limit"] = whole_number(hf, "tokenizer_model_max_length", where / CONFIG, sys.maxsize)
    return data


def _named_size(hf: dict[str, Any], where: Path, cfg: ModelConfig, v1: bool) -> int:
    tower = hf.get("mm_vision_tower")
    named = tower_size(tower, v1)
    if named and named[0] and named[1] == cfg.sub_patch:
        if named[0] > LARGEST:
            raise UserError(
                f"{where / CONFIG}: mm_vision_tower {tower!r} states images of {named[0]} pixels; expected at most "
                f"{LARGEST}"
            )
        return named[0]
    form = f"eve-patch{cfg.sub_patch}-anypixel-SIZE" if v1 else f"eve-anyratio-resSIZE-patch{cfg.sub_patch}"
    what = f"mm_vision_tower {tower!r} is not of the form {form}" if tower else "no field 'mm_vision_tower'"
    raise UserError(
        f"{where / CONFIG}: {what}, so the size of the model's images is not known; put its {PREPROCESSOR} with "
        f"{'image_size' if v1 else 'max_size'} into the folder"
    )


def _teacher(hf: dict[str, Any], where: Path, cfg: ModelConfig, found: dict[str, Any]) -> list[int]:
    """Side of the image and of a patch of EVEv1's teacher, in pixels: the shorter side is rounded to its patches.

    Each is taken from the first place that states it.
    """
    stated: list[Any] = [found.get(name) for name in TEACHER]
    elsewhere = None if all(stated) else _teacher_elsewhere(hf, where, cfg)
    if elsewhere is None and not all(stated):
        name = hf.get("mm_vision_tower_clip")
        what = f"mm_vision_tower_clip {name!r} states no sizes" if name else "no field 'mm_vision_tower_clip'"
        raise UserError(
            f"{where / CONFIG}: {what}, so the sizes of the teacher's images are not known; put the model's "
            f"{PREPROCESSOR} with {' and '.join(TEACHER)} into the folder"
        )
    size, patch = (own or other for own, other in zip(stated, elsewhere or stated, strict=True))
    if size % patch:  # the original refuses it, too
        raise UserError(
            f"{where}: the teacher's images are {size} pixels, no multiple of its patches of {patch}; correct "
            f"{' and '.join(TEACHER)} in {PREPROCESSOR}, or mm_vision_tower_clip in {CONFIG}"
        )
    return [size, patch]


def _teacher_elsewhere(hf: dict[str, Any], where: Path, cfg: ModelConfig) -> tuple[int, int] | None:
    """The same of the teacher's weights, its own config.json or its name; None when none of them states it."""
    name = str(hf.get("mm_vision_tower_clip") or "")
    sizes = cfg.teacher
    if sizes is None and name and os.path.isfile(where / name / CONFIG):
        sizes = describe_teacher(where / name)
    if sizes is not None:
        return sizes.image_size, sizes.patch_size
    named = CLIP_NAME.fullmatch(name.rstrip("/").rpartition("/")[2])
    return (int(named["size"] or CLIP_SIZE), int(named["patch"])) if named else None
