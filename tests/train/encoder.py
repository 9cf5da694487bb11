"""A tiny model with a vision encoder, its stages on synthetic records, and packed rows for it."""

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import ve
from eve_jax.batch import RowShape, batch_arrays, zeros
from eve_jax.data.rows.build import lay_out
from eve_jax.data.rows.spell import Sample
from eve_jax.data.text.encode import IGNORE, IMAGE_ID
from eve_jax.model.clip_config import EncoderConfig
from eve_jax.model.config import ModelConfig
from tests.data.synthetic import byte_tokenizer, write_records

ENCODER: dict[str, Any] = {
    "image_size": 28,
    "patch_size": 14,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_layers": 3,
    "num_heads": 2,
}

SHAPE = RowShape(12, 0, 116)  # three images of four patches
SIGHTED = ModelConfig(
    vocab_size=320,
    hidden_size=48,
    intermediate_size=80,
    num_layers=2,
    num_heads=4,
    num_kv_heads=4,
    head_dim=12,
    parts=(),
    qkv_bias=False,
    patch_embed="clip",
    sub_patch=7,
    encoder=EncoderConfig(**ENCODER),
    dtype="float32",
    frozen_dtype="float32",
)


def sighted_rows(count: int) -> dict[str, np.ndarray]:
    """Rows for SIGHTED of one to three images, in samples of one or two."""
    rng = np.random.default_rng(0)
    batch = zeros(batch_arrays(count, SHAPE, SIGHTED.patch_bytes, layout=SIGHTED.layout))
    for row in range(count):
        samples = []
        for images in ((1,), (2,), (1, 2))[row % 3]:
            ids = np.concatenate([[IMAGE_ID] * images, rng.integers(0, 256, 20)]).astype(np.int32)
            labels = np.where(ids == IMAGE_ID, IGNORE, ids).astype(np.int32)
            samples.append(Sample(ids, labels, [(2, 2)] * images))
        used = 4 * sum(len(sample.grids) for sample in samples)
        batch["patches"][row, :used] = rng.integers(0, 256, (used, SIGHTED.patch_bytes))
        for name, values in lay_out(samples, SHAPE, SIGHTED.layout).items():
            batch[name][row] = values
    return batch


def encoder_stage(folder: Path, name: str, kind: str, init: str = "", steps: int = 3) -> ConfigDict:
    """A stage that trains what `kind` trains, on records in `folder`, which are written where there are none."""
    records = folder / "records.jsonl"
    if not records.is_file():
        write_records(folder, 24)
        byte_tokenizer().save(folder / "tokenizer")
    c = ve.encoder_config("tiny-llama", "" if init else "random")
    c.name, c.stage, c.init = name, kind, init
    c.model.encoder.update(ENCODER)
    c.model.dtype = "float32"
    c.data.max_size = ENCODER["image_size"]
    c.data.template = "qwen2"
    c.data.records, c.data.images = str(records), str(folder / "images")
    c.data.tokenizer = str(folder / "tokenizer")
    c.data.max_tokens = c.data.row_tokens = 256
    c.data.max_shapes, c.data.rows, c.data.micro_batches = 1, 4, 1
    c.optim.lr, c.optim.warmup = 1e-2, 0.0
    c.train.steps = steps
    return c
