"""Weights that are stored in bfloat16: moments as in float32, rounding that is right on average and repeats."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from eve_jax.batch import RowShape
from eve_jax.config.stages import partition, stage_factors
from eve_jax.data.rows.build import lay_out
from eve_jax.data.rows.spell import Sample
from eve_jax.model.eve import Batch, init_params
from eve_jax.sharding import make_mesh
from eve_jax.train.optimizer import optimizer, optimizer_state
from eve_jax.train.rounding import to_bfloat16, updated
from eve_jax.train.schedule import schedule
from eve_jax.train.step import StepFunctions, StepRule, Sums, TrainState, apply_update
from tests import reference as ref

ROOT = Path(__file__).parents[2]
CFG = replace(ref.config(), remat="none")
TINY = replace(
    CFG, vocab_size=64, hidden_size=32, intermediate_size=64, num_heads=2, num_kv_heads=2, head_dim=16, patch_hidden=8
)
NAME = "layers.mlp.text.up"  # of the weight whose optimizer is looked at alone
STEPS = 2_000


def alone(dtype: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A weight before and after STEPS updates by gradients that are 100 times smaller from step 50 on, and its second
    moment."""
    optim = base.get_config().optim
    optim.lr, optim.warmup = 1e-5, 0.0
    tx = optimizer(optim, optax.constant_schedule(optim.lr), CFG, stage_factors("3"))
    rule = StepRule(CFG, tx, optax.constant_schedule(optim.lr))
    weights = {NAME: (0.02 * jax.random.normal(jax.random.key(0), (32, 32))).astype(dtype)}
    drift = jnp.where(jax.random.bernoulli(jax.random.key(1), 0.5, (32, 32)), 1.0, -1.0)

    def step(number: jax.Array, state: TrainState) -> TrainState:
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(2), number), (32, 32))
        grads = (noise + drift) * jnp.where(number < 50, 1.0, 0.01) * 2e-3
        one = jnp.float32(1)
        return apply_update(rule, state, Sums({NAME: grads}, one, one, one, one))[0]

    begin = TrainState(jnp.int32(0), weights, optimizer_state(tx, weights, make_mesh("", jax.devices()[:1])))
    state = jax.jit(partial(jax.lax.fori_loop, 0, STEPS, step))(begin)
    assert state.trainable[NAME].dtype == dtype
    return weights[NAME], state.trainable[NAME], optax.tree_utils.tree_get(state.optimizer, "nu")[NAME]


def test_the_optimizer_of_bfloat16_weights_moves_them_as_in_float32() -> None:
    (start, wanted, second), (rounded, got, own_second) = alone("float32"), alone("bfloat16")
    assert own_second.dtype == jnp.float32
    np.testing.assert_allclose(own_second, second, rtol=1e-6)
    moved, own_moved = wanted - start, got.astype(jnp.float32) - rounded.astype(jnp.float32)
    assert float(jnp.mean(moved != 0)) == 1
    assert float(jnp.mean(own_moved != 0)) > 0.95
    slope = float(jnp.sum(moved * own_moved) / jnp.sum(moved * moved))
    assert slope == pytest.approx(1, abs=0.02)


def test_rounding_is_right_on_average_and_leaves_alone_what_fits() -> None:
    x = jnp.array([1.0, -1.0, 1 + 2**-10, -1 - 2**-10, 3e-39, -0.0, np.inf, -np.inf, np.nan], jnp.float32)
    many = np.asarray(to_bfloat16(jnp.broadcast_to(x, (20_000, x.size)), jax.random.key(0)), np.float32)
    exact = [0, 1, 5, 6, 7]
    np.testing.assert_array_equal(many[:, exact], np.broadcast_to(np.asarray(x)[exact], (20_000, len(exact))))
    assert np.isnan(many[:, 8]).all()
    assert set(many[:, 2]) == {1.0, 1 + 2**-7} and set(many[:, 3]) == {-1.0, -1 - 2**-7}
    np.testing.assert_allclose(many[:, 2:4].mean(0), x[2:4], atol=5 * 2**-7 * (7 / 64) ** 0.5 / 20_000**0.5)
    highest = jax.lax.bitcast_convert_type(jnp.uint32(0x7FFFFFFF), jnp.float32)  # a NaN that noise would overflow
    assert np.isnan(np.asarray(to_bfloat16(highest[None], jax.random.key(0)), np.float32)).all()


def test_each_weight_and_step_has_its_own_noise() -> None:
    half = {name: jnp.ones(4096, jnp.bfloat16) for name in ("a", "b")}
    up = {name: jnp.full(4096, 2.0**-8) for name in half}
    seen = [np.asarray(updated(half, up, jnp.int32(step))[name] > 1) for step in (0, 1) for name in half]
    for number, one in enumerate(seen):
        assert 0.45 < one.mean() < 0.55
        assert all(0.4 < np.mean(one == other) < 0.6 for other in seen[:number])


def chain(rng: np.random.Generator) -> Batch:
    """Two rows with an image and 80 tokens, of which every second follows from the one before."""
    rows = []
    for _ in range(2):
        text = rng.integers(3, 60, 80).astype(np.int32)
        text[1::2] = (7 * text[0::2] + 3) % 57 + 3
        ids = np.concatenate([[ref.IMAGE_ID], text]).astype(np.int32)
        shape = RowShape(4, 4, 120)
        pixels = rng.integers(0, 256, (4, 3072), np.uint8)
        labels = np.where(ids == ref.IMAGE_ID, -100, ids).astype(np.int32)
        rows.append({**lay_out([Sample(ids, labels, [(2, 2)])], shape), "patches": pixels})
    return ref.stack(rows)


def trained(param_dtype: str, steps: int, lr: float = 1e-3, stop: int = 0) -> tuple[list[float], TrainState]:
    """Losses of `steps` steps and the last state; at `stop`, the state goes through host memory."""
    cfg = replace(TINY, param_dtype=param_dtype)
    optim = base.get_config().optim
    optim.lr = lr
    rate = schedule(optim, steps)
    tx = optimizer(optim, rate, cfg, stage_factors("3"))
    params = init_params(replace(cfg, param_dtype="float32"), 0)
    params = {name: value.astype(param_dtype) for name, value in params.items()}
    trainable, frozen = partition(cfg, params, stage_factors("3"))
    state = TrainState(jnp.int32(0), trainable, optimizer_state(tx, trainable, make_mesh("", jax.devices()[:1])))
    functions, losses = StepFunctions(cfg, tx, rate), []
    for number in range(steps):
        if stop and number == stop:
            state = jax.tree.map(jnp.array, jax.device_get(state))
        rng = np.random.default_rng(number)
        state, metrics = functions(state, frozen, [chain(rng)])
        losses.append(float(metrics["loss"]))
    return losses, state


def test_updates_of_a_resumed_run_are_the_same_bits() -> None:
    tx = optimizer(base.get_config().optim, optax.constant_schedule(1e-5), CFG, stage_factors("3"))
    update = jax.jit(partial(apply_update, StepRule(CFG, tx, optax.constant_schedule(1e-5))))
    weights = {NAME: jax.random.normal(jax.random.key(0), (16, 16)).astype(jnp.bfloat16)}
    state = TrainState(jnp.int32(0), weights, optimizer_state(tx, weights, make_mesh("", jax.devices()[:1])))
    resumed, one = state, jnp.float32(1)
    for number in range(4):
        sums = Sums({NAME: jax.random.normal(jax.random.key(number), (16, 16))}, one, one, one, one)
        state = update(state, sums)[0]
        resumed = update(jax.tree.map(jnp.array, jax.device_get(resumed)), sums)[0]
    for kept, again in zip(jax.tree.leaves(state), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(kept, again)
    assert 0 < float(jnp.mean(state.trainable[NAME] != weights[NAME])) < 1


@pytest.mark.slow
def test_bfloat16_weights_train_on_with_the_same_bits() -> None:
    (whole, state), (parts, resumed) = trained("bfloat16", 4), trained("bfloat16", 4, stop=2)
    assert whole == parts
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_two_thousand_steps_of_bfloat16_weights_reach_the_loss_of_float32() -> None:
    last = {}
    for dtype in ("float32", "bfloat16"):
        losses, _ = trained(dtype, STEPS, lr=1e-4)
        last[dtype] = float(np.mean(losses[-100:]))
        assert last[dtype] < 0.9 * losses[0]
    assert last["bfloat16"] == pytest.approx(last["float32"], rel=0.01)


SHARDED = """
import json, jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from eve_jax.sharding import make_mesh
from eve_jax.train.rounding import updated
mesh = make_mesh("fsdp:4,tensor:2")
values = {"w": jax.random.normal(jax.random.key(0), (64, 64)).astype(jnp.bfloat16)}
more = {"w": 1e-4 * jax.random.normal(jax.random.key(1), (64, 64))}
wanted = np.asarray(jax.jit(updated)(values, more, 3)["w"], np.float32)
for spec in (P("fsdp", "tensor"), P("tensor"), P(None, ("fsdp", "tensor"))):
    place = lambda tree: jax.device_put(tree, NamedSharding(mesh, spec))
    got = jax.jit(updated)(place(values), place(more), 3)["w"]
    assert (np.asarray(got, np.float32) == wanted).all(), spec
print(json.dumps(len(mesh.devices.flat)))
"""


def test_rounding_does_not_depend_on_the_mesh() -> None:
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", SHARDED], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == 8
