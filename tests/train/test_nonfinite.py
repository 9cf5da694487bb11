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
from eve_jax import sharding
from eve_jax.checkpoint.stage_folder import steps_in
from eve_jax.data.rows.pipeline import open_stage_data
from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import abstract_params
from eve_jax.train.metrics import read_metrics
from eve_jax.train.nonfinite import NonFinite
from eve_jax.train.step import StepFunctions, Sums, TrainState
from eve_jax.train.trainer import train
from tests import reference as ref
from tests.train.placing import demo_data, placed


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
        sums = Sums({"w": jnp.asarray(grad)}, *map(jnp.float32, (loss, 2, 0, 0)))
        state, metrics = functions.update(state, sums)
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


@pytest.fixture
def work(tmp_path):
    demo_data(tmp_path / "data")
    return tmp_path


def assert_dumped(work: Path, blamed: bool) -> None:
    """The rows of step 2 and their records, of which there are some."""
    folder = work / "stage1"
    summary = json.loads((folder / "not_finite_step_2.json").read_text())
    assert (summary["step"], summary["rows_with_a_loss_that_is_not_finite"]) == (2, blamed)
    known = {json.loads(line)["id"] for line in (work / "data" / "captions.jsonl").read_text().splitlines()}
    ids = [record["id"] for row in summary["rows"] for record in row["records"]]
    assert ids
    assert set(ids) <= known
    with np.load(folder / "not_finite_step_2.npz") as rows:
        assert len(rows["0.patches"]) == len(rows["0.text_ids"]) == len(summary["rows"]) > 0


def test_what_is_dumped_and_what_is_counted(work, capsys):
    c = config(work, "stop")
    folder = work / "stage1"
    cfg = ModelConfig.from_dict(c.model.to_dict())
    data = open_stage_data(c, folder)
    mesh = sharding.make_mesh("fsdp:1", jax.devices()[:1])
    params = {n: jnp.full(s.shape, 0.01, s.dtype) for n, s in abstract_params(cfg).items()}
    stop = NonFinite("stop", folder, data, cfg, mesh)
    with pytest.raises(UserError, match=r"step 2: .*not_finite_step_2\.npz.*--config\.train\.nan=skip"):
        stop.handle([2, 3], params)
    assert_dumped(work, blamed=False)  # a gradient's fault: all rows
    with pytest.raises(UserError, match="step 2"):
        stop.handle([2], params | {"embed": params["embed"] * np.inf})
    assert_dumped(work, blamed=True)
    skip = NonFinite("skip", folder, data, cfg, mesh)
    skip.handle([2, 3], params)
    skip.handle([7], params)
    assert "skipped step 7: loss or gradient not finite (3 skipped so far)" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"config\.train\.nan='ignore': expected one of stop, skip"):
        train(config(work, "ignore"), work)


@pytest.mark.slow
def test_stop_and_skip(work, capsys):
    with pytest.raises(UserError, match=r"step 2: .*not_finite_step_2\.npz.*--config\.train\.nan=skip"):
        train(config(work, "stop"), work, quiet=True)
    folder = work / "stage1"
    assert steps_in(folder) == []
    assert_dumped(work, blamed=True)
    train(config(work, "skip"), work, quiet=True)
    assert "skipped step 2: loss or gradient not finite (1 skipped so far)" in capsys.readouterr().out
    lines = read_metrics(folder)
    assert [m["step"] for m in lines] == [1, 2, 3, 4]
    assert [m["loss"] is None or m["grad_norm"] is None for m in lines] == [False, True, True, True]
    assert steps_in(folder) == [2, 4]
