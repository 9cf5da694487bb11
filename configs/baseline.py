"""What the baselines `ve` and `dt` have in common: padded images as a fixed number of tokens, three stages."""

from dataclasses import asdict
from typing import NamedTuple

from ml_collections import ConfigDict

from eve_jax.errors import UserError
from eve_jax.model.clip_config import ClipConfig


class Stage(NamedTuple):
    """kind: stage of eve_jax/config/stages.py. template: "" = that of the LLM. rows: of 2,048 tokens. lr: its peak."""

    kind: str
    template: str
    rows: int
    lr: float


def see_by_encoder(c: ConfigDict, encoder: str, sizes: ClipConfig) -> ConfigDict:
    """`c` as a model with a vision encoder of these sizes, from the folder `encoder`; "" = the one in `init`."""
    c.encoder = encoder
    c.model.encoder = ConfigDict(asdict(sizes))
    c.model.patch_embed = "clip"
    return see_squares(c, "pad", sizes.patch_size, sizes.image_size)


def see_by_codes(c: ConfigDict, tokenizer: str, codes: int, patch: int, image_size: int) -> ConfigDict:
    """`c` as a model with a vision vocabulary of that many codes, of the VQGAN in `tokenizer`; "" = that in `init`."""
    c.model.patch_embed = "vq"
    c.model.codes = codes
    c.data.vision_tokenizer = tokenizer
    return see_squares(c, "codes", patch, image_size)


def see_squares(c: ConfigDict, mode: str, patch: int, image_size: int) -> ConfigDict:
    """`c` with images that are squares of `image_size` pixels, cut into patches of `patch` pixels a side."""
    c.model.sub_patch = patch // 2
    c.data.patch = patch
    c.data.image_mode = mode
    c.data.max_size = image_size
    c.data.image_first = True
    return c


def chosen(stages: dict[str, Stage], name: str) -> Stage:
    """The stage of that number; raise UserError for another one."""
    if name not in stages:
        raise UserError(f"stage={name}: expected one of {', '.join(stages)}")
    return stages[name]


def staged(c: ConfigDict, name: str, stage: Stage) -> ConfigDict:
    """`c` with the settings of a stage, which it takes as its name `name`."""
    c.name, c.stage = name, stage.kind
    if stage.template:
        c.data.template = "plain_v1" if c.data.template == "v1" else stage.template
    c.data.rows, c.data.micro_batches = stage.rows, 1
    c.optim.lr = stage.lr
    return c
