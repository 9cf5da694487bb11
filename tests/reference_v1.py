"""The golden models D1 and D2 (EVEv1) as our parameters and packed rows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from eve_jax.batch import RowShape
from eve_jax.data.image.patches import patchify, resize
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.rows.align_arrays import place_images, teacher_image
from eve_jax.data.rows.build import lay_out
from eve_jax.data.rows.spell import Sample
from eve_jax.hf.config import clip_config
from eve_jax.hf.names import eve_names
from eve_jax.hf.tensors import from_hf
from eve_jax.model.config import ModelConfig
from tests import reference as ref

NAMES = ("D1", "D2")
SHAPES = {"D1": RowShape(32, 16, 80), "D2": RowShape(160, 32, 64)}  # each holds the three samples in one row


def rule(name: str) -> ImageRule:
    """How the set's images are sized."""
    p = ref.read_json(f"{name}_config")["eve_preprocessor"]
    patch = p["patch_stride"] * p["conv_stride"]
    teacher = (p["image_size_clip"], p["patch_stride_clip"])
    return ImageRule("square", max_size=p["image_size"], patch=patch, teacher=teacher)


def config(name: str, routing: str = "split", aligned: bool = False) -> ModelConfig:
    """Sizes of D1_config.json or D2_config.json, float32; `aligned`: with aligning layer, teacher and loss."""
    both = ref.read_json(f"{name}_config")
    c = both["model"]
    teacher = clip_config(both["clip_vision_config"])
    more: dict[str, Any] = {"align_weight": 1.0, "align_width": teacher.hidden_size, "teacher": teacher}
    return ModelConfig(
        **ref.sizes(c),
        qkv_bias=False,
        parts=(),
        routing=routing,
        patch_embed="v1",
        patch_hidden=c["mm_hidden_size"],
        sub_patch=both["eve_preprocessor"]["patch_stride"],
        dtype="float32",
        frozen_dtype="float32",
        remat="none",
        **(more if aligned else {}),
    )


def params(cfg: ModelConfig, name: str) -> dict[str, jax.Array]:
    """The weights of the set as far as `cfg` has them."""
    weights = ref.tensors(f"{name}_weights")
    names = {n for e in eve_names(cfg) for n in e.names(cfg)}
    return {k: jnp.array(v) for k, v in from_hf(cfg, {k: v for k, v in weights.items() if k in names}).items()}


def picture(name: str, i: int) -> Image.Image:
    """The image of sample 0 or 1 before it is resized."""
    return Image.fromarray(ref.tensors(f"{name}_inputs")[f"raw_uint8_{i}"])


def samples(name: str) -> list[tuple[Sample, np.ndarray]]:
    """The three samples and their patches, uint8; the last is text only."""
    inputs, sized = ref.tensors(f"{name}_inputs"), rule(name)
    out = []
    for i in range(3):
        real = inputs["attention_mask"][i] == 1
        ids, labels = (inputs[k][i][real].astype(np.int32) for k in ("input_ids", "labels"))
        pictures = [picture(name, i)] if i < 2 else []
        arrays = [patchify(resize(p, sized), sized.patch) for p in pictures]
        grids = [sized.grid(*p.size) for p in pictures]
        out.append((Sample(ids, labels, grids), np.concatenate([np.zeros((0, sized.patch_bytes), np.uint8), *arrays])))
    return out


def row(name: str, which: list[int], shape: RowShape | None = None) -> dict[str, np.ndarray]:
    """A row of the samples `which`, in that order, without the leading row axis; room for two images."""
    every, shape, sized = samples(name), shape or SHAPES[name], rule(name)
    seen = [i for i in which if i < 2]
    taught = place_images(((*sized.grid(*picture(name, i).size), 1.0) for i in seen), shape, sized)
    pictures = np.zeros((2, sized.teacher[0], sized.teacher[0], 3), np.uint8)
    for canvas, i in zip(pictures, seen, strict=False):
        canvas[:] = teacher_image(picture(name, i), sized)
    filled = np.zeros((shape.patches, rule(name).patch_bytes), np.uint8)
    real = np.concatenate([every[i][1] for i in which])
    filled[: len(real)] = real
    return {**lay_out([every[i][0] for i in which], shape), "patches": filled, "teacher_images": pictures} | taught


def alone(name: str) -> dict[str, np.ndarray]:
    """One sample a row, three rows."""
    return ref.stack([row(name, [i]) for i in range(3)])


def distributed_run(name: str) -> dict[str, np.ndarray]:
    """The three samples in one row."""
    return ref.stack([row(name, [0, 1, 2])])


def lengths(name: str) -> list[int]:
    """Tokens of each sample, image tokens included."""
    return ref.read_json(f"{name}_meta")["expanded_valid_lens"]
