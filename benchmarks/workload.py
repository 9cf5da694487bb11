"""The model and the samples of the speed benchmarks: 58 M parameters, four samples of one image and text each."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from eve_jax.batch import RowShape
from eve_jax.data.image.rule import PATCH_BYTES
from eve_jax.data.rows.build import lay_out
from eve_jax.data.rows.spell import Sample
from eve_jax.data.text.encode import IGNORE, IMAGE_ID
from eve_jax.hf.export_config import hf_config
from eve_jax.hf.names import eve_v2
from eve_jax.hf.safetensors_io import TensorWriter
from eve_jax.model.config import VARIANTS, ModelConfig
from eve_jax.model.eve import Batch, Params, init_params

SIZES = ModelConfig(
    vocab_size=8192,
    hidden_size=512,
    intermediate_size=1408,
    num_layers=8,
    num_heads=8,
    num_kv_heads=4,
    head_dim=64,
    patch_hidden=1024,
    dtype="float32",
    frozen_dtype="float32",
    remat="none",
)
# Tokens and image (h, w) of the samples: 2,700 tokens, 69% of them of images; 506 are targets.
SAMPLES = ((300, (14, 14)), (500, (18, 18)), (800, (23, 23)), (1100, (27, 27)))
BEFORE = 20  # text tokens before the image
ROWS = ((3, 0), (2, 1))  # samples that share a row of 1,408 slots, as best-fit packing has them
ROW = RowShape(925, 43, 440)


def config(variant: str = "dac", routing: str = "split") -> ModelConfig:
    """The model as one of the papers' variants."""
    return replace(SIZES, parts=VARIANTS[variant], routing=routing)


def params(cfg: ModelConfig) -> Params:
    """Random parameters; those that two variants share by name are not the same."""
    return init_params(cfg, 0)


def text_ids(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random token ids int32 [count]."""
    return rng.integers(10, SIZES.vocab_size, count, dtype=np.int32)


def make_samples() -> tuple[list[Sample], list[np.ndarray]]:
    """The samples and their patches uint8 [h w, 3072]; the last two thirds of the text after an image are targets."""
    rng = np.random.default_rng(0)
    samples, patches = [], []
    for length, (h, w) in SAMPLES:
        after = length - BEFORE - 1 - h * (w + 1)
        ids = np.concatenate([text_ids(rng, BEFORE), np.array([IMAGE_ID], np.int32), text_ids(rng, after)])
        labels = np.full(len(ids), IGNORE, np.int32)
        targets = math.ceil(after * 2 / 3)
        labels[-targets:] = ids[-targets:]
        samples.append(Sample(ids, labels, [(h, w)]))
        patches.append(rng.integers(0, 256, (h * w, PATCH_BYTES), dtype=np.uint8))
    return samples, patches


def packed() -> Batch:
    """A micro-batch of the samples in two rows, on the device."""
    samples, patches = make_samples()
    rows = []
    for numbers in ROWS:
        filled = np.zeros((ROW.patches, PATCH_BYTES), np.uint8)
        real = np.concatenate([patches[i] for i in numbers])
        filled[: len(real)] = real
        rows.append({**lay_out([samples[i] for i in numbers], ROW), "patches": filled})
    batch: dict[str, Any] = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return jax.device_put(batch)


def write_folder(folder: Path, cfg: ModelConfig, params: Params) -> Path:
    """The model as a Hugging Face folder, without a tokenizer."""
    folder.mkdir(parents=True)
    table = eve_v2(cfg)
    specs = [
        (name, np.dtype(np.float32), entry.their_shape(params[entry.ours].shape))
        for entry in table
        for name in entry.names(cfg)
    ]
    with TensorWriter(folder, specs, 10**10) as writer:
        for entry in table:
            value = np.asarray(params[entry.ours])
            for name, piece in zip(entry.names(cfg), value if entry.stacked else value[None], strict=True):
                writer.write(name, np.ascontiguousarray(entry.to_theirs(piece)))
    (folder / "config.json").write_text(json.dumps(hf_config(cfg, {}, {}, "float32")))
    return folder
