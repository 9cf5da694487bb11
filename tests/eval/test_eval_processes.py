"""The answers, verdicts and losses of a command do not depend on devices, processes and batch size."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eve_jax.train.metrics import read_evaluations
from tests.eval.data_files import write_hub
from tests.eval.test_run import lines
from tests.launcher import ROOT
from tests.process.processes import Processes, free_port, small_stage

TASKS = ("mme.eve", "mme.lmms", "mmmu.eve", "mmmu.lmms")


def command(count: int, devices: int, flags: dict[str, Any]) -> None:
    """Run launch.eval with short answers in `count` processes of `devices` virtual devices each."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    port = free_port()
    running = []
    for number in range(count):
        of_all = {"coordinator": f"localhost:{port}", "num_processes": count, "process_id": number} if count > 1 else {}
        arguments = [f"--{name}={value}" for name, value in (flags | of_all).items()]
        process = [sys.executable, "-m", "tests.eval.short_answers", *arguments]
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(process, cwd=ROOT, env=env, stdout=pipe, stderr=subprocess.STDOUT, text=True))
    said = [process.communicate(timeout=600)[0] for process in running]
    assert [process.returncode for process in running] == [0] * count, said


@pytest.mark.slow
def test_devices_processes_and_batches(hf: Path, tmp_path: Path) -> None:
    for name in ("mme", "mmmu"):
        write_hub(tmp_path, name)
    (text := tmp_path / "text.txt").write_text("A first passage.\n\nA second one, which is longer.\n\nA third.\n")
    tasks = f"mme,mmmu,{text}"
    flags: dict[str, Any] = {"checkpoint": hf, "tasks": tasks, "protocol": "both", "data": tmp_path, "limit": 10}
    flags |= {"fit": "shrink", "max_size": 32}
    command(1, 1, flags | {"out": tmp_path / "one"})
    command(1, 8, flags | {"out": tmp_path / "eight", "mesh": "data:4,tensor:2", "rows": 4})
    command(2, 1, flags | {"out": tmp_path / "two", "mesh": "data:2", "rows": 6})
    for task in TASKS:
        expected = lines(tmp_path / "one", task)
        assert len(expected) == 10
        assert lines(tmp_path / "eight", task) == expected
        assert lines(tmp_path / "two", task) == expected
    losses = {out: loss(tmp_path / out) for out in ("one", "eight", "two")}
    assert losses["one"]["passages"] == 3
    assert losses["eight"] == pytest.approx(losses["one"], rel=1e-5)
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-5)
    command(2, 1, flags | {"out": tmp_path / "one", "mesh": "data:2", "limit": 12})  # resumes what one process began
    assert len(lines(tmp_path / "one", TASKS[0])) == 12
    assert loss(tmp_path / "one") == losses["one"]


def loss(out: Path) -> dict[str, float]:
    """The numbers of the text in a folder of answers."""
    return json.loads((out / "answers" / "text_loss.text.json").read_text())


@pytest.mark.slow
def test_tasks_while_two_processes_train(tmp_path: Path) -> None:
    """They measure what one process does, questions with and without images and a text."""
    stage = small_stage(tmp_path, 4)
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()[:5]]
    answers = [{"id": n, "answer": "N", "metric": "contains"} for n in range(len(records))]
    own = [record | answer for record, answer in zip(records, answers, strict=True)]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(record) + "\n" for record in own))
    (tmp_path / "text.txt").write_text("A first passage.\n\nA second one.\n\nA third.\n")
    evaluation = {"tasks": f"{tmp_path / 'asked.jsonl'},{tmp_path / 'text.txt'}", "every": 2, "at_start": True}
    evaluation |= {"rows": 3, "max_new_tokens": 4, "fit": "shrink"}
    stage += [f"--config.eval.{name}={value}" for name, value in evaluation.items()]
    for count in (1, 2):
        Processes(count, tmp_path / f"work{count}", stage).finish()
    alone, together = (read_evaluations(tmp_path / f"work{count}" / "stage1") for count in (1, 2))
    assert [line["step"] for line in together] == [0, 2, 4]
    assert all(set(line) == {"step", "eval/asked.own", "eval/text_loss.text"} for line in together)
    for line, other in zip(together, alone, strict=True):
        assert line == pytest.approx(other, rel=1e-5)
