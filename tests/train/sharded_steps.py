"""Run by test_meshes.py on 8 virtual devices: prints losses and final parameters' distances for each mesh as JSON."""

import json
import sys

import jax
import numpy as np
import optax

from eve_jax import sharding
from eve_jax.train.stages import partition
from eve_jax.train.step import StepFunctions, TrainState
from eve_jax.train.trainer import parameter_shardings
from tests import reference as ref
from tests import reference_v1 as v1

STEPS = 3
V1 = "v1"  # in place of a routing: EVEv1 with its aligning loss


def run(stage: str, routing: str, spec: str) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses of STEPS steps of 8 rows, and what trains afterwards."""
    cfg = v1.config("D1", aligned=True) if routing == V1 else ref.config(routing=routing)
    devices = jax.devices() if spec else jax.devices()[:1]
    weights = v1.params(cfg, "D1") if routing == V1 else ref.params(cfg)
    rows = v1.alone("D1") if routing == V1 else ref.alone()
    mesh = sharding.make_mesh(spec, devices)
    places = parameter_shardings(cfg, mesh)
    params = {name: jax.device_put(value, places[name]) for name, value in weights.items()}
    trainable, frozen = partition(params, stage)
    batch = {name: np.concatenate([value] * 3)[:8] for name, value in rows.items()}
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
