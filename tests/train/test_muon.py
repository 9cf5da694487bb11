"""Muon and the average of the weights against plain formulas; every choice resumes exactly, on any mesh."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from eve_jax.checkpoint.stage_folder import Checkpoints
from eve_jax.config.stages import stage_factors
from eve_jax.model.config import VARIANTS
from eve_jax.model.eve import abstract_params, adapters, declared, layer_matrices
from eve_jax.sharding import make_mesh
from eve_jax.train.average import with_average
from eve_jax.train.optimizer import abstract_optimizer, optimizer, optimizer_state
from eve_jax.train.step import StepRule, Sums, TrainState, apply_update
from tests import reference as ref
from tests.model.adapters import with_adapters

ROOT = Path(__file__).parents[2]
CFG = ref.config()
WIDE, TALL, TABLE, NORM = "layers.attn.k.text.kernel", "layers.mlp.vision.down", "embed", "norm.scale"
LR = 1e-2
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Newton and Schulz, Jordan et al. 2024


def rule(**fields: Any) -> StepRule:
    """The rule of `config.optim` with other fields, at a constant rate."""
    optim = base.get_config("tiny").optim
    optim.update({"clip": 0.0, **fields})
    return StepRule(CFG, optimizer(optim, optax.constant_schedule(LR), CFG, stage_factors("3")), lambda _: LR)


def weights(dtype: str = "float32") -> dict[str, jax.Array]:
    """Two matrices of two layers, a table and a norm."""
    shapes = {WIDE: (2, 8, 12), TALL: (2, 24, 8), TABLE: (16, 8), NORM: (8,)}
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return {n: jax.random.normal(k, s).astype(dtype) for k, (n, s) in zip(keys, shapes.items(), strict=True)}


def gradients(number: int) -> dict[str, jax.Array]:
    """Gradients of a step; one matrix has a thousand times larger ones, which no other may feel."""
    found = {}
    for place, (name, value) in enumerate(weights().items()):
        found[name] = jax.random.normal(jax.random.key(100 * number + place + 7), value.shape)
    found[WIDE] = found[WIDE] * jnp.array([1.0, 1000.0])[:, None, None]
    return found


def begun(one: StepRule, dtype: str = "float32") -> TrainState:
    given = weights(dtype)
    return TrainState(jnp.int32(0), given, optimizer_state(one.tx, given, make_mesh("", jax.devices()[:1])))


def stepper(one: StepRule) -> Any:
    unit = jnp.float32(1)
    return jax.jit(lambda state, grads: apply_update(one, state, Sums(grads, unit, unit, unit, unit))[0])


def orthogonal(x: np.ndarray) -> np.ndarray:
    """Five steps of Newton and Schulz on a matrix, float64."""
    a, b, c = COEFFICIENTS
    x = x / np.linalg.norm(x)
    turned = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(5):
        square = turned @ turned.T
        turned = a * turned + (b * square + c * square @ square) @ turned
    return turned.T if x.shape[0] > x.shape[1] else turned


def test_matrices_move_as_the_formula_says_and_the_rest_as_with_adamw() -> None:
    """Each matrix of each layer for itself, wide and tall, with weight decay; the average of all of them next to it."""
    one, other = rule(rule="muon", momentum=0.9, weight_decay=0.1, ema=0.8), rule(weight_decay=0.1)
    state, plain = begun(one), begun(other)
    step, plain_step = stepper(one), stepper(other)
    momentum = {n: np.zeros(weights()[n].shape) for n in (WIDE, TALL)}
    wanted = {n: np.asarray(v, np.float64) for n, v in weights().items()}
    average = dict(wanted)
    for number in range(4):
        grads = gradients(number)
        state, plain = step(state, grads), plain_step(plain, grads)
        for name, held in momentum.items():
            grad = np.asarray(grads[name], np.float64)
            held[:] = 0.9 * held + 0.1 * grad
            ahead = 0.9 * held / (1 - 0.9 ** (number + 2)) + 0.1 * grad / (1 - 0.9 ** (number + 1))
            update = np.stack([orthogonal(matrix) for matrix in ahead])
            wanted[name] = wanted[name] - LR * (0.2 * max(grad.shape[1:]) ** 0.5 * update + 0.1 * wanted[name])
        for name in (TABLE, NORM):
            wanted[name] = np.asarray(plain.trainable[name], np.float64)
        average = {n: 0.8 * average[n] + 0.2 * wanted[n] for n in wanted}
    for name, value in wanted.items():
        np.testing.assert_allclose(state.trainable[name], value, rtol=1e-5, atol=2e-6, err_msg=name)
        np.testing.assert_allclose(state.optimizer.average[name], average[name], rtol=1e-5, atol=2e-6, err_msg=name)
    for name in (TABLE, NORM):
        np.testing.assert_array_equal(state.trainable[name], plain.trainable[name])


@pytest.mark.slow
def test_a_single_matrix_moves_as_in_pytorch() -> None:
    """Whose momentum has no correction and whose products are in bfloat16: direction and size of a run."""
    torch = pytest.importorskip("torch")
    one = rule(rule="muon")
    state, step = begun(one), stepper(one)
    theirs = torch.nn.Parameter(torch.tensor(np.asarray(weights()[TALL][1])))
    muon = torch.optim.Muon([theirs], lr=LR, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for number in range(30):
        state = step(state, gradients(number))
        theirs.grad = torch.tensor(np.asarray(gradients(number)[TALL][1]))
        muon.step()
    moved = np.asarray(state.trainable[TALL][1] - weights()[TALL][1]).ravel()
    their_moved = (theirs.detach().numpy() - np.asarray(weights()[TALL][1])).ravel()
    assert np.corrcoef(moved, their_moved)[0, 1] > 0.995
    assert np.linalg.norm(moved) == pytest.approx(np.linalg.norm(their_moved), rel=0.03)


@pytest.mark.parametrize("variant", VARIANTS)
def test_muon_is_for_matrices_of_the_layers(variant: str) -> None:
    """Not for embedding, head, norms, biases and the patch embedding; a projection is one matrix for all its heads."""
    cfg = ref.config(VARIANTS[variant])
    chosen = layer_matrices(cfg)
    shapes = abstract_params(cfg)
    assert {declared(cfg)[n].role for n in chosen} == {"matrix"}
    assert all(n.startswith("layers.") and len(shapes[n].shape) == 3 for n in chosen)
    assert not any(n.startswith(("patch_embed", "embed", "head", "norm")) for n in chosen)
    assert shapes["layers.attn.q.text.kernel"].shape == (cfg.num_layers, cfg.hidden_size, cfg.num_heads * cfg.head_dim)
    adapted = with_adapters(cfg, ("text", "patch_embed"))
    more = layer_matrices(adapted) - chosen
    assert more == {name for name in adapters(adapted) if name.startswith("layers.")} != adapters(adapted)
    assert all(len(shape.shape) == 3 for name, shape in abstract_params(adapted).items() if name in more)


CHOICES: dict[str, dict[str, Any]] = {
    "muon": {"rule": "muon"},
    "bfloat16": {"moments": "bfloat16"},
    "int8": {"moments": "int8"},
    "average": {"ema": 0.9},
    "all": {"rule": "muon", "moments": "int8", "ema": 0.9, "clip": 1.0, "weight_decay": 0.1},
}


@pytest.mark.parametrize(
    ("choice", "dtype"),
    [
        ("all", "bfloat16"),
        ("bfloat16", "float32"),
        *(pytest.param(choice, "float32", marks=pytest.mark.slow) for choice in CHOICES if choice != "bfloat16"),
    ],
)
def test_a_resumed_run_has_the_same_bits(tmp_path: Path, choice: str, dtype: str) -> None:
    one = rule(**CHOICES[choice])
    step, state = stepper(one), begun(one, dtype)
    for number in range(4):
        state = step(state, gradients(number))
        if number == 1:
            checkpoints = Checkpoints(tmp_path)
            checkpoints.save(2, state.trainable, state.optimizer, {"plan": ""})
            checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    begin = begun(one, dtype)
    like = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=v.sharding), begin.trainable)
    held = abstract_optimizer(one.tx, begin.trainable, make_mesh("", jax.devices()[:1]))
    resumed = TrainState(jnp.int32(2), *checkpoints.restore(2, like, held))
    checkpoints.close()
    for number in (2, 3):
        resumed = step(resumed, gradients(number))
    jax.tree.map(lambda wanted, got: np.testing.assert_array_equal(wanted, got, strict=True), state, resumed)


def test_a_step_that_is_skipped_changes_neither_moments_nor_average() -> None:
    one = rule(**CHOICES["all"])
    step = stepper(one)
    state = step(begun(one), gradients(0))
    after = step(state, gradients(1) | {TABLE: jnp.full((16, 8), jnp.nan)})
    for before, now in zip(jax.tree.leaves(state[1:]), jax.tree.leaves(after[1:]), strict=True):
        np.testing.assert_array_equal(before, now)


def test_the_average_has_the_dtypes_of_the_weights() -> None:
    one = rule(ema=0.5)
    state = stepper(one)(begun(one, "bfloat16"), gradients(0))
    found = with_average(state.optimizer, state.trainable)
    assert {v.dtype.name for v in state.optimizer.average.values()} == {"float32"}
    assert found.keys() == state.trainable.keys() and {v.dtype.name for v in found.values()} == {"bfloat16"}


SHARDED = """
import json, jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh
from eve_jax.model.eve import parameter_shardings
from eve_jax.sharding import make_mesh
from eve_jax.train.optimizer import abstract_optimizer, optimizer_state
from eve_jax.train.step import Sums, TrainState, apply_update
from tests.train import test_muon as t

names = [t.WIDE, t.TALL, t.TABLE, t.NORM]
values = {n: v for n, v in t.ref.params(t.CFG).items() if n in names}
out = {}
for spec in ("", "fsdp:4,tensor:2", "data:2,tensor:4"):
    mesh = make_mesh(spec, jax.devices() if spec else jax.devices()[:1])
    places = parameter_shardings(t.CFG, mesh)
    one = t.rule(**t.CHOICES["all"])._replace(mesh=mesh)
    weights = {n: jax.device_put(v, places[n]) for n, v in values.items()}
    state = TrainState(jax.device_put(jnp.int32(0)), weights, optimizer_state(one.tx, weights, mesh))
    unit = jnp.float32(1)
    step = jax.jit(lambda s, g: apply_update(one, s, Sums(g, unit, unit, unit, unit))[0])
    for number in range(2):
        keys = jax.random.split(jax.random.key(number), len(names))
        grads = {n: jax.device_put(jax.random.normal(k, values[n].shape), places[n]) for n, k in zip(names, keys)}
        state = step(state, grads)
    wanted = jax.tree.leaves(abstract_optimizer(one.tx, weights, mesh))
    got = jax.tree.leaves(state.optimizer)
    moved = sum(not v.sharding.is_equivalent_to(w.sharding, v.ndim) for v, w in zip(got, wanted, strict=True))
    divided = sum(not v.sharding.is_fully_replicated for v in got)
    codes = np.concatenate([np.asarray(v).ravel().astype(int) for v in got if v.dtype in (jnp.int8, jnp.uint8)])
    trained = {n: np.asarray(v) for n, v in state.trainable.items()}
    first = out.setdefault("", (trained, codes))
    far = max(float(np.abs(trained[n] - first[0][n]).max()) for n in names)
    out[spec] = out.get(spec) or (far, int(np.abs(codes - first[1]).max()), moved, divided)
print(json.dumps({k: v for k, v in out.items() if k}))
"""


@pytest.mark.slow
def test_a_mesh_of_eight_devices_moves_weights_as_one_device() -> None:
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", SHARDED], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for spec, (far, codes, moved, divided) in json.loads(done.stdout.splitlines()[-1]).items():
        assert far < 1e-5 and codes <= 1 and not moved and divided >= 8, (spec, far, codes, moved, divided)
