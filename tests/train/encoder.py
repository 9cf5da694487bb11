"""A tiny model with a vision encoder, and its stages on synthetic records."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import ve
from tests.data.synthetic import byte_tokenizer, write_records

ENCODER: dict[str, Any] = {
    "image_size": 28,
    "patch_size": 14,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_layers": 3,
    "num_heads": 2,
}


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
