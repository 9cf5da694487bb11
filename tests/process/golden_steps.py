"""Run by test_golden_steps.py as each of several processes: golden losses of stage 3 on a mesh over all of them.

python -m tests.process.golden_steps HOST:PORT PROCESSES PROCESS FOLDER MESH
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import optax

from configs import base
from eve_jax import sharding
from eve_jax.config.stages import partition, stage_factors
from eve_jax.data.image.rule import PATCH_BYTES
from eve_jax.data.rows.build import lay_out
from eve_jax.model.eve import parameter_shardings
from eve_jax.process.cluster import Cluster
from eve_jax.process.connect import distributed_run, peers, print_once
from eve_jax.train.optimizer import optimizer, optimizer_state
from eve_jax.train.step import StepFunctions, TrainState
from tests import reference as ref


def losses(spec: str, rows: int) -> list[float]:
    """Losses before each of six steps, as in the golden set G (`all`); padding rows fill up to `rows`."""
    cfg = ref.config()
    mesh = sharding.make_mesh(spec)
    held = sharding.local_rows(mesh, rows)
    places = parameter_shardings(cfg, mesh)
    params = {name: sharding.place(value, places[name]) for name, value in ref.params(cfg).items()}
    trainable, frozen = partition(cfg, params, stage_factors("3"))
    empty = {**lay_out([], ref.ALONE), "patches": np.zeros((ref.ALONE.patches, PATCH_BYTES), np.uint8)}
    whole = ref.stack([*(ref.row([i], ref.ALONE) for i in range(3)), *[empty] * (rows - 3)])
    batch = sharding.place_batch(mesh, {name: value[held] for name, value in whole.items()}, rows, held)
    schedule = optax.constant_schedule(1e-3)
    optim = base.get_config().optim
    optim.clip = 0.0
    tx = optimizer(optim, schedule, cfg, stage_factors("3"))
    functions = StepFunctions(cfg, tx, schedule, mesh)
    step = sharding.place(np.zeros((), np.int32), sharding.replicated(mesh))
    state = TrainState(step, trainable, optimizer_state(tx, trainable, mesh))
    found = []
    for _ in range(6):
        state, metrics = functions(state, frozen, [batch])
        found.append(float(metrics["loss"]))
    return found


def main(coordinator: str, count: str, number: str, folder: str, spec: str) -> None:
    with distributed_run(Cluster(coordinator, int(count), int(number)), Path(folder)):
        others = peers()
        found = losses(spec, 4)
        rows = others.gather("rows", json.dumps(sharding.local_rows(sharding.make_mesh(spec), 4))) if others else []
        print_once(json.dumps({"losses": found, "rows": [json.loads(r) for r in rows], "devices": jax.device_count()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
