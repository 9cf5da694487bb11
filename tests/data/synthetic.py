"""Small data for the tests of the pipeline: lengths tables, tokenizers and folders of records with images."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as InnerTokenizer

from eve_jax.data.plan.lengths import Lengths
from eve_jax.data.plan.plan import Plan, PlanSettings, build_plan
from eve_jax.data.text.tokenizer import FastTokenizer, Tokenizer


def byte_tokenizer(special: Sequence[str] = ("<|im_end|>",)) -> Tokenizer:
    """A tokenizer of single bytes and the tokens `special`."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = InnerTokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True) for token in special])
    return FastTokenizer(inner)


def lengths_of(counts: Sequence[Sequence[int]] | np.ndarray) -> Lengths:
    """A table of `counts` [n, 3] (patches, specials, text), without grids."""
    table = np.asarray(counts, np.int32).reshape(-1, 3)
    n = len(table)
    patches, specials, text = (np.ascontiguousarray(column) for column in table.T)
    none = np.zeros((0, 2), np.int32), np.zeros(n + 1, np.int64)
    return Lengths(np.arange(n, dtype=np.int32), text, patches, specials, *none, dropped=[])


def mixed_counts(n: int, seed: int = 0, text_only: float = 0.15) -> np.ndarray:
    """int32 [n, 3]: images of 4 to 36 patches, some with two, texts of 10 to 60 tokens."""
    rng = np.random.default_rng(seed)
    h, w = rng.integers(2, 7, n), rng.integers(2, 7, n)
    images = np.where(rng.random(n) < text_only, 0, np.where(rng.random(n) < 0.05, 2, 1))
    return np.stack([h * w * images, (1 + h) * images, rng.integers(10, 61, n)], 1).astype(np.int32)


PLAN_SETTINGS: dict[str, Any] = {
    "row_tokens": 512,
    "max_shapes": 6,
    "rows": 4,
    "micro_batches": 2,
    "epochs": 1,
    "seed": 0,
}


def plan_of(counts: Any, **changes: Any) -> Plan:
    """A plan of records of `counts` [n, 3], by default of PLAN_SETTINGS."""
    return build_plan(lengths_of(counts), PlanSettings(**{**PLAN_SETTINGS, **changes}))


def write_records(folder: Path, n: int, seed: int = 0) -> Path:
    """`n` records in `folder`/records.jsonl with images next to it: none, one or two images, captions or dialogues."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(n):
        paths = []
        for image in range(number % 3):
            height, width = rng.integers(20, 150, 2)
            name = f"{number}_{image}.png"
            Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(folder / "images" / name)
            paths.append(name)
        question = "<image>" * len(paths) + "What is it?" * int(rng.integers(1, 4))
        turns = [
            {"from": "human", "value": question},
            {"from": "gpt", "value": f"Number {number}. " * (1 + number % 4)},
        ]
        record: dict[str, Any] = {"id": f"r{number}", "conversations": turns}
        if paths:
            record["image"] = paths if len(paths) > 1 else paths[0]
        lines.append(json.dumps(record))
    path = folder / "records.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
