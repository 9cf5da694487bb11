"""Two runs in one work folder: one trains as if alone, the other is refused and changes nothing."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import demo
from eve_jax.checkpoint.stage_folder import steps_in
from eve_jax.errors import InUse
from eve_jax.process import lock
from eve_jax.process.lock import LOCK, locked
from eve_jax.recipe import run_recipe
from eve_jax.train.metrics import read_metrics
from eve_jax.train.report import reported
from eve_jax.train.trainer import train
from eve_jax.weights.import_export import make_whole
from tests.train.placing import demo_data, placed


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one_writer")
    demo_data(folder / "data")
    return folder


def config(work: Path, name: str) -> ConfigDict:
    c = placed(demo.get_config("tiny").stages.stage1, work, "")
    c.name = name
    c.train.steps, c.train.save_every = 3, 1
    c.data.rows, c.data.micro_batches, c.data.max_shapes = 2, 1, 1
    return c


def contents(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and modification time of every file."""
    found = {p: p.stat() for p in folder.rglob("*") if p.is_file()}
    return {p: (s.st_size, s.st_mtime_ns) for p, s in found.items()}


def while_training(work: Path, c: ConfigDict, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Train `c` and call `act` in another thread while its second step is at hand."""
    from eve_jax.train.metrics_log import MetricsLog

    add = MetricsLog.add
    done = threading.Event()

    def acting() -> None:
        act()
        done.set()

    def pausing(self: MetricsLog, step: int, values: dict, counts: dict) -> None:
        add(self, step, values, counts)
        if step == 2:
            thread = threading.Thread(target=acting)
            thread.start()
            thread.join()

    monkeypatch.setattr(MetricsLog, "add", pausing)
    train(c, work, quiet=True)
    assert done.is_set(), "the other thread came to its end"


def test_the_second_is_refused_and_the_first_unharmed(work, monkeypatch):
    c = config(work, "first")

    def second() -> None:
        before = contents(work / "first")
        said = rf"first/run\.lock: in use by process {os.getpid()} on"
        with pytest.raises(InUse, match=said), reported(work / "first"):
            train(config(work, "first"), work, quiet=True)
        after = contents(work / "first")
        assert {p for p in before if "checkpoints" not in p.parts and "tensorboard" not in p.parts} <= set(after)
        assert not (work / "first" / "report.png").exists()

    while_training(work, c, monkeypatch, second)
    alone = read_metrics(work / "first")
    assert [m["step"] for m in alone] == [1, 2, 3]
    assert steps_in(work / "first")[-1] == 3
    assert not (work / "first" / LOCK).exists()
    train(config(work, "first"), work, quiet=True)  # done, and free


def test_another_stage_in_the_same_work_folder_is_not_refused(work):
    with locked(work / "other", "training"):
        train(config(work, "free"), work, quiet=True)
    assert steps_in(work / "free")[-1] == 3


def test_a_run_whose_folder_was_taken_over_ends(work, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    c = config(work, "taken")
    c.train.steps = 2000

    def take() -> None:
        for file in (work / "taken" / LOCK).iterdir():
            file.unlink()

    with pytest.raises(InUse, match=r"taken/run\.lock was removed: training ends here"):
        while_training(work, c, monkeypatch, take)


def test_two_recipes(work):
    recipe = demo.get_config("tiny")
    with locked(work, "the recipe"), pytest.raises(InUse, match=r"run\.lock: in use"):
        run_recipe(recipe, work)


def test_an_error_leaves_no_lock(work):
    c = config(work, "broken")
    c.data.records = str(work / "nowhere.jsonl")
    with pytest.raises(Exception, match="nowhere"):
        train(c, work, quiet=True)
    assert not list((work / "broken").glob(f"*{LOCK}*"))


def test_two_copies_to_one_folder(work):
    folder = train(config(work, "copied"), work, quiet=True)
    with locked(work, "making whole", ".whole.lock"), pytest.raises(InUse, match=r"\.whole\.lock: in use"):
        make_whole(folder, work / "whole", quiet=True)
    make_whole(folder, work / "whole", quiet=True)
    assert (work / "whole" / "config.json").is_file()
