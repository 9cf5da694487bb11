"""A run without progress ends with one line and the stacks of all its processes; one that makes progress does not."""

import os
import threading
import time
from collections.abc import Callable, Mapping

import pytest

from eve_jax.process import watchdog
from eve_jax.process.beats import beat
from eve_jax.process.watchdog import Watchdog
from tests.process.processes import Processes, small_stage
from tests.process.test_peers import three

__all__ = ["three"]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
LIMIT = 0.4


class Result:
    """A value that the device may still compute."""

    ready = False

    def is_ready(self) -> bool:
        return self.ready


@pytest.fixture
def ended(monkeypatch):
    """The status of each call of os._exit, which ends its thread here."""
    found: list[int] = []

    def leave(status: int) -> None:
        found.append(status)
        raise SystemExit

    monkeypatch.setattr(os, "_exit", leave)
    return found


def wait_for(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_without_progress_one_process_ends(tmp_path, ended, capsys):
    step = Result()
    with Watchdog(LIMIT, tmp_path, "stage1", None) as dog:
        dog.dispatched(3, Result())
        step = dog._steps[0][1]
        for _ in range(20):
            beat()
            time.sleep(LIMIT / 10)
        assert not ended
        step.ready = True
        dog.dispatched(4, Result())
        wait_for(lambda: ended)
    said = capsys.readouterr().err
    assert ended == [1]
    assert said.startswith("error: no progress for 0 s (config.train.timeout=0.4) since step 3 of stage1: process 0 at")
    assert "resume from the last checkpoint" in said and len(said.splitlines()) == 1
    text = (tmp_path / "logs" / "stacks-process-0.txt").read_text()
    assert "thread MainThread" in text and "wait_for" in text and "thread watchdog" in text


def test_the_compiler_may_take_longer(tmp_path, ended):
    def backend_compile_and_load(seconds: float) -> None:
        time.sleep(seconds)

    with Watchdog(LIMIT, tmp_path, "stage1", None):
        backend_compile_and_load(2 * LIMIT)
        assert not ended
        backend_compile_and_load((watchdog.COMPILING + 2) * LIMIT)
        assert ended == [1], "but not for ever"


def test_a_finished_run_and_no_limit(tmp_path, ended):
    with Watchdog(LIMIT, tmp_path, "stage1", None):
        pass
    with Watchdog(0, tmp_path, "stage1", None) as dog:
        dog.dispatched(1, Result())
        time.sleep(2 * LIMIT)
    assert not ended and not dog._steps


def test_progress_of_another_process_counts(three, tmp_path, ended):
    with Watchdog(LIMIT, tmp_path, "stage1", three[0]):
        for number in range(20):
            three[2].put("alive/stage1/last", str(number))
            time.sleep(LIMIT / 10)
        assert not ended


def test_all_leave_their_stacks(three, tmp_path, ended, monkeypatch, capsys):
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    alone = [Watchdog(LIMIT if peers.index == 1 else 1000, tmp_path, "stage1", peers) for peers in three]
    with alone[0], alone[1], alone[2]:
        wait_for(lambda: len(ended) >= 3)
    said = capsys.readouterr().err
    assert "in stage1: processes 0, 1, 2 at " in said
    assert said.count("error: process 1 of 3 failed: no progress") == 2
    assert {p.name for p in (tmp_path / "logs").iterdir()} == {f"stacks-process-{i}.txt" for i in range(3)}


class Stuck:
    """A writer of metrics that never comes back from step 5."""

    def __init__(self, run: object) -> None:
        pass

    def write(self, line: Mapping[str, int]) -> None:
        while line["step"] == 5:
            time.sleep(1)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.slow
def test_a_hung_process_ends_the_run(tmp_path):
    stage = small_stage(tmp_path, 60)
    stuck = ["--config.train.writers=tests.process.test_watchdog:Stuck", "--config.train.timeout=20"]
    two = Processes(2, tmp_path / "work", [*stage, *stuck])
    assert two.wait() == [1, 1], two.outputs()
    last = [text.splitlines()[-1] for text in two.outputs()]
    assert all("no progress for 2" in line and "(config.train.timeout=20) since step" in line for line in last), last
    stacks = [(tmp_path / "work" / "logs" / f"stacks-process-{i}.txt").read_text() for i in range(2)]
    assert "test_watchdog.py" in stacks[0] and "trainer.py" in stacks[1]
