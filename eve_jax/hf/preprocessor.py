"""preprocessor_config.json of an EVE model: the sizes it states, and steps, which must be those that are taken here."""

import os
import re
from pathlib import Path
from typing import Any

from eve_jax.data.image.rule import LARGEST
from eve_jax.errors import UserError, warn
from eve_jax.model.config import ModelConfig
from eve_jax.process.files import read_json

PREPROCESSOR = "preprocessor_config.json"
WINDOW = 2  # patches along a side of the windows that become tokens
PIXELS = {"image_mean": (0.48145466, 0.4578275, 0.40821073), "image_std": (0.26862954, 0.26130258, 0.27577711)}
# Steps that the original leaves out or always takes: the values that mean what is done here, the first its own.
STEPS: dict[str, tuple[Any, ...]] = {
    "do_resize": (False,),
    "do_center_crop": (False,),
    "do_pad": (False,),
    "do_convert_rgb": (True,),
    "do_rescale": (True,),
    "rescale_factor": (1 / 255,),
    "do_normalize": (True,),
    "resample": (3, "bicubic"),  # Pillow's number of the filter
}
SIZES = {True: ("image_size", "image_size_clip", "patch_stride_clip"), False: ("max_size",)}  # by: is EVEv1
STRIDES = {True: "conv_stride", False: "dense_stride"}
# Without effect: `size` and `crop_size` belong to steps that are left out.
HARMLESS = re.compile(
    r"_.*|size|crop_size|feature_extractor_type|image_processor_type|processor_class|auto_map|transformers_version"
    r"|return_tensors|(input_)?data_format|default_to_square|device|disable_grouping"
)


def read_preprocessor(hf: dict[str, Any], where: Path, cfg: ModelConfig, v1: bool) -> tuple[dict[str, Any], Path]:
    """Return what the preprocessor_config.json in the folder `where`, or in the one that its config.json `hf` names as
    `mm_vision_tower`, says, and its path; {} when there is none. `v1`: the model is an EVEv1.

    Null counts as nothing. Raise UserError naming the file and the field that asks for what is not done here, or does
    not fit the weights; warn about fields that are not understood.
    """
    for folder in (where, where / str(hf.get("mm_vision_tower") or "")):
        file = folder / PREPROCESSOR
        if os.path.isfile(file):  # also of a name that no file can have
            found = {name: value for name, value in read_json(file).items() if value is not None}
            _check(found, file, cfg, v1)
            return found, file
    return {}, where / PREPROCESSOR


def _check(found: dict[str, Any], file: Path, cfg: ModelConfig, v1: bool) -> None:
    sizes, fixed = SIZES[v1], {"patch_stride": cfg.sub_patch, STRIDES[v1]: WINDOW}
    for name in (*sizes, *fixed):
        if name in found:
            whole_number(found, name, file)
    for name, accepted in ({name: (value,) for name, value in fixed.items()} | STEPS).items():
        given = found.get(name, accepted[0])
        if (given.lower() if isinstance(given, str) else given) not in accepted:
            raise UserError(f"{file}: {name} is {given!r}, the model has {accepted[0]!r}")
    for name, values in PIXELS.items():
        given = found.get(name, values)
        if not isinstance(given, list | tuple) or list(given) != list(values):
            raise UserError(f"{file}: {name} is {given!r}, the model has {list(values)}")
    known = {*sizes, *fixed, *STEPS, *PIXELS}
    if unknown := [name for name in sorted(found) if name not in known and not HARMLESS.fullmatch(name)]:
        warn(f"{file}: fields that are not understood are ignored: {', '.join(unknown)}")


def whole_number(values: dict[str, Any], name: str, file: Path, high: int = LARGEST) -> int:
    """Return the whole number in 1..`high` that `file` holds as `name`; raise UserError when that is none."""
    value = values[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{file}: {name} is {value!r}: expected a whole number above 0")
    if value > high:
        raise UserError(f"{file}: {name} is {value}: expected at most {high}")
    return value
