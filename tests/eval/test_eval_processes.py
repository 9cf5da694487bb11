"""The answers and verdicts of a command do not depend on devices, processes and batch size."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.eval.data_files import write_hub
from tests.eval.test_run import ROOT, lines
from tests.process.processes import free_port

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
    flags: dict[str, Any] = {"checkpoint": hf, "tasks": "mme,mmmu", "protocol": "both", "data": tmp_path, "limit": 10}
    flags |= {"fit": "shrink", "max_size": 32}
    command(1, 1, flags | {"out": tmp_path / "one"})
    command(1, 8, flags | {"out": tmp_path / "eight", "mesh": "data:4,tensor:2", "rows": 4})
    command(2, 1, flags | {"out": tmp_path / "two", "mesh": "data:2", "rows": 6})
    for task in TASKS:
        expected = lines(tmp_path / "one", task)
        assert len(expected) == 10
        assert lines(tmp_path / "eight", task) == expected
        assert lines(tmp_path / "two", task) == expected
    command(2, 1, flags | {"out": tmp_path / "one", "mesh": "data:2", "limit": 12})  # resumes what one process began
    assert len(lines(tmp_path / "one", TASKS[0])) == 12
