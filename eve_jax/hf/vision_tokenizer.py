"""The vision tokenizer of a model that reads codes: a folder in that of the model, with a VQGAN's encoder in it."""

import os
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from eve_jax.checkpoint.own_tokenizer import check_own_vision_tokenizer
from eve_jax.data.image.rule import CODES, ImageRule
from eve_jax.data.samples.sample_rule import VISION_TOKENIZER, with_vocabulary
from eve_jax.errors import Field, FieldError, UserError
from eve_jax.hf.config import CONFIG
from eve_jax.hf.vq_folder import read_vq, vq_sizes
from eve_jax.model.config import ModelConfig
from eve_jax.model.vq import VqConfig, codes_of
from eve_jax.process.files import folder_in_place_of


class VisionCoder:
    """Makes codes of images by the encoder in a folder, which is read when the first are asked for."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def _encoder(self) -> tuple[VqConfig, dict[str, jax.Array]]:
        cfg, params = read_vq(self.folder)
        return cfg, jax.device_put(params)  # once, not with each image

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the codes, int32 [B, h, w], of images uint8 [B, S, S, 3]."""
        cfg, params = self._encoder
        return np.asarray(codes_of(cfg, params, images))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def with_coder(images: ImageRule, folder: str | Path | None) -> ImageRule:
    """Return the rule with what makes codes of images, for the model in `folder`; a rule for pixels itself.

    Raises UserError where the model's folder has no vision tokenizer, or another one than it was trained with.
    """
    if images.mode != CODES:
        return images
    if folder is None:
        raise UserError("the model's folder is not known, so its vision tokenizer cannot be read")
    place = Path(folder) / VISION_TOKENIZER
    found = with_vocabulary(images, place, VisionCoder(place))
    check_own_vision_tokenizer(Path(folder), found.vocabulary)
    return found


def check_vision_tokenizer(cfg: ModelConfig, images: ImageRule, folder: str | Path) -> None:
    """Raise UserError unless the encoder in `folder` makes the codes that a model `cfg` has. Reads no weights."""
    if not cfg.codes:
        return
    if not (Path(folder) / CONFIG).is_file():
        raise FieldError(
            Field("data.vision_tokenizer"),
            f": {folder} holds no vision tokenizer; name the folder of one, which configs take as vq=DIR",
        )
    sizes = vq_sizes(Path(folder))
    for field, given, has in (("model.codes", cfg.codes, sizes.codes), ("data.patch", images.patch, sizes.patch)):
        if given != has:
            raise FieldError(Field(field), f"={given}, but the vision tokenizer in {folder} has {has}")


def carry_vision_tokenizer(source: Path, target: Path, link: bool = False) -> None:
    """Copy the vision tokenizer in the folder `source` to the folder `target`, unless it is there; none is none.

    link: where the file system can, the files of `target` are second names of those of `source`, which take no space
    and stay when the first ones are removed. For sources whose files nobody writes in place.
    """
    if source.resolve() == target.resolve() or not (source / CONFIG).is_file() or (target / CONFIG).is_file():
        return
    with folder_in_place_of(target) as part:
        for file in (source / CONFIG, *source.glob("*.safetensors"), *source.glob("*.safetensors.index.json")):
            if not link or not _linked(file, part / file.name):
                shutil.copyfile(file, part / file.name)


def _linked(file: Path, name: Path) -> bool:
    """Give a file another name; False where that cannot be, such as on another disk."""
    try:
        os.link(file.resolve(), name)
    except OSError:
        return False
    return True
