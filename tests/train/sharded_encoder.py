"""Run by test_encoder.py on 8 virtual devices: losses and distances of final parameters for each mesh, as JSON."""

import json
import sys

import jax
import numpy as np
import optax

from eve_jax import sharding
from eve_jax.batch import RowShape, batch_arrays, zeros
from eve_jax.config.stages import partition, stage_factors
from eve_jax.data.rows.build import lay_out
from eve_jax.data.rows.spell import Sample
from eve_jax.data.text.encode import IGNORE, IMAGE_ID
from eve_jax.model.clip_config import EncoderConfig
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import init_params, parameter_shardings
from eve_jax.train.optimizer import optimizer_state
from eve_jax.train.step import StepFunctions, TrainState
from tests.train.encoder import ENCODER

ROWS, STEPS, LR = 8, 4, 2e-4
SHAPE = RowShape(12, 0, 116)  # three images of four patches
CFG = ModelConfig(
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


def rows() -> dict[str, np.ndarray]:
    """Rows of one to three images, in samples of one or two."""
    rng = np.random.default_rng(0)
    batch = zeros(batch_arrays(ROWS, SHAPE, CFG.patch_bytes, layout=CFG.layout))
    for row in range(ROWS):
        samples = []
        for count in ((1,), (2,), (1, 2))[row % 3]:
            ids = np.concatenate([[IMAGE_ID] * count, rng.integers(0, 256, 20)]).astype(np.int32)
            labels = np.where(ids == IMAGE_ID, IGNORE, ids).astype(np.int32)
            samples.append(Sample(ids, labels, [(2, 2)] * count))
        used = 4 * sum(len(sample.grids) for sample in samples)
        batch["patches"][row, :used] = rng.integers(0, 256, (used, CFG.patch_bytes))
        for name, values in lay_out(samples, SHAPE, CFG.layout).items():
            batch[name][row] = values
    return batch


def run(stage: str, spec: str) -> tuple[list[float], dict[str, jax.Array]]:
    """Losses, and what trains afterwards."""
    mesh = sharding.make_mesh(spec, jax.devices() if spec else jax.devices()[:1])
    places = parameter_shardings(CFG, mesh)
    params = {name: jax.device_put(value, places[name]) for name, value in init_params(CFG, 0).items()}
    trainable, frozen = partition(CFG, params, stage_factors(stage))
    batch = sharding.place_batch(mesh, rows(), ROWS, sharding.local_rows(mesh, ROWS))
    tx = optax.adam(LR)
    functions = StepFunctions(CFG, tx, optax.constant_schedule(LR), mesh)
    step = sharding.place(np.zeros((), np.int32), sharding.replicated(mesh))
    state = TrainState(step, trainable, optimizer_state(tx, trainable, mesh))
    losses = []
    for _ in range(STEPS):
        state, metrics = functions(state, frozen, [batch])
        losses.append(float(metrics["loss"]))
    return losses, state.trainable


def main(stage: str, *specs: str) -> None:
    wanted, parameters = run(stage, "")
    out = {}
    for spec in specs:
        losses, got = run(stage, spec)
        far = max(float(np.abs(np.asarray(got[n]) - np.asarray(value)).max()) for n, value in parameters.items())
        out[spec] = {"losses": losses, "parameters": far}
    print(json.dumps({"one device": wanted, "meshes": out}))


if __name__ == "__main__":
    main(*sys.argv[1:])
