"""A tiny model as a base, and runs that train adapters of it."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from configs import demo
from eve_jax.checkpoint.stage_folder import Checkpoints
from eve_jax.config.stage import Config
from eve_jax.data.text.load import load_tokenizer
from eve_jax.hf.export_config import our_config
from eve_jax.model.eve import init_params
from tests.train.placing import placed, with_demo_data

STEPS = 6


def make_work(folder: Path) -> Path:
    """Fill a work folder with the demo's data and a `base` of random weights in float32; return it."""
    lines = with_demo_data(folder)
    (folder / "train.jsonl").write_text("\n".join(lines["captions"][:40]))
    write_base(folder, "base", 0)
    return folder


def write_base(work: Path, name: str, seed: int, variant: str = "dac") -> Path:
    """Write the stage folder of a model of random weights."""
    c = config(work, "none", rank=0)
    c.model.variant = variant
    given = Config.of(c)
    folder = work / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(our_config(given.sizes, given.data.to_dict())))
    load_tokenizer(work / "data" / "tokenizer").save(folder)
    params = {n: np.asarray(v) for n, v in init_params(given.sizes, seed).items()}
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, params, {"count": jnp.int32(1)}, {"plan": "", "lineage": name})
    checkpoints.close()
    return folder


def config(work: Path, name: str, init: str = "base", **lora: Any) -> ConfigDict:
    """A run of a few steps from the model `init`, with adapters of rank 4 unless `lora` has other fields."""
    c = placed(demo.get_config("tiny").stages.stage3, work, str(work / init))
    c.name = name
    c.data.records = str(work / "train.jsonl")
    c.data.rows, c.data.micro_batches, c.data.max_shapes = 2, 1, 1
    c.train.steps, c.train.save_every, c.train.keep, c.train.writers = STEPS, 2, 9, "none"
    c.eval.records = c.eval.tasks = ""
    c.eval.every = 0
    c.optim.lr = 0.02
    c.lora.update({"rank": 4} | lora)
    return c
