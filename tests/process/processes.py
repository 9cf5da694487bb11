"""A training run of several processes on this machine, for the tests."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from eve_jax.train.metrics import TIMED, read_metrics
from tests.data.synthetic import byte_tokenizer, write_records

ROOT = Path(__file__).parents[2]
LIMIT = 600  # seconds until a run is given up


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def small_stage(folder: Path, steps: int) -> list[str]:
    """Arguments of a small stage 1 on records of its own, which are written into `folder`; 4 rows a step."""
    byte_tokenizer().save(folder / "tokenizer")
    write_records(folder, 24)
    data = {
        "records": folder / "records.jsonl",
        "images": folder / "images",
        "tokenizer": folder / "tokenizer",
        "row_tokens": 128,
        "max_tokens": 128,
        "rows": 4,
        "micro_batches": 1,
        "max_shapes": 1,
        "epochs": 1000,
    }
    settings = {f"data.{name}": value for name, value in data.items()}
    settings |= {"train.steps": steps, "model.patch_hidden": 32, "model.dtype": "float32", "optim.lr": 1e-3}
    return ["launch.train", "--config=stage1:llm=tiny", *(f"--config.{k}={v}" for k, v in settings.items())]


class Processes:
    """`count` processes of one virtual device each that run `arguments` in `workdir`.

    own: variables of the environment that each of them has alone; None removes one. outputs: added to the names of the
    files that take what they print.
    """

    def __init__(
        self,
        count: int,
        workdir: Path,
        arguments: list[str],
        own: Sequence[Mapping[str, str | None]] = (),
        outputs: str = "",
    ):
        port = free_port()
        env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
        self.workdir = workdir
        self.files = [workdir.parent / f"{workdir.name}{outputs}.{i}.txt" for i in range(count)]
        self.running = []
        for i, file in enumerate(self.files):
            command = [sys.executable, "-m", *arguments, f"--workdir={workdir}"]
            if count > 1:
                command += [f"--coordinator=localhost:{port}", f"--num_processes={count}", f"--process_id={i}"]
            mine = {k: v for k, v in (env | dict(own[i] if own else {})).items() if v is not None}
            with file.open("w") as out:
                self.running.append(subprocess.Popen(command, cwd=ROOT, env=mine, stdout=out, stderr=subprocess.STDOUT))

    def reach(self, stage: str, steps: int) -> None:
        """Wait until the stage has logged `steps` steps."""
        limit = time.monotonic() + LIMIT
        while len(read_metrics(self.workdir / stage)) < steps:
            assert all(p.poll() is None for p in self.running), self.outputs()
            assert time.monotonic() < limit, self.outputs()
            time.sleep(0.05)

    def send(self, process: int, number: signal.Signals) -> None:
        """Send a signal to one of them."""
        self.running[process].send_signal(number)

    def wait(self) -> list[int]:
        """Exit status of each, when all have ended."""
        try:
            return [p.wait(LIMIT) for p in self.running]
        finally:
            for p in self.running:
                p.kill()

    def outputs(self) -> list[str]:
        """What each has printed."""
        return [file.read_text() for file in self.files]

    def finish(self) -> "Processes":
        """Wait for the end, which has to be a good one."""
        assert self.wait() == [0] * len(self.running), self.outputs()
        return self


def lines(workdir: Path, stage: str = "stage1") -> list[dict]:
    """The stage's metrics without times."""
    return [{k: v for k, v in m.items() if k not in TIMED} for m in read_metrics(workdir / stage)]
