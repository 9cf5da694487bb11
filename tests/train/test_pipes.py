"""A pipe in the place of a file is refused in one line: whoever opens it would wait for who writes there."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from eve_jax.checkpoint.checksums import damage
from eve_jax.checkpoint.stage_folder import Checkpoints, newest_step
from eve_jax.checkpoint.stored import stored_shapes
from eve_jax.errors import UserError
from eve_jax.process.files import read_json
from eve_jax.serve.process import Tls
from eve_jax.train.goodput import Goodput, read_goodput
from eve_jax.train.metrics import drop_lines_after, read_metrics

PIPE = "is a pipe or a device"


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """A test that waits fails."""

    def over(*_: object) -> None:
        raise TimeoutError("a pipe was waited for")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_files_of_a_stage(tmp_path: Path) -> None:
    for name in ("goodput.json", "metrics.jsonl", "mlflow.json"):
        os.mkfifo(tmp_path / name)
    for opened in (
        lambda: Goodput(tmp_path),
        lambda: read_goodput(tmp_path),
        lambda: read_metrics(tmp_path),
        lambda: drop_lines_after(tmp_path, 0),
        lambda: read_json(tmp_path / "mlflow.json"),
    ):
        with pytest.raises(UserError, match=PIPE):
            opened()


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "params/_METADATA", "params/_sharding", "meta/metadata"])
def test_files_of_a_checkpoint(name: str, tmp_path: Path) -> None:
    step = tmp_path / "checkpoints" / "3"
    for item in ("params", "meta"):
        (step / item).mkdir(parents=True)
    os.mkfifo(step / name)
    assert damage(step) == f"{step / name} {PIPE}, not a file"
    with pytest.raises(UserError, match=PIPE):
        newest_step(tmp_path)
    with pytest.raises(UserError, match=rf"{name} {PIPE}, not a file: remove it, or the checkpoint 3"):
        Checkpoints(tmp_path)
    with pytest.raises(UserError, match=PIPE):
        stored_shapes(tmp_path, 3)


def test_a_certificate(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("no key")
    for files in (("pipe", ""), ("file", "pipe")):
        with pytest.raises(UserError, match=r"pipe is a pipe or a device; name a file"):
            Tls(*(str(tmp_path / name) if name else "" for name in files)).check()
