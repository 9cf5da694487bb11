"""Records that break while training: a loss over no target is no loss, and a run without targets is no success."""

import io
import json
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import demo
from eve_jax.checkpoint.stage_folder import steps_in
from eve_jax.data.rows.pipeline import StageData, open_stage_data
from eve_jax.errors import UserError
from eve_jax.infer import score
from eve_jax.model.loss import samples_with_targets
from eve_jax.process import host_memory, interrupt
from eve_jax.train.masked import Masked, describe_broken
from eve_jax.train.metrics import read_metrics
from eve_jax.train.report import write_report
from eve_jax.train.step import StepFunctions, Sums, TrainState
from eve_jax.train.trainer import train
from tests import reference as ref
from tests.train.placing import demo_data, placed

pytestmark = pytest.mark.long


@pytest.fixture
def work(tmp_path: Path) -> Path:
    demo_data(tmp_path / "data")
    return tmp_path


def config(work: Path, steps: int = 4, **train_fields: int) -> ConfigDict:
    c = placed(demo.get_config("tiny").stages.stage1, work, "")
    c.train.steps = steps
    c.data.rows, c.data.micro_batches, c.data.max_shapes = 2, 1, 1
    c.optim.warmup = 0.0
    for name, value in train_fields.items():
        c.train[name] = value
    return c


def break_steps(work: Path, c: ConfigDict, steps: set[int]) -> list[int]:
    """Cut in half every image that the samples of `steps` (from 1) need; return the number of samples of each step."""
    data = open_stage_data(c, work / c.name)
    samples = [[e for m in data.plan.step(k) for row in m.rows for e in row] for k in range(data.plan.steps)]
    files = [{image for e in step for image in images_of(data, e)} for step in samples]
    broken = set().union(*(files[k - 1] for k in steps))
    assert all(steps & {k} or not files[k - 1] & broken for k in range(1, len(files) + 1)), "images are not shared"
    for file in broken:
        Path(file).write_bytes(Path(file).read_bytes()[: Path(file).stat().st_size // 2])
    return [len(step) for step in samples]


def images_of(data: StageData, entry: int) -> list[str]:
    return [str(file) for file in data.builder.records[int(data.lengths.record[entry])].images]


def test_nothing_is_left_to_learn(work, capsys):
    c = config(work, save_every=2, keep=9, keep_best=1)
    counts = break_steps(work, c, {1, 2, 3, 4})
    total = sum(counts)
    ends = rf"{total} of {total} samples broke while training: see .*bad_records\.jsonl; no target was left"
    with pytest.raises(UserError, match=ends):
        train(c, work, quiet=True)
    said = capsys.readouterr().out
    assert f"\nstep 1: {counts[0]} of {counts[0]} samples broke, 0 targets\n" in said
    assert "\n\n" not in said, "no empty lines"
    assert "samples broke while training" not in said, "the error says it"
    assert "not finite" not in said
    folder = work / "stage1"
    lines = read_metrics(folder)
    assert [(m["loss"], m["grad_norm"], m["targets"]) for m in lines] == [(None, None, 0)] * 4
    assert [m["broken"] for m in lines] == [m["samples"] for m in lines] == counts
    assert steps_in(folder) == [2, 4], "what was saved stays"
    assert not [p for p in folder.rglob("metrics") if "loss" in p.read_text()], "no checkpoint has a loss of 0"
    assert write_report(folder) is not None
    with pytest.raises(UserError, match=ends):
        train(c, work, quiet=True)  # a rerun does not make it a success


@pytest.mark.parametrize("broken", [pytest.param({2}, marks=pytest.mark.slow), {1, 3}, {1, 2, 3}])
def test_some_steps_without_a_target(work, capsys, broken):
    c = config(work)
    counts = break_steps(work, c, broken)
    n = sum(counts[k - 1] for k in broken)
    failed = 2 * n > sum(counts)
    if failed:
        with pytest.raises(UserError, match=rf"{n} of {sum(counts)} samples broke while training.*another --workdir"):
            train(c, work, quiet=True)
    else:
        train(c, work, quiet=True)
    said = capsys.readouterr().out
    lines = read_metrics(work / "stage1")
    for step, line in enumerate(lines, 1):
        assert (line["loss"] is None, line["targets"] == 0) == (step in broken, step in broken)
        assert (f"step {step}: {counts[step - 1]} of {counts[step - 1]} samples broke, 0 targets" in said) == (
            step in broken
        )
    summary = f"{n} of {sum(counts)} samples broke while training: see {work / 'stage1' / 'bad_records.jsonl'}\n"
    assert said.count(summary) == (not failed), "once, in the error where there is one"


@pytest.mark.parametrize("log_every", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_a_line_for_each_logged_block(work, capsys, log_every):
    c = config(work, steps=5, log_every=log_every)
    counts = break_steps(work, c, {2})
    train(c, work, quiet=True)
    targets = [m["targets"] for m in read_metrics(work / "stage1")]
    end = min(log_every, 5)
    expected = (
        f"steps 1 to {end}: {counts[1]} of {sum(counts[:end])} samples broke, {sum(targets[:end]):,} targets, "
        f"1 of {end} steps without a target\n"
    )
    said = capsys.readouterr().out
    assert expected in said
    assert said.count("samples broke,") == 1
    assert "2 skipped" not in said


def test_a_resumed_run_counts_on(work, capsys, monkeypatch):
    c = config(work, save_every=1)
    counts = break_steps(work, c, {1, 2, 3, 4})
    monkeypatch.setattr("eve_jax.train.trainer.StopRequest", lambda: _Stop())
    with pytest.raises(interrupt.Interrupted, match="after step 1 of 4"):
        train(c, work, quiet=True)
    assert f"{counts[0]} of {counts[0]} samples broke while training" in capsys.readouterr().out
    monkeypatch.undo()
    with pytest.raises(UserError, match=rf"{sum(counts)} of {sum(counts)} samples broke while training"):
        train(c, work, quiet=True)
    assert [m["broken"] for m in read_metrics(work / "stage1")] == counts
    listed = [json.loads(line) for line in (work / "stage1" / "bad_records.jsonl").read_text().splitlines()]
    assert sum(entry["found"] == "training" for entry in listed) == len(listed)


@pytest.mark.slow
def test_another_thread_without_a_console_trains(work, monkeypatch):
    c = config(work, steps=2)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    thread = threading.Thread(target=train, args=(c, str(work)), kwargs={"quiet": True})
    thread.start()
    thread.join()
    assert [m["step"] for m in read_metrics(work / "stage1")] == [1, 2]


class _Stop:
    """A stop that is asked for from the start."""

    wanted = True

    def __enter__(self) -> "_Stop":
        return self

    def __exit__(self, *exc: object) -> None:
        pass


def test_the_step_without_a_target_changes_nothing():
    """Adam's momentum alone would move the weights."""
    lr = optax.linear_schedule(1.0, 0.0, 10)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(lr, weight_decay=0.1))
    functions = StepFunctions(ref.config(), tx, lr)
    weights = {"w": jnp.arange(6.0).reshape(2, 3)}
    state = TrainState(jnp.int32(0), weights, tx.init(weights))
    for targets, rate in ((2, 1.0), (0, 0.9), (0, 0.9), (2, 0.9), (2, 0.8)):
        before = jax.device_get(state)
        grads = {"w": jnp.full((2, 3), 0.5 if targets else 0.0)}
        state, metrics = functions.update(state, Sums(grads, *map(jnp.float32, (3.0 * targets, targets, 0, 0))))
        pairs = zip(jax.tree.leaves(before[1:]), jax.tree.leaves(state[1:]), strict=True)
        same = [np.array_equal(a, b) for a, b in pairs]
        assert not any(same) if targets else all(same)
        assert np.isnan(metrics["loss"]) == np.isnan(metrics["grad_norm"]) == (targets == 0)
        assert float(metrics["lr"]) == pytest.approx(rate)
        assert int(state.step) == int(before.step) + 1


def test_one_micro_batch_of_several(monkeypatch):
    """A masked micro-batch next to a sound one: loss, gradient and update of the sound one alone.

    Each of the three programs says once, before it runs, what it needs of the memory.
    """
    needs: list[int] = []
    monkeypatch.setattr(host_memory, "settle", needs.append)
    cfg = ref.config()
    sound = ref.alone()
    masked = {**sound, "loss_weight": np.zeros_like(sound["loss_weight"]), "patches": np.zeros_like(sound["patches"])}
    results = []
    lr = optax.constant_schedule(1e-3)
    functions = StepFunctions(cfg, optax.adam(lr), lr)
    for batches in ([sound], [sound, masked], [masked, sound], [masked], [masked, masked]):
        params = ref.params(cfg)
        state = TrainState(jnp.int32(0), params, optax.adam(lr).init(params))
        state, metrics = functions(state, {}, batches)
        results.append((jax.device_get(metrics), jax.device_get(state.trainable)))
    stored = sum(value.nbytes for value in jax.tree.leaves((results[0][1], ref.params(cfg))))
    assert len(needs) == 3
    assert min(needs) > stored  # weights and their gradients, or moments
    samples = sum(len(np.unique(row[row > 0])) for row in np.asarray(sound["segment"]))
    alone, after = results[0]
    assert alone["samples_with_targets"] == samples
    for metrics, _ in results[1:3]:
        np.testing.assert_allclose(metrics["loss"], alone["loss"], rtol=1e-6)
        np.testing.assert_allclose(metrics["grad_norm"], alone["grad_norm"], rtol=1e-5)
        assert metrics["samples_with_targets"] == samples
    start = jax.device_get(ref.params(cfg))
    for metrics, trained in results[3:]:
        assert np.isnan(metrics["loss"])
        assert metrics["samples_with_targets"] == metrics["targets"] == 0
        assert all(np.array_equal(trained[name], start[name]) for name in start)
    assert not all(np.array_equal(after[name], start[name]) for name in start)


@pytest.mark.parametrize(
    ("weights", "samples"),
    [([1, 1, 1, 1, 1], 3), ([0, 0, 1, 1, 1], 2), ([0, 0, 0, 0, 0], 0), ([1, 1, 0, 1, 0], 2), ([0, 0, 1, 0, 0], 1)],
)
def test_samples_with_targets(weights, samples):
    """Two targets of sample 1, one of 2, one of 3, the last entry unused or also of 3; a second row of pads."""
    batch = {
        "segment": jnp.array([[1, 1, 2, 2, 3, 3, 0], [0] * 7]),
        "loss_idx": jnp.array([[0, 1, 3, 4, 5], [0] * 5]),
        "loss_weight": jnp.array([weights, [0] * 5], jnp.float32),
    }
    assert float(samples_with_targets(batch)) == samples


def test_cut_texts_without_an_answer_are_left_out_before(work):
    """config.data.long=truncate_text may cut every answer: nothing is left to train on, which planning says."""
    c = config(work)
    c.data.long, c.data.max_tokens = "truncate_text", 3
    with pytest.raises(UserError, match=r"no .*record|none|nothing"):
        train(c, work, quiet=True)
    listed = [json.loads(line) for line in (work / "stage1" / "bad_records.jsonl").read_text().splitlines()]
    assert {entry["found"] for entry in listed} == {"planning"}
    assert all("nothing to learn within them" in entry["reason"] for entry in listed)
    assert not read_metrics(work / "stage1")


def test_a_record_without_a_target_has_no_score(work):
    data = open_stage_data(config(work), work / "stage1")
    n = len(data.lengths)
    targets = np.full(n, 2)
    targets[3] = 0
    bad = score._Unscored([])
    scores = score._in_order(data.builder.records, data.lengths, np.where(targets, 1.5, 0.0), targets, bad, "")
    assert [one.reason for one in scores.bad] == ["it has no target, so it has no loss"]
    assert len(scores.lines) == n - 1
    assert scores.loss == 0.75


def test_lines_for_people(tmp_path):
    steps = [{"step": k, "samples": 8, "broken": 3 * (k == 12), "targets": 1000} for k in (11, 12)]
    assert describe_broken(steps[1:]) == "step 12: 3 of 8 samples broke, 1,000 targets"
    assert describe_broken(steps) == "steps 11 to 12: 3 of 16 samples broke, 2,000 targets"
    assert describe_broken(steps[:1]) == ""
    assert describe_broken([{"step": 1, "targets": 0}]) == ""
    Masked(10, 5, 7).check(tmp_path)
    Masked(0, 0, 0).check(tmp_path)  # lines of before samples were counted
    with pytest.raises(UserError, match=r"6 of 10 samples broke while training: see .*\. Fix the records"):
        Masked(10, 6, 7).check(tmp_path)
    with pytest.raises(UserError, match="no target was left"):
        Masked(10, 0, 0).check(tmp_path)
    assert Masked.of([{"samples": 4, "broken": None, "targets": 2}, {"targets": 1}]) == (4, 0, 2)
