"""Stage folders that eve_jax 0.1.0 wrote: they are scored and resumed with the numbers of that version."""

import json
import tarfile
from pathlib import Path

import pytest

from tests.launcher import launch

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.long
FIXTURE = ROOT / "tests" / "fixtures" / "v0_1.tar.xz"
MODEL = {"dtype": "float32", "frozen_dtype": "float32", "hidden_size": 32, "head_dim": 8, "intermediate_size": 48}
DATA = {"image_mode": "anyratio_ld", "max_tokens": 128, "row_tokens": 128, "max_shapes": 1, "rows": 2}
SETTINGS = [
    *(f"--config.model.{name}={value}" for name, value in (MODEL | {"patch_hidden": 32}).items()),
    *(f"--config.data.{name}={value}" for name, value in (DATA | {"micro_batches": 1, "epochs": 10}).items()),
    *("--config.train.steps=4", "--config.train.save_every=2", "--config.train.keep=4", "--config.optim.lr=0.001"),
    *("--config.data.records=d/rec.jsonl", "--config.data.images=d/img", "--config.data.tokenizer=d/tok"),
]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which version 0.1.0 trained, unpacked."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(FIXTURE) as file:
        file.extractall(folder, filter="data")
    return folder


def launched(cwd: Path, *args: str) -> str:
    """Run a launcher in `cwd`; return its stderr and stdout, failing with them unless it ends well."""
    done = launch(*args, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("stage", [pytest.param("stage3", marks=pytest.mark.slow), "stage2_1"])
def test_scores_are_those_of_the_old_version(old: Path, stage: str) -> None:
    args = ["--records=d/rec.jsonl", "--images=d/img", "--out=now.jsonl"]
    launched(old, "launch.score", f"--checkpoint=runs/{stage}", *args)
    now, then = lines(old / "now.jsonl"), lines(old / f"{stage}.scores.jsonl")
    for mine, theirs in zip(now, then, strict=True):
        assert mine.pop("loss") == pytest.approx(theirs.pop("loss"), abs=5e-6)
        assert mine.pop("nll_sum") == pytest.approx(theirs.pop("nll_sum"), abs=1e-4)
        assert mine == theirs


def test_a_partial_stage_resumes_with_the_steps_of_the_old_version(old: Path) -> None:
    said = launched(
        old, "launch.train", "--config=stage2_1:llm=tiny", "--workdir=runs", "--config.init=runs/stage3", *SETTINGS
    )
    assert "it stays so (config.data.special_text=True)" in said
    now, then = lines(old / "runs" / "stage2_1" / "metrics.jsonl"), lines(old / "stage2_1.metrics.jsonl")
    assert [line["step"] for line in now] == [1, 2, 3, 4]
    for mine, theirs in zip(now[2:], then[2:], strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=5e-6)
        assert {k: mine[k] for k in ("tokens", "targets", "rows")} == {
            k: theirs[k] for k in ("tokens", "targets", "rows")
        }
