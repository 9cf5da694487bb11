"""Held-out records while a stage trains: their loss, its lines, and that nothing of the training changes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import demo
from eve_jax.checkpoint.stage_folder import read_meta, steps_in
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records
from eve_jax.data.text.load import load_tokenizer
from eve_jax.errors import UserError
from eve_jax.infer.score import ScoreSettings, score_records
from eve_jax.process import interrupt
from eve_jax.process.interrupt import Interrupted
from eve_jax.train import validation
from eve_jax.train.goodput import read_goodput
from eve_jax.train.metrics import TIMED, read_evaluations, read_lines, read_metrics
from eve_jax.train.report import write_report
from eve_jax.train.trainer import train
from eve_jax.weights.open import load_params
from tests.train.placing import placed, with_demo_data

STEPS = 6
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with the demo's data, and captions and questions of the test split to hold out."""
    folder = tmp_path_factory.mktemp("evaluation")
    lines = with_demo_data(folder)
    (folder / "train.jsonl").write_text("\n".join(lines["captions"][:60]))
    (folder / "captions.jsonl").write_text("\n".join(lines["captions"][60:80]))
    (folder / "questions.jsonl").write_text("\n".join(lines["heldout"][:12]))
    return folder


def config(work: Path, name: str, **evaluation: Any) -> ConfigDict:
    c = placed(demo.get_config("tiny").stages.stage1, work, "")
    c.name = name
    c.data.records = str(work / "train.jsonl")
    c.data.rows, c.data.micro_batches, c.data.max_shapes = 2, 1, 1
    c.train.steps, c.train.save_every, c.train.keep, c.train.writers = STEPS, 2, 1, "none"
    c.optim.lr = 0.02
    c.eval.update(evaluation)
    return c


def held_out(work: Path) -> str:
    return f"{work / 'captions.jsonl'},{work / 'questions.jsonl'}"


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The lines of the steps without what follows the clock."""
    return [{k: v for k, v in line.items() if k not in TIMED} for line in read_metrics(folder)]


@pytest.fixture(scope="module")
def plain(work: Path) -> Path:
    """A run without evaluation."""
    return train(config(work, "plain"), work, quiet=True)


@pytest.fixture(scope="module")
def evaluated(work: Path) -> Path:
    """The same run with one every second step and before the first."""
    c = config(work, "evaluated", records=held_out(work), every=2, at_start=True)
    c.train.writers, c.train.keep_best, c.train.best_by = "tensorboard", 1, "eval/loss/questions"
    return train(c, work, quiet=True)


def test_the_training_is_bit_identical(plain, evaluated):
    assert numbers(plain) == numbers(evaluated)
    _, before = load_params(plain)
    _, after = load_params(evaluated)
    assert all(np.array_equal(np.asarray(before[name]), np.asarray(after[name])) for name in before)


def test_lines(evaluated):
    lines = read_lines(evaluated / "metrics.jsonl")
    assert [line["step"] for line in lines] == [0, 1, 2, 2, 3, 4, 4, 5, 6, 6]
    found = read_evaluations(evaluated)
    assert [line["step"] for line in found] == [0, 2, 4, 6]
    assert all(set(line) == {"step", "eval/loss", "eval/loss/captions", "eval/loss/questions"} for line in found)
    assert found[-1]["eval/loss"] < found[0]["eval/loss"]


def test_the_loss_is_that_of_scoring_the_records(work, evaluated):
    """By another way, in float32 and other rows: a record at a time."""
    cfg, params = load_params(evaluated)
    c = config(work, "evaluated")
    rule = SampleRule(load_tokenizer(work / "data" / "tokenizer"), ImageRule.of(c.data), c.data.template)
    sums = {}
    for name in ("captions", "questions"):
        records = open_records(str(work / f"{name}.jsonl"), work / "data" / "images")
        lines = score_records(cfg, params, records, ScoreSettings(rule, rows=1), quiet=True).lines
        assert len(lines) == len(records)
        sums[name] = (sum(line.nll_sum for line in lines), sum(line.n_target for line in lines))
    last = read_evaluations(evaluated)[-1]
    for name, (nll, targets) in sums.items():
        assert last[f"eval/loss/{name}"] == pytest.approx(nll / targets, rel=1e-5)
    nll, targets = (sum(part) for part in zip(*sums.values(), strict=True))
    assert last["eval/loss"] == pytest.approx(nll / targets, rel=1e-5)


def test_where_it_is_seen(evaluated):
    (events,) = (evaluated / "tensorboard").glob("events*")
    assert b"eval/loss/captions" in events.read_bytes()
    assert read_goodput(evaluated)[-1]["seconds"]["eval"] > 0
    report = write_report(evaluated)
    assert report is not None and report.stat().st_size > 10_000


def test_the_best_is_kept_and_said(evaluated):
    found = {line["step"]: line["eval/loss/questions"] for line in read_evaluations(evaluated)}
    best = min((2, 4, 6), key=lambda step: found[step])
    assert steps_in(evaluated) == sorted({best, STEPS})
    values = read_meta(evaluated, STEPS)["evaluation"]["values"]
    assert values["eval/loss/questions"] == found[STEPS]


@pytest.fixture
def signals(monkeypatch):
    """Signals as before, and none remembered."""
    monkeypatch.setattr(interrupt, "_asked", False)
    old = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    yield
    for number, handler in old.items():
        signal.signal(number, handler)


def test_stopped_in_the_midst_of_evaluations_and_resumed(work, evaluated, monkeypatch, signals):
    """After step 4 and after the last one: both are done again, and all lines are those of an undisturbed run."""
    given = {"records": held_out(work), "every": 2, "at_start": True}
    folder = work / "stopped"
    measure = validation.Validation.measure
    for at, lines in ((4, [0, 1, 2, 2, 3, 4]), (6, [0, 1, 2, 2, 3, 4, 4, 5, 6])):
        calls: list[int] = []

        def stop(self, params, stopped, at=at, calls=calls):
            def asked() -> bool:
                calls.append(at)
                if len(read_metrics(folder)) == at and len(calls) > 1:
                    signal.raise_signal(signal.SIGTERM)
                return stopped()

            return measure(self, params, asked)

        with monkeypatch.context() as patch:
            patch.setattr(validation.Validation, "measure", stop)
            with pytest.raises(Interrupted, match=f"stopped after step {at} of 6"):
                train(config(work, "stopped", **given), work, quiet=True)
        monkeypatch.setattr(interrupt, "_asked", False)
        assert [line["step"] for line in read_lines(folder / "metrics.jsonl")] == lines
        assert steps_in(folder)[-1] == at
    train(config(work, "stopped", **given), work, quiet=True)
    assert read_evaluations(folder) == read_evaluations(evaluated)
    assert numbers(folder) == numbers(evaluated)
    size = (folder / "metrics.jsonl").stat().st_size
    train(config(work, "stopped", **given), work, quiet=True)
    assert (folder / "metrics.jsonl").stat().st_size == size, "it is done"


def test_records_that_are_trained_on_and_ones_that_changed(work, capsys, plain):
    """Evaluation may be added to a finished stage, and its records may change; both are said."""
    c = config(work, "plain", records=f"{work / 'train.jsonl'},{work / 'captions.jsonl'}")
    train(c, work, quiet=True)
    (line,) = read_evaluations(plain)
    assert line["step"] == STEPS
    said = capsys.readouterr()
    assert "60 of 80 held-out records are trained on, too" in said.err
    assert "train.jsonl:1, is " in said.err


def refused(work: Path, **changes: Any) -> str:
    """The one line about a config, of a stage whose folder is not made."""
    c = config(work, "refused")
    for path, value in changes.items():
        section, _, field = path.partition("_")
        c[section][field] = value
    with pytest.raises(UserError) as error:
        train(c, work, quiet=True)
    assert not (work / "refused").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(work):
    bad = work / "bad.jsonl"
    bad.write_text(json.dumps({"id": "1", "image": "none.png", "conversations": [{"from": "gpt", "value": "x"}]}))
    good = str(work / "captions.jsonl")
    assert "config.eval.every=5, but there is nothing to evaluate" in refused(work, eval_every=5)
    assert "config.eval.at_start=True, but there is nothing" in refused(work, eval_at_start=True)
    line = refused(work, eval_records=f"{good},{bad}")
    assert line.startswith(f"{bad}: no record can be used; {bad}:1: ") and line.endswith("from config.eval.records")
    assert "nowhere.jsonl: no such records file; set config.eval.records" in refused(work, eval_records="nowhere.jsonl")
    assert f"config.eval.records='{good},{good}' names a source twice" in refused(work, eval_records=f"{good},{good}")
    assert "nowhere: no such folder; set config.eval.images" in refused(work, eval_records=good, eval_images="nowhere")
    assert "config.train.best_by='best': expected loss, eval/loss" in refused(work, train_best_by="best")
    assert "config.train.best_by=eval/loss keeps no checkpoint" in refused(work, train_best_by="eval/loss")
    by = {"eval_records": good, "train_keep_best": 1, "train_best_by": "eval/mme.eve"}
    line = refused(work, **by, eval_every=3)
    assert line.endswith("make config.train.save_every=2 a multiple of config.eval.every=3")
    assert "config.train.best_by=eval/mme.eve is not measured; it is one of eval/loss, eval/loss/captions" in refused(
        work, **by, eval_every=2
    )
    assert "config.eval.tasks is set: train by eve_jax.recipe.train_stage" in refused(work, eval_tasks=good)


ON_A_MESH = """
import sys
from pathlib import Path
from tests.train.test_evaluation import config, held_out, train
work = Path(sys.argv[1])
for name, given in (("mesh_plain", {}), ("mesh_evaluated", {"records": held_out(work), "every": 3, "at_start": True})):
    c = config(work, name, **given)
    c.mesh = "data:2,tensor:2"
    train(c, work, quiet=True)
"""


@pytest.mark.slow
def test_bit_identical_on_a_mesh(work, evaluated):
    flags = {"JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ON_A_MESH, str(work)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | flags, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert numbers(work / "mesh_plain") == numbers(work / "mesh_evaluated")
    found, alone = read_evaluations(work / "mesh_evaluated"), read_evaluations(evaluated)
    assert [line["step"] for line in found] == [0, 3, 6]
    for line, other in ((found[0], alone[0]), (found[-1], alone[-1])):
        assert line == pytest.approx(other, rel=1e-4)


def test_names_of_sources():
    assert validation.short_names(["a/val.jsonl"]) == ["val"]
    assert validation.short_names(["a/x/val.jsonl", "/b/x/val.jsonl", "a/x/other.parquet"]) == [
        "a/x/val",
        "b/x/val",
        "a/x/other",
    ]
    assert validation.short_names(["tfds:coco:test", "my:Class"]) == ["tfds:coco:test", "my:Class"]
