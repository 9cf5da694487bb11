"""The golden models of NEO and SAIL (tests/golden/family) as our parameters and packed rows."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from eve_jax.batch import RowShape
from eve_jax.data.image.patches import bicubic, patchify
from eve_jax.data.rows.build import lay_out
from eve_jax.data.rows.spell import Sample
from eve_jax.data.text.encode import IGNORE, IMAGE_ID
from eve_jax.hf.names import eve_names
from eve_jax.hf.tensors import from_hf
from eve_jax.infer.prompt import Prompt
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Batch, Params
from tests.reference import sizes

FOLDER = Path(__file__).parent / "golden" / "family"
CASES = ("text", "one", "two", "middle")  # of NEO, in the order of its packed row
PATCH_ID = 283  # of NEO's small tokenizer: the token in whose place patches stand
ROW = RowShape(24, 0, 232)  # holds all four


@cache
def tensors(name: str) -> dict[str, np.ndarray]:
    """A golden .safetensors file."""
    return load_file(FOLDER / f"{name}.safetensors")


@cache
def facts(name: str) -> dict[str, Any]:
    """A golden .json file."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def neo(**changes: Any) -> ModelConfig:
    """Sizes of neo_config.json, float32."""
    llm, vision = (facts("neo_config")[name] for name in ("llm_config", "vision_config"))
    own: dict[str, Any] = {
        "head_dim": llm["head_dim"],
        "qk_norm": "head",
        "qkv_bias": False,
        "parts": (),
        "patch_embed": "conv_gelu_rope",
        "patch_hidden": vision["hidden_size"],
        "patch_theta": vision["rope_theta_vision"],
        "place_theta": llm["rope_theta_hw"],
        "image_attention": "image",
        "rope": "thw",
        "index_rule": "thw",
        "extra_layers": llm["extra_num_layers"],
    }
    plain: dict[str, Any] = {"dtype": "float32", "frozen_dtype": "float32", "remat": "none"}
    return ModelConfig(**sizes(llm) | own | plain | changes)


@cache
def neo_params(cfg: ModelConfig) -> Params:
    """The golden weights of NEO."""
    return {name: jnp.asarray(value) for name, value in from_hf(cfg, tensors("neo_weights")).items()}


def sail(**changes: Any) -> ModelConfig:
    """Sizes of SAIL's golden model, float32."""
    c, ids = facts("sail_meta")["config"], facts("sail_meta")["special_ids"]
    own: dict[str, Any] = {
        "head_dim": 128,
        "qkv_bias": False,
        "parts": (),
        "sub_patch": c["vision_patch_size"] // 2,
        "patch_embed": "linear",
        "image_attention": "prefix",
        "rope": "sections",
        "index_rule": "max+1",
        "patch_token": ids["vpatch"],
        "close_token": ids["vision_end"],
    }
    plain: dict[str, Any] = {"dtype": "float32", "frozen_dtype": "float32", "remat": "none"}
    return ModelConfig(**sizes(c) | own | plain | changes)


@cache
def sail_params(cfg: ModelConfig) -> Params:
    """The golden weights of SAIL, bfloat16 as float32."""
    found = from_hf(cfg, tensors("sail_weights"))
    return {name: jnp.asarray(value).astype(jnp.float32) for name, value in found.items()}


def sail_ids(name: str) -> np.ndarray:
    """Golden ids of SAIL with IMAGE_ID in place of the patches."""
    ids = tensors("sail_io")[name].astype(np.int32)
    patches = np.flatnonzero(ids == facts("sail_meta")["special_ids"]["vpatch"])
    ids[patches[0]] = IMAGE_ID
    return np.delete(ids, patches[1:])


def sail_pixels() -> np.ndarray:
    """The golden image in our order: patches [12, 192], float32, since no bytes have such values."""
    flat = tensors("sail_io")["patches"].reshape(-1, 3, 2, 4, 2, 4)
    return flat.transpose(0, 2, 4, 3, 5, 1).reshape(len(flat), -1)


def by_their_names(cfg: ModelConfig, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays with our names and layout by the names that the golden files have."""
    found: dict[str, np.ndarray] = {}
    for entry in eve_names(cfg):
        values = params[entry.ours] if entry.stacked else [params[entry.ours]]
        found |= {name: entry.to_theirs(value) for name, value in zip(entry.names(cfg), values, strict=True)}
    return found


def with_images(ids: np.ndarray, grids: Sequence[tuple[int, int]]) -> np.ndarray:
    """Where each token of `ids` stays, with the first of each image's patches as IMAGE_ID; -1 for the others."""
    kept = np.array(ids, np.int32)
    at = 0
    for h, w in grids:
        first = at + int(np.argmax(kept[at:] == PATCH_ID))
        kept[first], kept[first + 1 : first + h * w] = IMAGE_ID, -1
        at = first + h * w
    return kept


def neo_grids(case: str) -> list[tuple[int, int]]:
    """Rows and columns of patches of the images of a case."""
    found = tensors("neo_inputs").get(f"{case}.grid_hw", np.zeros((0, 2), np.int64))
    return [(int(h) // 2, int(w) // 2) for h, w in found]


def neo_patches(case: str) -> list[np.ndarray]:
    """The patches of each image of a case, uint8."""
    names = facts("neo_meta")["cases"][case]["images"]
    images = (Image.open(FOLDER / f"neo_image_{name}.png").convert("RGB") for name in names)
    return [patchify(bicubic(image, 32 * w, 32 * h)) for image, (h, w) in zip(images, neo_grids(case), strict=True)]


def neo_sample(case: str) -> Sample:
    """A case as a sample."""
    given = tensors("neo_inputs")
    ids, labels = (given[f"{case}.{name}"] for name in ("input_ids", "labels"))
    kept = with_images(ids, neo_grids(case))
    labels = np.where(kept == IMAGE_ID, IGNORE, labels)[kept != -1].astype(np.int32)
    return Sample(kept[kept != -1], labels, neo_grids(case))


def neo_prompt(case: str, cfg: ModelConfig) -> Prompt:
    """The prompt of a case that is answered."""
    kept = with_images(tensors("neo_generate")[f"{case}.prompt_ids"], neo_grids(case))
    return Prompt(kept[kept != -1], neo_patches(case), neo_grids(case), cfg.layout)


def neo_row(cfg: ModelConfig, cases: Sequence[str] = CASES, shape: RowShape = ROW) -> Batch:
    """`cases` in one row."""
    row = lay_out([neo_sample(case) for case in cases], shape, cfg.layout)
    every = np.concatenate([np.zeros((0, 3072), np.uint8), *(p for case in cases for p in neo_patches(case))])
    patches = np.zeros((shape.patches, 3072), np.uint8)
    patches[: len(every)] = every
    return {name: value[None] for name, value in (row | {"patches": patches}).items()}
