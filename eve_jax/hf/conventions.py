"""The conventions that an EVE checkpoint was trained with: sizes of its images, their order, its chat template.

The weights do not tell them, and with others the model is another one. Each is taken from the first of these that says
it; what none of them says is refused by name (docs/data.md has the table):

    section `eve_jax` of config.json (an export of ours) -> preprocessor_config.json -> the teacher's own sizes (EVEv1)
    -> the names that config.json gives (`mm_vision_tower`, `mm_vision_tower_clip`)
"""

import re
from pathlib import Path
from typing import Any

from eve_jax.data.image.rule import ImageRule
from eve_jax.errors import UserError, name_fields, shorten
from eve_jax.hf.clip_teacher import describe_teacher
from eve_jax.hf.config import (
    CONFIG,
    DATA_FIELDS,
    OURS,
    SIZES,
    V1,
    is_plain,
    model_config,
    tower_size,
)
from eve_jax.model.config import ModelConfig
from eve_jax.process.files import read_json

PREPROCESSOR = "preprocessor_config.json"
# The original puts an image first in its turn, learns by the training rule and has no cap on an image's aspect ratio.
ORIGINAL = {"fit": "shrink", "max_aspect": 0.0, "image_first": True}
OUR_OWN: dict[str, Any] = {
    "image_mode": "anyratio_ld",
    "max_size": 800,
    "max_aspect": 8.0,
    "fit": "shrink",
    "image_first": False,
}
REQUIRED = {"image_mode", "max_size", "max_aspect", "template"}  # in the section of any export of ours
WINDOW = 2  # patches along a side of the windows that become tokens
CLIP_NAME = re.compile(r"clip-vit-\w+-patch(?P<patch>\d+)(?:-(?P<size>\d+))?")
CLIP_SIZE = 224  # of a CLIP whose name does not state another
PIXELS = {"image_mean": (0.48145466, 0.4578275, 0.40821073), "image_std": (0.26862954, 0.26130258, 0.27577711)}
# Steps of a preprocessor that the original leaves out or always takes.
STEPS = {
    "do_resize": False,
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
}
KINDS: dict[str, type | tuple[type, ...]] = {
    "image_mode": str,
    "max_size": int,
    "max_aspect": (int, float),
    "fit": str,
    "template": str,
    "image_first": bool,
    "patch": int,
    "teacher": list,
    "token_limit": int,
}


def describe(folder: Path) -> tuple[dict[str, Any], str]:
    """Sizes of the LLM in a Hugging Face folder, under the names of `config.model`, and its chat template.

    Raises UserError when its config.json is not that of a model we know.
    """
    hf = read_json(folder / CONFIG)
    cfg = model_config(hf, folder)
    return {name: getattr(cfg, name) for name in SIZES}, _section(hf, folder).get("template") or chat_template(hf)


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
    ours = _section(hf, where)
    if is_plain(hf):
        return OUR_OWN | {"template": chat_template(hf)} | ours
    if ours.keys() >= REQUIRED:
        data = ours  # of an earlier version without fit and image_first, which mean the training rule and False
    else:
        data = ORIGINAL | {"template": chat_template(hf)} | _image_settings(hf, where, cfg, ours) | ours
    with name_fields(lambda field: field.removeprefix("data."), f"{where}: "):
        ImageRule.of(data)
    if cfg.teacher and tuple(data["teacher"]) != (cfg.teacher.image_size, cfg.teacher.patch_size):
        raise UserError(
            f"{where}: the teacher's images are {data['teacher'][0]} pixels in patches of {data['teacher'][1]}, but "
            f"its weights are for {cfg.teacher.image_size} in patches of {cfg.teacher.patch_size}; "
            f"correct {PREPROCESSOR}"
        )
    return data


def _section(hf: dict[str, Any], where: Path) -> dict[str, Any]:
    """Settings that config.json of an export of ours carries."""
    section = hf.get(OURS, {})
    if not isinstance(section, dict):
        raise UserError(f"{where / CONFIG}: {OURS} is {section!r}: expected a section")
    ours = {name: section[name] for name in DATA_FIELDS if name in section}
    check_kinds(ours, f"{where / CONFIG}: {OURS}")
    return ours


def check_kinds(settings: dict[str, Any], section: str) -> None:
    """Raise UserError, naming `section`, for one of DATA_FIELDS among `settings` that is of the wrong type."""
    for name in DATA_FIELDS:
        value, kind = settings.get(name), KINDS[name]
        if name in settings and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise UserError(f"{section}.{name} is {shorten(repr(value))}, which it cannot be")
    teacher = settings.get("teacher", [1, 1])
    if len(teacher) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in teacher):
        raise UserError(f"{section}.teacher is {shorten(repr(teacher))}: expected two whole numbers above 0")


def _image_settings(hf: dict[str, Any], where: Path, cfg: ModelConfig, ours: dict[str, Any]) -> dict[str, Any]:
    """image_mode, max_size, and for EVEv1 patch and teacher; `token_limit` where config.json states one."""
    if hf.get("mm_use_im_start_end"):
        raise UserError(f"{where / CONFIG} asks for mm_use_im_start_end, which eve_jax does not have")
    v1 = hf["model_type"] == V1
    found, file = _preprocessor(hf, where)
    _check_preprocessor(found, file, cfg, v1)
    size = ours.get("max_size") or found.get("image_size" if v1 else "max_size") or _named_size(hf, where, cfg, v1)
    data: dict[str, Any] = {"max_size": size}
    if v1:
        data |= {"image_mode": "square", "patch": WINDOW * cfg.sub_patch}
        data["teacher"] = ours.get("teacher") or _teacher(hf, where, cfg, found)
    else:
        data["image_mode"] = "anyratio_hd" if size > OUR_OWN["max_size"] else "anyratio_ld"
    if hf.get("tokenizer_model_max_length"):
        data["token_limit"] = _whole(hf, "tokenizer_model_max_length", where / CONFIG)
    return data


def _preprocessor(hf: dict[str, Any], where: Path) -> tuple[dict[str, Any], Path]:
    """preprocessor_config.json of the folder, or of the one that mm_vision_tower names, or {}; and its path."""
    for folder in (where, where / str(hf.get("mm_vision_tower") or "")):
        if (folder / PREPROCESSOR).is_file():
            return read_json(folder / PREPROCESSOR), folder / PREPROCESSOR
    return {}, where / PREPROCESSOR


def _check_preprocessor(found: dict[str, Any], file: Path, cfg: ModelConfig, v1: bool) -> None:
    """Raises UserError for a field that asks for what is not done here, or does not fit the weights."""
    sizes = ("image_size", "image_size_clip", "patch_stride_clip") if v1 else ("max_size",)
    for name in (*sizes, "patch_stride", "conv_stride", "dense_stride"):
        if name in found:
            _whole(found, name, file)
    fixed = {"patch_stride": cfg.sub_patch, "conv_stride" if v1 else "dense_stride": WINDOW}
    for name, value in (fixed | STEPS).items():
        if found.get(name, value) != value:
            raise UserError(f"{file}: {name} is {found[name]!r}, the model has {value!r}")
    for name, values in PIXELS.items():
        given = found.get(name, values)
        if not isinstance(given, list | tuple) or list(given) != list(values):
            raise UserError(f"{file}: {name} is {given!r}, the model has {list(values)}")


def _named_size(hf: dict[str, Any], where: Path, cfg: ModelConfig, v1: bool) -> int:
    tower = hf.get("mm_vision_tower")
    named = tower_size(tower, v1)
    if named and named[0] and named[1] == cfg.sub_patch:
        return named[0]
    form = f"eve-patch{cfg.sub_patch}-anypixel-SIZE" if v1 else f"eve-anyratio-resSIZE-patch{cfg.sub_patch}"
    what = f"mm_vision_tower {tower!r} is not of the form {form}" if tower else "no field 'mm_vision_tower'"
    raise UserError(
        f"{where / CONFIG}: {what}, so the size of the model's images is not known; put its {PREPROCESSOR} with "
        f"{'image_size' if v1 else 'max_size'} into the folder"
    )


def _teacher(hf: dict[str, Any], where: Path, cfg: ModelConfig, found: dict[str, Any]) -> list[int]:
    """Side of the image and of a patch of EVEv1's teacher, in pixels: the shorter side is rounded to its patches."""
    if "image_size_clip" in found and "patch_stride_clip" in found:
        return [found["image_size_clip"], found["patch_stride_clip"]]
    if cfg.teacher:
        return [cfg.teacher.image_size, cfg.teacher.patch_size]
    name = str(hf.get("mm_vision_tower_clip") or "")
    if name and (where / name / CONFIG).is_file():
        sizes = describe_teacher(where / name)
        return [sizes.image_size, sizes.patch_size]
    named = CLIP_NAME.fullmatch(name.rstrip("/").rpartition("/")[2])
    if named:
        return [int(named["size"] or CLIP_SIZE), int(named["patch"])]
    what = f"mm_vision_tower_clip {name!r} states no sizes" if name else "no field 'mm_vision_tower_clip'"
    raise UserError(
        f"{where / CONFIG}: {what}, so the sizes of the teacher's images are not known; put the model's {PREPROCESSOR} "
        "with image_size_clip and patch_stride_clip into the folder"
    )


def _whole(values: dict[str, Any], name: str, file: Path) -> int:
    value = values[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{file}: {name} is {value!r}: expected a whole number above 0")
    return value
