"""A run that was killed, then asked to stop by SIGTERM, ends with the metrics of an undisturbed one, bit for bit.

`python -m benchmarks.kills` does the same at dozens of random moments of three stages.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from eve_jax.checkpoint.stage_folder import newest_step
from eve_jax.demo.dataset import write_dataset
from eve_jax.process import interrupt
from eve_jax.train.goodput import read_goodput
from eve_jax.train.metrics import TIMED, read_metrics
from eve_jax.train.trainer import train
from launch._configs import load_config
from tests.weights.gemma import write_gemma
from tests.weights.sail import sail_folder

ROOT = Path(__file__).parents[2]
STEPS = 30
pytestmark = pytest.mark.long


def fields(data: Path | str, steps: int = STEPS) -> dict[str, object]:
    """Fields of the config of a run of `steps` short steps on the data in the folder or bucket `data`."""
    return {
        "data.records": f"{data}/captions.jsonl",
        "data.images": f"{data}/images",
        "data.tokenizer": f"{data}/tokenizer",
        "data.row_tokens": 128,
        "data.max_tokens": 128,
        "data.rows": 1,
        "data.micro_batches": 1,
        "data.max_shapes": 1,
        "train.steps": steps,
        "train.save_every": 2,
        "model.patch_hidden": 32,
    }


# What is trained, and what differs from `fields`: of EVE, and of other members of the family.
FAMILY: dict[str, dict[str, object]] = {
    "neo_pt:llm=tiny,extra=1": {"data.area": (1024, 8192), "optim.warmup": 0.1, "optim.warmup_steps": 0},
    "hundred:llm=tiny,sides=8": {"data.max_size": 96, "model.patch_hidden": 64},
    "sail_sft:llm=FOLDER": {},
    "gemma4_sft:llm=FOLDER,tokens=70": {},
}
STAGE1 = "stage1:llm=tiny"
ROW = {"data.row_tokens": 512, "data.max_tokens": 512}  # of dialogues by bytes
OF_FOLDERS = ("data.tokenizer", "model.patch_hidden")  # which a model's folder has


def own_fields(data: Path, name: str) -> dict[str, object]:
    """Fields of the config `name`, on the data in the folder `data`."""
    if name == STAGE1:
        return fields(data)
    found = fields(data) | FAMILY[name] | ROW
    return {n: v for n, v in found.items() if "FOLDER" not in name or n not in OF_FOLDERS}


def config_name(data: Path, name: str) -> str:
    """`name` with the model's folder, which is next to the data."""
    return name.replace("FOLDER", str(data / "model"))


def write_model(data: Path, name: str) -> None:
    """Write the folder of the model that `name` trains, where it trains one."""
    if name.startswith("sail"):
        sail_folder(data / "model")
    elif name.startswith("gemma"):
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
        write_gemma(data / "model")


def config(data: Path, name: str = STAGE1) -> ConfigDict:
    c = load_config(config_name(data, name))
    c.update_from_flattened_dict(own_fields(data, name))
    return c


def lines(folder: Path) -> list[dict]:
    return [{k: v for k, v in m.items() if k not in TIMED} for m in read_metrics(folder)]


def wait_for(folder: Path, steps: int, running: Callable[[], bool]) -> None:
    limit = time.monotonic() + 900
    while len(read_metrics(folder)) < steps and running() and time.monotonic() < limit:
        time.sleep(0.002)


def killed(folder: Path, data: Path, steps: int, name: str) -> None:
    """Train in a process of its own until `steps` steps are logged, and kill it there."""
    given = [f"--config.{k}={str(v).replace(' ', '')}" for k, v in own_fields(data, name).items()]
    asked = (f"--config={config_name(data, name)}", f"--workdir={folder.parent}")
    command = [sys.executable, "-m", "launch.train", *asked, *given]
    printed = data / "output.txt"
    with printed.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    wait_for(folder, steps, lambda: process.poll() is None)
    process.kill()
    assert process.wait() == -signal.SIGKILL, printed.read_text()[-2000:]


def terminated(folder: Path, data: Path, steps: int, name: str) -> None:
    """Resume here and get SIGTERM after step `steps`."""

    def ask() -> None:
        wait_for(folder, steps, lambda: True)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask).start()
    with pytest.raises(interrupt.Interrupted, match=f"stopped after step .* of {STEPS}; rerun the command"):
        train(config(data, name), folder.parent, quiet=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", [STAGE1, *FAMILY])
def test_killed_then_terminated(name, tmp_path, monkeypatch):
    monkeypatch.setattr(interrupt, "_asked", False)  # as it is afterwards, too, for the tests that follow
    data = tmp_path / "data"
    write_dataset(data, "tiny")
    write_model(data, name)
    stage = load_config(config_name(data, name)).name
    folder = tmp_path / "work" / stage
    killed(folder, data, 9, name)
    at_kill = lines(folder)
    saved = newest_step(folder)
    assert 0 < saved < STEPS
    terminated(folder, data, len(at_kill) + 5, name)
    monkeypatch.setattr(interrupt, "_asked", False)
    stopped = lines(folder)
    assert len(stopped) == newest_step(folder), "SIGTERM saves the very step it stops after"
    train(config(data, name), folder.parent, quiet=True)

    undisturbed = config(data, name)
    undisturbed.train.save_every = STEPS
    train(undisturbed, tmp_path / "whole", quiet=True)
    whole = lines(tmp_path / "whole" / stage)
    assert len(whole) == STEPS
    assert at_kill == whole[: len(at_kill)]
    assert stopped == whole[: len(stopped)]
    assert lines(folder) == whole
    sessions = [(s["first_step"], s["last_step"]) for s in read_goodput(folder)]
    assert [first for first, _ in sessions] == [0, saved, len(stopped)]
    assert sessions[-1][1] == STEPS


@pytest.mark.slow
def test_random_moments(tmp_path):
    """A few of the moments of `benchmarks.kills`, over three stages."""
    command = [sys.executable, "-m", "benchmarks.kills", f"--workdir={tmp_path / 'kills'}", "--kills=3", "--terms=2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_sigterm_after_the_end_is_no_failure():
    code = (
        "import atexit, os, signal; from launch._flags import run; "
        "atexit.register(os.kill, os.getpid(), signal.SIGTERM); run(lambda: print('done'))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
