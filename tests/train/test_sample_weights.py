"""Weights of samples in the loss: the plain formula, however samples are packed, accumulated and sharded."""

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

from eve_jax.batch import RowShape
from eve_jax.config.optim import LOSS_WEIGHTS
from eve_jax.model.eve import bind
from eve_jax.model.loss import TARGET_WEIGHT, target_losses
from eve_jax.sharding import make_mesh, place_batch
from eve_jax.train.sample_weights import weighed
from eve_jax.train.step import StepFunctions, StepRule, TrainState
from tests import reference as ref

ROOT = Path(__file__).parents[2]
CFG = ref.config()
TEXT_ONLY = RowShape(0, 0, 128)
POWER = {"token": 0.0, "sample": 1.0, "sqrt": 0.5}  # of the targets of a sample, by which each of them is divided


def test_targets_of_a_sample_share_its_weight() -> None:
    """Numbers of samples begin anew in each row; a sample that broke weighs nothing; the last entries are unused."""
    batch = {
        "segment": np.array([[1, 1, 1, 2, 2, 3, 3, 0], [1, 1, 1, 1, 1, 1, 0, 0], [0] * 8], np.int32),
        "loss_idx": np.array([[0, 1, 3, 5, 6, 0], [0, 1, 2, 3, 0, 0], [0] * 6], np.int32),
        "loss_weight": np.array([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [0] * 6], np.float32),
    }
    assert weighed(batch, "token") is batch
    np.testing.assert_array_equal(
        weighed(batch, "sample")[TARGET_WEIGHT], [[0.5, 0.5, 1, 0, 0, 0], [0.25] * 4 + [0, 0], [0] * 6]
    )
    root = weighed(batch, "sqrt")[TARGET_WEIGHT]
    np.testing.assert_allclose(root, [[0.5**0.5, 0.5**0.5, 1, 0, 0, 0], [0.5] * 4 + [0, 0], [0] * 6])
    assert root.dtype == np.float32
    assert weighed({k: v[:, :0] if k != "segment" else v for k, v in batch.items()}, "sqrt")[TARGET_WEIGHT].size == 0


def plain_losses() -> dict[str, float]:
    """The loss of the three golden samples by the definition, from the loss of each target."""
    batch = ref.alone()
    nll = np.asarray(jax.jit(lambda p, b: target_losses(bind(CFG, p), b))(ref.params(CFG), batch), np.float64)
    each = [row[weight > 0] for row, weight in zip(nll, batch["loss_weight"], strict=True)]
    assert len({len(row) for row in each}) == 3
    return {
        kind: sum(row.sum() / len(row) ** power for row in each) / sum(len(row) ** (1 - power) for row in each)
        for kind, power in POWER.items()
    }


def stepped(kind: str, batches: list[dict[str, np.ndarray]], functions: StepFunctions) -> tuple[Any, Any]:
    """Metrics of a step, and the weights after it."""
    params = ref.params(CFG)
    state = TrainState(jnp.int32(0), params, optax.sgd(1.0).init(params))
    state, metrics = functions(state, {}, [weighed(batch, kind) for batch in batches])
    return jax.device_get((metrics, state.trainable))


@pytest.mark.parametrize("kind", ["sample", pytest.param("sqrt", marks=pytest.mark.slow)])
def test_packed_and_accumulated_steps_are_those_of_samples_alone(kind: str) -> None:
    """Three rows of a sample each, one row of all, and micro-batches of two and one: one divisor for the step."""
    functions = StepFunctions(CFG, optax.sgd(1.0), optax.constant_schedule(1.0))
    parts = [ref.stack([ref.row([0], ref.ALONE), ref.row([1], ref.ALONE)]), ref.stack([ref.row([2], TEXT_ONLY)])]
    packed = [ref.stack([ref.row([0, 1, 2], ref.TOGETHER)])]
    (alone, after), *others = (stepped(kind, batches, functions) for batches in ([ref.alone()], packed, parts))
    assert alone["loss"] == pytest.approx(plain_losses()[kind], rel=1e-5)
    assert alone["targets"] == ref.alone()["loss_weight"].sum() and alone["samples_with_targets"] == 3
    for metrics, trained in others:
        assert metrics["targets"] == alone["targets"]
        np.testing.assert_allclose(metrics["loss"], alone["loss"], rtol=1e-6)
        np.testing.assert_allclose(metrics["grad_norm"], alone["grad_norm"], rtol=1e-5)
        for name, value in trained.items():
            np.testing.assert_allclose(value, after[name], atol=2e-5, err_msg=name)


def test_the_three_weights_differ() -> None:
    losses = plain_losses()
    assert list(losses) == list(LOSS_WEIGHTS)
    assert len({round(value, 4) for value in losses.values()}) == 3


def sharded() -> None:
    """Print losses and gradient norms of a step on one device and on meshes, of one and of two micro-batches."""
    out = []
    rows = {name: np.concatenate([value] * 3)[:8] for name, value in ref.alone().items()}
    for spec in ("", "data:2,fsdp:2,tensor:2", "fsdp:8"):
        mesh = make_mesh(spec, jax.devices() if spec else jax.devices()[:1])
        functions = StepFunctions(CFG, optax.sgd(1.0), optax.constant_schedule(1.0), mesh)
        rule = StepRule(CFG, optax.sgd(1.0), optax.constant_schedule(1.0), mesh)
        places = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        for count in (1, 2):
            params = {name: jax.device_put(value, places) for name, value in ref.params(CFG).items()}
            params = rule.place(params)
            state = TrainState(jax.device_put(np.int32(0), places), params, optax.sgd(1.0).init(params))
            batch = place_batch(mesh, weighed(rows, "sqrt"), 8, range(8))
            _, metrics = functions(state, {}, [batch] * count)
            out.append([float(metrics[name]) for name in ("loss", "grad_norm")])
    print(json.dumps(out))


@pytest.mark.slow
def test_a_mesh_and_several_micro_batches_have_one_divisor() -> None:
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    program = "from tests.train.test_sample_weights import sharded; sharded()"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    first, *others = json.loads(done.stdout.splitlines()[-1])
    for found in others:
        np.testing.assert_allclose(found, first, rtol=1e-5)
