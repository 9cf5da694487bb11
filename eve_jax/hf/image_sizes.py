"""Sizes of an EVE model's images in pixels, from the first place that states them; others that differ are warned about.

Of the image: section `eve_jax` of config.json, preprocessor_config.json, `mm_vision_tower`. Of EVEv1's teacher: the
section, preprocessor_config.json, then the teacher's weights, its own config.json or `mm_vision_tower_clip`.
"""

import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from eve_jax.data.image.rule import LARGEST
from eve_jax.errors import UserError, warn
from eve_jax.hf.clip_teacher import describe_teacher
from eve_jax.hf.config import CONFIG, OURS, V1, tower_size
from eve_jax.hf.preprocessor import PREPROCESSOR, WINDOW, read_preprocessor, whole_number
from eve_jax.model.config import ModelConfig

CLIP_NAME = re.compile(r"clip-vit-\w+-patch(?P<patch>[1-9]\d{0,8})(?:-(?P<size>[1-9]\d{0,8}))?")
TEACHER = ("image_size_clip", "patch_stride_clip")
CLIP_SIZE = 224  # of a CLIP whose name does not state another
HD = 800  # pixels; a larger area is that of `anyratio_hd`


class Stated(NamedTuple):
    """A number of pixels, and the file and field that state it; `is_default`: nothing contradicts it."""

    pixels: int
    file: Path
    field: str
    is_default: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.field} ({self.pixels} pixels)"


def image_settings(hf: dict[str, Any], where: Path, cfg: ModelConfig, ours: dict[str, Any]) -> dict[str, Any]:
    """Return image_mode, max_size, and for EVEv1 patch and teacher; `token_limit` where config.json states one.

    hf: config.json of the folder `where`. ours: its section `eve_jax`. Raises UserError naming file and field.
    """
    v1 = hf["model_type"] == V1
    found, file = read_preprocessor(hf, where, cfg, v1)
    size = _size(hf, where, cfg, ours, _in_file(found, file, "image_size" if v1 else "max_size"))
    data: dict[str, Any] = {"max_size": size.pixels}
    if v1:
        patch, teacher = WINDOW * cfg.sub_patch, _teacher(hf, where, cfg, ours, found, file)
        cells = teacher[0].pixels // teacher[1].pixels
        if size.pixels % (cells * patch):
            raise UserError(
                f"{size.file}: {size.field}: {size.pixels} pixels are not a multiple of the {cells} patches along a "
                f"side of the teacher's image times {patch} pixels of a patch; correct it, or {teacher[0].field} and "
                f"{teacher[1].field} in {teacher[0].file}"
            )
        data |= {"image_mode": "square", "patch": patch, "teacher": [one.pixels for one in teacher]}
    else:
        data["image_mode"] = "anyratio_hd" if size.pixels > HD else "anyratio_ld"
    if hf.get("tokenizer_model_max_length"):
        data["token_limit"] = whole_number(hf, "tokenizer_model_max_length", where / CONFIG, sys.maxsize)
    return data


def _in_file(found: dict[str, Any], file: Path, name: str) -> Stated | None:
    return Stated(found[name], file, name) if name in found else None


def _first(stated: Iterable[Stated | None]) -> Stated | None:
    """Return the first that is stated, and warn of others that differ."""
    given = [one for one in stated if one is not None]
    for other in given[1:]:
        if other.pixels != given[0].pixels and not other.is_default:
            warn(f"{other} contradicts {given[0]}, which is taken (see docs/data.md#imported-eve-models)")
    return given[0] if given else None


def _size(hf: dict[str, Any], where: Path, cfg: ModelConfig, ours: dict[str, Any], in_file: Stated | None) -> Stated:
    """Return the side of the largest image area."""
    v1, tower, file = hf["model_type"] == V1, hf.get("mm_vision_tower"), where / CONFIG
    parsed = tower_size(tower, v1) or (0, 0)
    name = Stated(parsed[0], file, f"mm_vision_tower {tower!r}") if parsed[0] else None
    own = Stated(ours["max_size"], file, f"{OURS}.max_size") if ours.get("max_size") else None
    before = own or in_file
    if parsed[1] not in (0, cfg.sub_patch):
        if before is not None:
            warn(
                f"{file}: mm_vision_tower {tower!r} has patches of {parsed[1]} pixels, but the weights are for "
                f"{cfg.sub_patch}, which is taken"
            )
        name = None
    found = _first((own, in_file, name))
    if found is None:
        form = f"eve-patch{cfg.sub_patch}-anypixel-SIZE" if v1 else f"eve-anyratio-resSIZE-patch{cfg.sub_patch}"
        what = f"mm_vision_tower {tower!r} is not of the form {form}" if tower else "no field 'mm_vision_tower'"
        raise UserError(
            f"{file}: {what}, so the size of the model's images is not known; put its {PREPROCESSOR} with "
            f"{'image_size' if v1 else 'max_size'} into the folder"
        )
    if found is name and found.pixels > LARGEST:
        raise UserError(
            f"{file}: mm_vision_tower {tower!r} states images of {found.pixels} pixels; expected at most {LARGEST}"
        )
    return found


def _teacher(
    hf: dict[str, Any], where: Path, cfg: ModelConfig, ours: dict[str, Any], found: dict[str, Any], file: Path
) -> tuple[Stated, Stated]:
    """Return the side of the image and of a patch of EVEv1's teacher: the shorter side is rounded to its patches."""
    if "teacher" in ours:
        own = [Stated(pixels, where / CONFIG, f"{OURS}.teacher") for pixels in ours["teacher"]]
        return own[0], own[1]
    elsewhere: tuple[Stated | None, ...] = (None, None)
    with suppress(*(UserError,) if found.keys() >= set(TEACHER) else ()):  # of what is only compared
        elsewhere = _teacher_elsewhere(hf, where, cfg)
    stated = [_first((_in_file(found, file, name), other)) for name, other in zip(TEACHER, elsewhere, strict=True)]
    size, patch = stated
    if size is None or patch is None:
        name = hf.get("mm_vision_tower_clip")
        what = f"mm_vision_tower_clip {name!r} states no sizes" if name else "no field 'mm_vision_tower_clip'"
        raise UserError(
            f"{where / CONFIG}: {what}, so the sizes of the teacher's images are not known; put the model's "
            f"{PREPROCESSOR} with {' and '.join(TEACHER)} into the folder"
        )
    if size.pixels % patch.pixels:  # the original refuses it, too
        raise UserError(
            f"{where}: the teacher's images are {size.pixels} pixels, no multiple of its patches of {patch.pixels}; "
            f"correct {size.field} in {size.file}, or {patch.field} in {patch.file}"
        )
    return size, patch


def _teacher_elsewhere(hf: dict[str, Any], where: Path, cfg: ModelConfig) -> tuple[Stated | None, Stated | None]:
    """Return the same of the teacher's weights, its own config.json or its name; None for what none of them states."""
    name = str(hf.get("mm_vision_tower_clip") or "")
    if cfg.teacher is not None:  # a contradiction to them is refused, see `data_settings`
        of_weights = (cfg.teacher.image_size, cfg.teacher.patch_size)
        size, patch = (Stated(pixels, where, "the teacher's weights", True) for pixels in of_weights)
        return size, patch
    if name and os.path.isfile(where / name / CONFIG):
        sizes, file = describe_teacher(where / name), where / name / CONFIG
        return Stated(sizes.image_size, file, "image_size"), Stated(sizes.patch_size, file, "patch_size")
    named = CLIP_NAME.fullmatch(name.rstrip("/").rpartition("/")[2])
    if named is None:
        return None, None
    place = (where / CONFIG, f"mm_vision_tower_clip {name!r}")
    return Stated(int(named["size"] or CLIP_SIZE), *place, not named["size"]), Stated(int(named["patch"]), *place)
