"""The golden models A and C (tests/golden/README.md) as our parameters and packed rows."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from safetensors.numpy import load_file

from eve_jax.batch import RowShape
from eve_jax.data.image.patches import patchify
from eve_jax.data.rows.build import lay_out
from eve_jax.data.rows.spell import Sample
from eve_jax.hf.names import eve_names, eve_v2
from eve_jax.hf.tensors import from_hf
from eve_jax.model.config import TWICE, ModelConfig

GOLDEN = Path(__file__).parent / "golden"
IMAGE_ID = -200
GRIDS: tuple[list[tuple[int, int]], ...] = ([(2, 3)], [(3, 1)], [])  # of the three samples
LENGTHS = (34, 18, 15)
ALONE = RowShape(16, 16, 96)  # one sample a row
TOGETHER = RowShape(16, 16, 96)  # the three samples in one row


@cache
def tensors(name: str) -> dict[str, np.ndarray]:
    """A golden .safetensors file."""
    return load_file(GOLDEN / f"{name}.safetensors")


def read_json(name: str) -> dict:
    """A golden .json file."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


def sizes(c: dict[str, Any]) -> dict[str, Any]:
    """Sizes of the decoder of a golden Hugging Face config, as `ModelConfig` calls them."""
    return {
        "vocab_size": c["vocab_size"],
        "hidden_size": c["hidden_size"],
        "intermediate_size": c["intermediate_size"],
        "num_layers": c["num_hidden_layers"],
        "num_heads": c["num_attention_heads"],
        "num_kv_heads": c["num_key_value_heads"],
        "head_dim": c["hidden_size"] // c["num_attention_heads"],
        "rope_theta": c["rope_theta"],
        "rms_norm_eps": c["rms_norm_eps"],
    }


def config(parts: tuple[str, ...] = TWICE, routing: str = "split", name: str = "A") -> ModelConfig:
    """Sizes of A_config.json or C_config.json, float32."""
    c = read_json(f"{name}_config")
    return ModelConfig(
        **sizes(c),
        qkv_bias=name == "A",
        tie_embeddings=c["tie_word_embeddings"],
        patch_hidden=c["mm_hidden_size"],
        parts=parts,
        routing=routing,
        dtype="float32",
        frozen_dtype="float32",
        remat="none",
    )


def switched(**other: Any) -> ModelConfig:
    """Sizes of A_config.json with all switches of a base LLM thrown, and layers of all kinds."""
    switches: dict[str, Any] = {
        "norms": "both",
        "norm_plus_one": True,
        "qk_norm": "head",
        "attention_size": 24.0,
        "activation": "gelu_tanh",
        "scale_embeddings": True,
        "layer_kinds": ("local", "full", "nope"),
        "window": 6,
        "local_rope_theta": 1e3,
        "rope_type": "linear",
        "rope_scaling": (4.0,),
        "num_layers": 3,
    }
    return replace(config(), **switches | other)


def params(cfg: ModelConfig, name: str = "A") -> dict[str, jax.Array]:
    """The weights of A or C as far as `cfg` has them."""
    weights = tensors(f"{name}_weights")
    names = {n for e in eve_v2(cfg) for n in e.names(cfg)}
    return {k: jnp.array(v) for k, v in from_hf(cfg, {k: v for k, v in weights.items() if k in names}).items()}


def by_their_names(cfg: ModelConfig, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our parameters (or gradients) under the original's names and layouts."""
    out: dict[str, np.ndarray] = {}
    for entry in eve_names(cfg):
        if entry.ours not in values:
            continue
        value = np.asarray(values[entry.ours])
        parts = enumerate(value) if entry.stacked else [(0, value)]
        out |= {entry.theirs.format(layer=i): entry.to_theirs(part) for i, part in parts}
    return out


def samples() -> list[Sample]:
    """The three samples: ids with IMAGE_ID, labels, grids."""
    inputs = tensors("A_inputs")
    out = []
    for i, grids in enumerate(GRIDS):
        real = inputs["attention_mask"][i] == 1
        out.append(
            Sample(inputs["input_ids"][i][real].astype(np.int32), inputs["labels"][i][real].astype(np.int32), grids)
        )
    return out


def patches(i: int) -> np.ndarray:
    """Patches of sample i's image, uint8; none for the text-only sample."""
    return patchify(tensors("A_inputs")[f"image_uint8_{i}"]) if GRIDS[i] else np.zeros((0, 3072), np.uint8)


def row(which: list[int], shape: RowShape) -> dict[str, np.ndarray]:
    """A row of the samples `which`, in that order, without the leading row axis."""
    every = samples()
    filled = np.zeros((shape.patches, 3072), np.uint8)
    real = np.concatenate([patches(i) for i in which])
    filled[: len(real)] = real
    return {**lay_out([every[i] for i in which], shape), "patches": filled}


def stack(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """A micro-batch of rows of one shape."""
    return {k: np.stack([r[k] for r in rows]) for k in rows[0]}


def alone() -> dict[str, np.ndarray]:
    """One sample a row, three rows."""
    return stack([row([i], ALONE) for i in range(3)])


def distributed_run() -> dict[str, np.ndarray]:
    """The three samples in one row."""
    return stack([row([0, 1, 2], TOGETHER)])


def in_causal_order(batch: dict[str, np.ndarray], slots: ArrayLike, r: int, first: int, length: int) -> np.ndarray:
    """Values [..., L, D] in slot order of row r -> the `length` tokens from causal index `first`."""
    return np.asarray(slots)[..., r, :, :][..., batch["perm"][r][first : first + length], :]
