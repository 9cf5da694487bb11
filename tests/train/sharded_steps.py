"""Run by test_meshes.py on 8 virtual devices: what each mesh trains next to what one device does, as JSON."""

import json
import sys
from typing import NamedTuple

import jax
import numpy as np
import optax

from eve_jax import sharding
from eve_jax.batch import RowShape
from eve_jax.config.stages import partition, stage_factors
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Batch, Params, init_params, parameter_shardings
from eve_jax.train.optimizer import abstract_optimizer, optimizer_state
from eve_jax.train.step import StepFunctions, TrainState
from tests import family
from tests import reference as ref
from tests import reference_v1 as v1
from tests.hundred import hundred
from tests.model.adapters import adapter_values, with_adapters
from tests.train.encoder import SIGHTED, sighted_rows
from tests.weights.gemma import packed_row, tiny_gemma

ROWS = 8
LR = 2e-4  # the papers' largest
ROUNDING = 1e-6  # of a tensor's largest gradient: Adam moves an entry of less by up to LR, whichever way it was rounded
V1 = "v1"  # in place of a routing: EVEv1 with its aligning loss
NEO = "neo"  # in place of a routing: NEO's golden model
GEMMA, HUNDRED = "gemma", "hundred"  # likewise: tiny models with random weights
SEES = "encoder"  # likewise: a tiny model with a vision encoder
KEY_BIASES = "patch_embed.tower.layers.k.bias"
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
    if routing in (GEMMA, HUNDRED):
        cfg = tiny_gemma() if routing == GEMMA else hundred(sub_patch=4, patch_sides=9, vocab_size=320)
        each = [packed_row(cfg, [number]) for number in range(3)]
        return cfg, jax.device_get(init_params(cfg, 0)), {n: np.concatenate([one[n] for one in each]) for n in each[0]}
    if routing == SEES:
        return SIGHTED, jax.device_get(init_params(SIGHTED, 0)), sighted_rows(ROWS)
    cfg = ref.config(routing=routing.removeprefix(LORA))
    weights = ref.params(cfg)
    if routing.startswith(LORA):
        cfg = with_adapters(cfg, dropout=0.1)
        weights |= adapter_values(cfg)
    return cfg, weights, ref.alone()


class Trained(NamedTuple):
    """Losses of some steps, gradients of the first one by what Adam keeps of them, what trains afterwards, and the
    names of what lies otherwise than before."""

    losses: list[float]
    gradients: dict[str, np.ndarray]
    parameters: dict[str, jax.Array]
    moved: list[str]


def run(stage: str, routing: str, steps: int, spec: str) -> Trained:
    """Train `steps` steps of ROWS rows on the mesh `spec`, "" for one device."""
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
    losses: list[float] = []
    first: dict[str, np.ndarray] = {}
    for _ in range(steps):
        state, metrics = functions(state, frozen, [batch])
        losses.append(float(metrics["loss"]))
        first = first or {n: np.array(mean) for n, mean in optax.tree_utils.tree_get(state.optimizer, "mu").items()}
    wanted = TrainState(state.step, {n: places[n] for n in trainable}, abstract_optimizer(tx, trainable, mesh))
    lie = {
        name: place if isinstance(place, jax.sharding.Sharding) else place.sharding
        for name, place in jax.tree_util.tree_leaves_with_path(wanted)
    }
    values = jax.tree_util.tree_leaves_with_path(state)
    moved = [jax.tree_util.keystr(n) for n, v in values if not v.sharding.is_equivalent_to(lie[n], v.ndim)]
    return Trained(losses, first, state.trainable, moved)


def gradients_apart(wanted: Trained, got: Trained) -> float:
    """The largest difference of an entry of the first gradients, in parts of its tensor's largest entry.

    Without that of the encoder's key biases, which is zero but for rounding: they shift all scores of a query.
    """
    pairs = ((got.gradients[name], value) for name, value in wanted.gradients.items() if name != KEY_BIASES)
    return max(float(np.abs(ours - value).max() / (np.abs(value).max() or 1.0)) for ours, value in pairs)


class Apart(NamedTuple):
    """The largest difference of a parameter whose first gradient was more than rounding (zeros are: nothing moves
    those), that of the others, and which share of all the others are."""

    decided: float
    undecided: float
    share: float


def parameters_apart(wanted: Trained, got: Trained) -> Apart:
    """How far the parameters of two trainings are from each other."""
    decided, undecided, count = 0.0, 0.0, 0
    for name, value in wanted.parameters.items():
        size = np.abs(wanted.gradients[name])
        rounding = (size > 0) & (size < ROUNDING * size.max())
        difference = np.abs(np.asarray(got.parameters[name]) - np.asarray(value))
        decided = max(decided, float(difference[~rounding].max(initial=0.0)))
        undecided = max(undecided, float(difference[rounding].max(initial=0.0)))
        count += int(rounding.sum())
    return Apart(decided, undecided, count / sum(value.size for value in wanted.gradients.values()))


def main(stage: str, routing: str, steps: str, *specs: str) -> None:
    wanted = run(stage, routing, int(steps), "")
    out = {}
    for spec in specs:
        got = run(stage, routing, int(steps), spec)
        apart = parameters_apart(wanted, got)
        out[spec] = {
            "losses": got.losses,
            "gradients": gradients_apart(wanted, got),
            **apart._asdict(),
            "unsharded": got.moved,
        }
    print(json.dumps({"one device": wanted.losses, "meshes": out}))


if __name__ == "__main__":
    main(*sys.argv[1:])
