"""Stage folders made without training: what a stage starts from, with something added to what trains, saved."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from eve_jax import sharding
from eve_jax.checkpoint.stage_folder import Checkpoints
from eve_jax.config.stages import stage_factors
from eve_jax.hf.export_config import our_config
from eve_jax.model.config import TWICE, ModelConfig
from eve_jax.model.eve import Params
from eve_jax.train.initial_state import Start, start
from eve_jax.train.step import TrainState
from tests import reference as ref

DENSE = replace(ref.config(()), frozen_dtype="bfloat16")
DAC = replace(ref.config(TWICE), frozen_dtype="bfloat16")
DATA = {"image_mode": "anyratio_hd", "max_size": 1600, "max_aspect": 4.0, "template": "qwen2"}
TX = optax.adam(1e-3)


def describe(folder: Path, cfg: ModelConfig) -> None:
    """Write the folder's config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(our_config(cfg, DATA)))


def write_llm(folder: Path, step: int = 5, change: float = 0.0) -> Params:
    """A stage folder that holds all weights of the golden model with single ones, float32; returns them."""
    describe(folder, DENSE)
    params = {name: np.asarray(value) + np.float32(change) for name, value in ref.params(DENSE).items()}
    checkpoints = Checkpoints(folder)
    checkpoints.save(step, params, {"count": jnp.int32(step)}, {"plan": "", "lineage": "llm"})
    checkpoints.close()
    return params


def started(
    folder: Path, cfg: ModelConfig, stage: str, init: Path, mesh: jax.sharding.Mesh | None = None, whole: bool = False
) -> Start:
    """What a stage in `folder` starts from, or resumes from."""
    given = {"init": str(init), "seed": 0, "name": folder.name, "teacher": "", "encoder": "", "train": {"whole": whole}}
    config = ConfigDict(given | {"factors": stage_factors(stage)})
    mesh = mesh or sharding.make_mesh("fsdp:1", jax.devices()[:1])
    describe(folder, cfg)
    checkpoints = Checkpoints(folder)
    try:
        return start(config, cfg, mesh, TX, checkpoints, folder)
    finally:
        checkpoints.close()


def saved(folder: Path, begin: Start, step: int) -> Params:
    """Save `begin` with 1 added to all that trains, as the trainer does; returns all weights."""
    trainable = {n: jax.device_put(np.asarray(v) + 1, v.sharding) for n, v in begin.state.trainable.items()}
    state = TrainState(jnp.int32(step), trainable, begin.state.optimizer)
    params, meta = begin.stored(state)
    checkpoints = Checkpoints(folder)
    checkpoints.save(step, params, state.optimizer, {"plan": "", "lineage": folder.name} | meta)
    checkpoints.close()
    return {**trainable, **begin.frozen}
