"""Run by test_meshes.py on 8 virtual devices: prints losses and final parameters' distances for each mesh as JSON."""

import json
import sys

import jax
import numpy as np
import optax

from eve_jax import sharding
from eve_jax.train.stages import partition
from eve_jax.train.start import parameter_shardings
from eve_jax.train.step import StepFunctions, TrainState
from tests import reference as ref

STEPS = 3


def run(stage: str, routing: str, spec: str) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses of STEPS steps of 8 rows, and what trains afterwards."""
    cfg = ref.config(routing=routing)
    devices = jax.devices() if spec else jax.devices()[:1]
    mesh = sharding.make_mesh(spec, devices)
    places = parameter_shardings(cfg, mesh)
    params = {name: jax.device_put(value, places[name]) for name, value in ref.params(cfg).items()}
    trainable, frozen = partition(params, stage)
    batch = {name: np.concatenate([value] * 3)[:8] for name, value in ref.alone().items()}
    batch = jax.device_put(batch, sharding.batch_sharding(mesh))
    tx = optax.adam(1e-3)
    functions = StepFunctions(cfg, tx, optax.constant_schedule(1e-3), mesh)
    state = TrainState(jax.numpy.zeros((), jax.numpy.int32), trainable, tx.init(trainable))
    losses = []
    for _ in range(STEPS):
        state, metrics = functions(state, frozen, [batch])
        losses.append(float(metrics["loss"]))
    return losses, {name: np.asarray(value) for name, value in state.trainable.items()}


def main(stage: str, routing: str, *specs: str) -> None:
    wanted, parameters = run(stage, routing, "")
    out = {}
    for spec in specs:
        losses, got = run(stage, routing, spec)
        far = max(float(np.abs(got[name] - value).max()) for name, value in parameters.items())
        out[spec] = {"losses": losses, "parameters": far}
    print(json.dumps({"one device": wanted, "meshes": out}))


if __name__ == "__main__":
    main(*sys.argv[1:])
