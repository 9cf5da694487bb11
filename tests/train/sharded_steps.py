"""Run by test_meshes.py on 8 virtual devices: prints losses and final parameters' distances for each mesh as JSON."""

import json
import sys

import jax
import numpy as np
import optax

from eve_jax import sharding
from eve_jax.batch import RowShape
from eve_jax.config.stages import partition, stage_factors
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Batch, Params, parameter_shardings
from eve_jax.train.optimizer import abstract_optimizer, optimizer_state
from eve_jax.train.step import StepFunctions, TrainState
from tests import family
from tests import reference as ref
from tests import reference_v1 as v1
from tests.model.adapters import adapter_values, with_adapters

ROWS = 8
LR = 2e-4  # the papers' largest; Adam moves an entry whose gradient is rounding alone by about as much, either way
V1 = "v1"  # in place of a routing: EVEv1 with its aligning loss
NEO = "neo"  # in place of a routing: NEO's golden model
LORA = "lora"  # before a routing: adapters of all matrices, with dropout


def given(routing: str) -> tuple[ModelConfig, Params, Batch]:
    """A model, its weights, and at least three rows of a sample each."""
    if routing == V1:
        cfg = v1.config("D1", aligned=True)
        return cfg, v1.params(cfg, "D1"), v1.alone("D1")
    if routing == NEO:
        cfg = family.neo()
        rows = [family.neo_row(cfg, [case], RowShape(16, 0, 112)) for case in family.CASES]
        weights = jax.device_get(family.neo_params(cfg))
        return cfg, weights, {n: np.concatenate([one[n] for one in rows]) for n in rows[0]}
    cfg = ref.config(routing=routing.removeprefix(LORA))
    weights = ref.params(cfg)
    if routing.startswith(LORA):
        cfg = with_adapters(cfg, dropout=0.1)
        weights |= adapter_values(cfg)
    return cfg, weights, ref.alone()


def run(stage: str, routing: str, steps: int, spec: str) -> tuple[list[float], dict[str, jax.Array], list[str]]:
    """Losses of `steps` steps of ROWS rows, what trains afterwards, and what lies otherwise than before."""
    cfg, weights, few = given(routing)
    mesh = sharding.make_mesh(spec, jax.devices() if spec else jax.devices()[:1])
    places = parameter_shardings(cfg, mesh)
    params = {name: jax.device_put(value, places[name]) for name, value in weights.items()}
    trainable, frozen = partition(cfg, params, stage_factors(stage))
    rows = {name: np.concatenate([value] * 3)[:ROWS] for name, value in few.items()}
    batch = sharding.place_batch(mesh, rows, ROWS, sharding.local_rows(mesh, ROWS))
    tx = optax.adam(LR)
    functions = StepFunctions(cfg, tx, optax.constant_schedule(LR), mesh)
    step = sharding.place(np.zeros((), np.int32), sharding.replicated(mesh))
    state = TrainState(step, trainable, optimizer_state(tx, trainable, mesh))
    losses = []
    for _ in range(steps):
        state, metrics = functions(state, frozen, [batch])
        losses.append(float(metrics["loss"]))
    wanted = TrainState(state.step, {n: places[n] for n in trainable}, abstract_optimizer(tx, trainable, mesh))
    lie = {
        name: place if isinstance(place, jax.sharding.Sharding) else place.sharding
        for name, place in jax.tree_util.tree_leaves_with_path(wanted)
    }
    values = jax.tree_util.tree_leaves_with_path(state)
    moved = [jax.tree_util.keystr(n) for n, v in values if not v.sharding.is_equivalent_to(lie[n], v.ndim)]
    return losses, state.trainable, moved


def main(stage: str, routing: str, steps: str, *specs: str) -> None:
    wanted, parameters, _ = run(stage, routing, int(steps), "")
    out = {}
    for spec in specs:
        losses, got, moved = run(stage, routing, int(steps), spec)
        far = max(float(np.abs(np.asarray(got[name]) - np.asarray(value)).max()) for name, value in parameters.items())
        out[spec] = {"losses": losses, "parameters": far, "unsharded": moved}
    print(json.dumps({"one device": wanted, "meshes": out}))


if __name__ == "__main__":
    main(*sys.argv[1:])
