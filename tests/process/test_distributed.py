"""Several processes train as one does, stop together, end together, and resume in any number."""

import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.process.processes import Processes, lines, small_stage

STEPS = 60
TOLERANCE = 1e-6  # between numbers of processes, of losses of 2 to 7: a few units in the last place of float32


def same_losses(found: list[dict], wanted: list[dict]) -> None:
    assert [m["step"] for m in found] == [m["step"] for m in wanted]
    np.testing.assert_allclose([m["loss"] for m in found], [m["loss"] for m in wanted], rtol=TOLERANCE, atol=0)
    for name in ("tokens", "vision_tokens", "targets", "rows", "lr"):
        assert [m[name] for m in found] == [m[name] for m in wanted]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return small_stage(tmp_path_factory.mktemp("data"), STEPS)


@pytest.fixture(scope="module")
def alone(stage, tmp_path_factory):
    """Losses of one process, undisturbed."""
    workdir = tmp_path_factory.mktemp("alone") / "work"
    Processes(1, workdir, stage).finish()
    return lines(workdir)


@pytest.mark.slow
def test_stopped_together_and_finished_by_one(stage, alone, tmp_path):
    two = Processes(2, tmp_path / "work", stage)
    two.reach("stage1", 3)
    two.send(1, signal.SIGTERM)
    assert two.wait() == [130, 130], two.outputs()
    before = lines(tmp_path / "work")
    assert 3 <= len(before) < STEPS
    assert f"stopped after step {len(before)} of {STEPS}" in two.outputs()[0]
    same_losses(before, alone[: len(before)])
    assert {p.name for p in (tmp_path / "work" / "logs").iterdir()} == {"process-0.log", "process-1.log"}
    Processes(1, tmp_path / "work", stage).finish()
    same_losses(lines(tmp_path / "work"), alone)


@pytest.fixture(scope="module")
def two_alone(stage, tmp_path_factory):
    """Losses of two processes, undisturbed."""
    workdir = tmp_path_factory.mktemp("two") / "work"
    Processes(2, workdir, stage).finish()
    return lines(workdir)


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "others"), [(0, 2), (1, 1), (1, 4)])
def test_a_process_that_dies_ends_the_others_and_any_number_goes_on(stage, alone, two_alone, tmp_path, victim, others):
    workdir = tmp_path / "work"
    often = [*stage, "--config.train.save_every=10"]
    two = Processes(2, workdir, [*often, "--peer_timeout=20"])
    two.reach("stage1", 23)
    two.send(victim, signal.SIGKILL)
    killed = time.monotonic()
    status = two.wait()
    assert time.monotonic() - killed < 60
    assert status[victim] == -signal.SIGKILL
    assert status[1 - victim] == 1
    said = two.outputs()[1 - victim].splitlines()[-1]
    assert re.match(rf"error: process {victim} of 2(, the coordinator,)? has died .* start all processes again", said)
    assert "***" not in two.outputs()[1 - victim]
    same_losses(two_alone, alone)
    Processes(others, workdir, often).finish()
    if others == 2:
        assert lines(workdir) == two_alone
    same_losses(lines(workdir), alone)


@pytest.mark.slow
def test_ctrl_c_and_errors_end_all(stage, tmp_path):
    two = Processes(2, tmp_path / "work", stage)
    two.reach("stage1", 2)
    two.send(0, signal.SIGINT)
    assert two.wait() == [130, 130], two.outputs()
    for path in Path(next(a for a in stage if "data.images=" in a).partition("=")[2]).iterdir():
        path.rename(path.with_suffix(".gone"))
    try:
        two = Processes(2, tmp_path / "work", [*stage, "--config.data.max_bad=0"])
        assert two.wait() == [1, 1], two.outputs()
    finally:
        for path in Path(next(a for a in stage if "data.images=" in a).partition("=")[2]).iterdir():
            path.rename(path.with_suffix(".png"))
    assert all("max_bad=0" in out and "Traceback" not in out for out in two.outputs()), two.outputs()


@pytest.mark.slow
def test_other_settings_on_one_host_are_refused(stage, tmp_path):
    two = Processes(2, tmp_path / "work", [*stage, "--config.data.rows=3"])
    assert two.wait() == [1, 1]
    assert all("config.data.rows=3 is not a multiple of 2" in out for out in two.outputs()), two.outputs()


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_the_tiny_recipe(count, tmp_path):
    recipe = ["launch.recipe", "--config=demo:tiny"]
    Processes(1, tmp_path / "one", recipe).finish()
    Processes(count, tmp_path / "several", recipe).finish()
    for name in ("llm", "llm_chat", "stage1", "stage2_1", "stage2_2", "stage3"):
        same_losses(lines(tmp_path / "several", name), lines(tmp_path / "one", name))
    assert (tmp_path / "several" / "report.json").exists()


@pytest.mark.slow
def test_a_run_that_overlaps_another_is_refused_and_changes_nothing(stage, two_alone, tmp_path):
    """As a job that is queued again while the one before still runs."""
    workdir = tmp_path / "work"
    first = Processes(2, workdir, stage)
    first.reach("stage1", 2)
    second = Processes(2, workdir, stage, outputs="second")
    assert second.wait() == [1, 1], second.outputs()
    assert all("run.lock: in use by process" in out for out in second.outputs()), second.outputs()
    first.finish()
    assert lines(workdir) == two_alone
