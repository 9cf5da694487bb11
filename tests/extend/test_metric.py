"""A metric and a writer of the user's own are one file each, named in the config."""

import json
import struct
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ml_collections import ConfigDict

from eve_jax.errors import UserError
from eve_jax.train.metrics import FIELDS, KNOWN, load_metrics, read_metrics
from eve_jax.train.report import REPORT, write_report
from eve_jax.train.trainer import train
from eve_jax.train.writers.base import RunInfo
from eve_jax.train.writers.open import open_writers, split_writers
from eve_jax.train.writers.wandb_run import KEPT

METRIC = """
import optax
from eve_jax.train.metrics import Metric, StepView

def ratio(step: StepView):
    return optax.global_norm(step.updates) / optax.global_norm(step.trainable)

RATIO = Metric("update_ratio", ratio, panel="update norm over weight norm")
BROKEN = Metric("broken_one", lambda step: step.grads["no such weight"])
VECTOR = Metric("vector", lambda step: next(iter(step.grads.values())))
TAKEN = Metric("loss", ratio)
"""
WRITER = """
class Writer:
    def __init__(self, run):
        self.file = (run.folder / "own.txt").open("a")
        self.file.write(f"{run.name} {run.start} {run.steps}\\n")

    def write(self, line):
        self.file.write(f"{line['step']} {line['loss']:.3f}\\n")

    def flush(self):
        self.file.flush()

    def close(self):
        self.file.close()

class Half:
    def __init__(self, run):
        pass

    def write(self, line):
        pass
"""
Own = Callable[[str, str], Path]


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    """Forget the metrics that a test enters."""
    before = dict(KNOWN)
    yield
    KNOWN.clear()
    KNOWN.update(before)


def scalars(folder: Path) -> dict[str, set[int]]:
    """Steps of every scalar in a TensorBoard folder, by name."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, set[int]] = {}
    for file in folder.iterdir():
        data = file.read_bytes()
        while data:
            size = struct.unpack("<Q", data[:8])[0]
            event = Event.FromString(data[12 : 12 + size])
            for value in event.summary.value:
                found.setdefault(value.tag, set()).add(event.step)
            data = data[16 + size :]
    return found


def test_a_metric_and_a_writer(stage: ConfigDict, tmp_path: Path, own_module: Own) -> None:
    own_module("toy_metric", METRIC)
    own_module("toy_writer", WRITER)
    stage.train.metrics, stage.train.writers = "toy_metric:RATIO", "tensorboard,toy_writer:Writer"
    folder = train(stage, tmp_path, quiet=True)
    lines = read_metrics(folder)
    assert [list(line) for line in lines] == [[*FIELDS, "update_ratio"]] * 2
    assert all(0 < line["update_ratio"] < 1 for line in lines)
    charts = scalars(folder / "tensorboard")
    assert set(charts) == {"loss", "lr", "grad_norm", "seconds", "tokens_per_s", "update_ratio"}
    assert charts["update_ratio"] == {1, 2}
    own = [f"{line['step']} {line['loss']:.3f}" for line in lines]
    assert (folder / "own.txt").read_text().splitlines() == [f"{stage.name} 0 2", *own]
    titles = drawn(folder)
    assert titles[:5] == [
        "loss (nats a target)",
        "learning rate",
        "gradient norm",
        "tokens a second",
        "update norm over weight norm",
    ]


def drawn(folder: Path) -> list[str]:
    """Titles of the panels of a stage's report."""
    titles: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        from matplotlib.axes import Axes

        original = Axes.set_title

        def noted(self: Axes, label: str, *args: Any, **kwargs: Any) -> Any:
            titles.append(label)
            return original(self, label, *args, **kwargs)

        patch.setattr(Axes, "set_title", noted)
        assert write_report(folder) == folder / REPORT
    return titles


def test_a_metric_that_fails_is_named(stage: ConfigDict, tmp_path: Path, own_module: Own) -> None:
    own_module("toy_metric", METRIC)
    stage.train.metrics = "toy_metric:BROKEN"
    with pytest.raises(UserError, match=r"metrics: the metric broken_one failed: KeyError: 'no such weight' \(.*:9\)"):
        train(stage, tmp_path, quiet=True)
    stage.train.metrics = "toy_metric:VECTOR"
    with pytest.raises(UserError, match=r"the metric vector has the shape .*, not that of a scalar"):
        train(stage, tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("toy_metric", "has not the form module:NAME"),
        ("no_module:X", "there is no module no_module; put it into the current folder or on PYTHONPATH"),
        ("toy_metric:NONE", r"module toy_metric \(.*toy_metric\.py\) has no NONE"),
        ("toy_metric:ratio", r"is no eve_jax\.train\.metrics\.Metric with a value"),
        ("toy_metric:TAKEN", "there is a metric loss already"),
        ("toy_metric:RATIO,toy_metric:RATIO", "there is a metric update_ratio already"),
    ],
)
def test_metrics_that_are_refused(named: str, says: str, own_module: Own) -> None:
    own_module("toy_metric", METRIC)
    with pytest.raises(UserError, match=rf"config\.train\.metrics: .*{says}"):
        load_metrics(named)
    assert tuple(KNOWN) == FIELDS


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (
            "tensorbord",
            "unknown writer 'tensorbord'; known: tensorboard, progress, wandb, mlflow, module:Class, or none",
        ),
        ("progress,progress", "progress is listed twice"),
        ("toy_writer:Nothing", "has no Nothing"),
        ("sys:path", "sys:path is no class; expected the class of a writer"),
    ],
)
def test_writers_that_are_refused_before_anything_is_made(
    named: str, says: str, stage: ConfigDict, tmp_path: Path, own_module: Own
) -> None:
    own_module("toy_writer", WRITER)
    stage.train.writers = named
    with pytest.raises(UserError, match=rf"config\.train\.writers.*{says}"):
        train(stage, tmp_path, quiet=True)
    assert not (tmp_path / stage.name).exists()


def test_a_writer_without_a_method(tmp_path: Path, own_module: Own) -> None:
    own_module("toy_writer", WRITER)
    with pytest.raises(UserError, match="class toy_writer:Half has no flush, close; a writer has write, flush, close"):
        open_writers("toy_writer:Half", RunInfo(tmp_path, "x", 0, 1, {}))
    assert split_writers("none") == split_writers("") == []


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package one line; with it the charted metrics, and the same run when a stage is resumed."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        UserError, match=r"wandb requires the package wandb: pip install -c constraints.txt -e '\.\[wandb\]'"
    ):
        split_writers("wandb")
    logged: list[dict] = []

    class Run:
        def __init__(self, **settings: object) -> None:
            self.summary = {"step": max((int(one.get("step", 0)) for one in logged), default=0)}
            self.resumed = bool(logged)
            logged.append(settings)

        def define_metric(self, name: str, step_metric: str) -> None:
            assert (name, step_metric) == ("*", "step")

        def log(self, values: dict) -> None:
            logged.append(values)

        def finish(self) -> None:
            logged.append({})

    package = ModuleType("wandb")
    package.__spec__ = ModuleSpec("wandb", None)
    package.init = Run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    for steps in (1, 2):  # the second time step 1 is there
        _, writer = open_writers("wandb", RunInfo(tmp_path, "stage3", 0, 2, {"seed": 1}))
        for step in range(1, steps + 1):
            writer.write({"step": step, "loss": 2.0, "tokens": 5, "grad_norm": None, "own": 1.5})
        writer.close()
    own = json.loads((tmp_path / KEPT).read_text())["id"]
    settings = {"project": "eve_jax", "dir": str(tmp_path), "resume": "allow", "id": own, "name": "stage3"}
    began, values = settings | {"config": {"seed": 1}}, {"loss": 2.0, "own": 1.5}
    assert logged == [began, {"step": 1} | values, {}, began, {"step": 2} | values, {}]
