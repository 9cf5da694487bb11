"""A step that is not finite: the weights stay; the run stops with a dump of its rows, or skips and counts it."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import demo
from eve_jax.demo.dataset import write_dataset
from eve_jax.errors import UserError
from eve_jax.train.checkpoint import steps_in
from eve_jax.train.metrics import read_metrics
from eve_jax.train.recipe import placed
from eve_jax.train.step import StepFunctions, Sums, TrainState
from eve_jax.train.trainer import train
from tests import reference as ref


def test_the_step_leaves_weights_and_optimizer_alone():
    lr = optax.linear_schedule(1.0, 0.0, 10)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(lr))
    functions = StepFunctions(ref.config(), tx, lr)
    weights = {"w": jnp.arange(6.0).reshape(2, 3)}
    state = TrainState(jnp.int32(0), weights, tx.init(weights))
    good = np.full((2, 3), 0.5, np.float32)
    infinite = np.where(np.arange(6).reshape(2, 3) == 1, np.float32(np.inf), good)
    rates = []
    for grad, loss in ((good, 3.0), (good, np.nan), (infinite, 3.0), (good, 3.0)):
        before = jax.device_get(state)
        state, metrics, _ = functions.update(state, Sums({"w": jnp.asarray(grad)}, jnp.float32(loss), jnp.float32(2)))
        rates.append(float(metrics["lr"]))
        finite = np.isfinite(metrics["loss"]) and np.isfinite(metrics["grad_norm"])
        assert finite == (np.isfinite(loss) and np.isfinite(grad).all())
        same = [
            np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before[1:]), jax.tree.leaves(state[1:]), strict=True)
        ]
        assert not any(same) if finite else all(same)
        assert int(state.step) == int(before.step) + 1
    np.testing.assert_allclose(rates, [1.0, 0.9, 0.9, 0.9], rtol=1e-6)  # those two did not count


def config(work: Path, nan: str) -> ConfigDict:
    c = placed(demo.get_config("tiny").stages.stage1, work, "")
    c.train.steps, c.train.nan, c.train.save_every = 4, nan, 2
    c.data.rows, c.data.micro_batches, c.data.max_shapes = 2, 1, 1
    c.optim.lr, c.optim.warmup = 1e30, 0.0  # the second step has no finite loss
    return c


def test_stop_and_skip(tmp_path, capsys):
    write_dataset(tmp_path / "data", "tiny")
    with pytest.raises(UserError, match=r"step 2: .*not_finite_step_2\.npz.*--config\.train\.nan=skip"):
        train(config(tmp_path, "stop"), tmp_path, quiet=True)
    folder = tmp_path / "stage1"
    assert steps_in(folder) == []
    summary = json.loads((folder / "not_finite_step_2.json").read_text())
    assert (summary["step"], summary["rows_with_a_loss_that_is_not_finite"]) == (2, True)
    known = {json.loads(line)["id"] for line in (tmp_path / "data" / "captions.jsonl").read_text().splitlines()}
    ids = [record["id"] for row in summary["rows"] for record in row["records"]]
    assert ids
    assert set(ids) <= known
    with np.load(folder / "not_finite_step_2.npz") as rows:
        assert len(rows["0.patches"]) == len(rows["0.text_ids"]) == len(summary["rows"])

    train(config(tmp_path, "skip"), tmp_path, quiet=True)
    assert "skipped step 2: loss or gradient not finite (1 skipped so far)" in capsys.readouterr().out
    lines = read_metrics(folder)
    assert [m["step"] for m in lines] == [1, 2, 3, 4]
    assert [m["loss"] is None or m["grad_norm"] is None for m in lines] == [False, True, True, True]
    assert steps_in(folder) == [2, 4]
    with pytest.raises(UserError, match=r"config\.train\.nan='ignore': expected one of stop, skip"):
        train(config(tmp_path, "ignore"), tmp_path, quiet=True)
