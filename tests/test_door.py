"""What a newcomer meets first: the command `eve`, `--version`, a config file of their own, examples, metadata."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from eve_jax import __version__
from launch import cli
from tests.data.synthetic import write_records
from tests.launcher import launch
from tests.weights import folders

ROOT = Path(__file__).parent.parent
STAGE = """
from configs import stage3


def get_config(arg=""):
    c = stage3.get_config("llm=tiny,variant=dense")
    c.name = f"mine_{arg or 'plain'}"
    return c
"""


def run(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python with `args`, the package importable from anywhere."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *args], cwd=cwd, env=environment, capture_output=True, text=True)


def test_every_launcher_is_a_command() -> None:
    modules = {p.stem for p in (ROOT / "launch").glob("*.py") if not p.stem.startswith("_")}
    assert set(cli.COMMANDS) == modules - {"cli"}


def test_the_command_shows_itself_and_its_version() -> None:
    assert run("-m", "launch.cli", "--version").stdout.strip() == __version__
    shown = run("-m", "launch.cli", "--help").stdout
    assert all(name in shown for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("command", "names"),
    {
        "train": "config workdir coordinator",
        "score": "checkpoint records images out",
        "eval": "checkpoint tasks data out answers images metric",
        "convert": "from to variant",
        "serve": "checkpoint host port api_key media_domains slots context max_tokens",
    }.items(),
)
def test_help_shows_every_flag_of_a_command(command: str, names: str) -> None:
    shown = run("-m", "launch.cli", command, "--help").stdout
    assert [name for name in names.split() if f"\n  --{name}:" not in shown and f"\n  --[no]{name}:" not in shown] == []


@pytest.mark.parametrize("args", [[], ["trian"], ["--config=stage3"]])
def test_an_unknown_command_is_one_line(args: list[str]) -> None:
    done = run("-m", "launch.cli", *args)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1 and "train" in done.stderr


@pytest.mark.parametrize("command", ["train", "prepare-data", "convert"])
def test_a_command_is_its_launcher(command: str) -> None:
    module = f"launch.{command.replace('-', '_')}"
    assert run("-m", "launch.cli", command, "--version").stdout.strip() == __version__
    one, other = run("-m", "launch.cli", command, "--nonsense=1"), run("-m", module, "--nonsense=1")
    assert (one.returncode, one.stderr) == (other.returncode, other.stderr) == (1, one.stderr)
    assert one.stderr.startswith("error: ")


def test_a_config_file_of_ones_own_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STAGE)
    code = "from launch._configs import load_config; c = load_config('mine.py:x'); print(c.name, c.model.variant)"
    assert run("-c", code, cwd=tmp_path).stdout.split() == ["mine_x", "dense"]
    args = ("--config=mine.py:x", "--workdir=runs", "--config.optim.lrr=1")
    done = run("-m", "launch.train", *args, cwd=tmp_path)
    assert done.returncode == 1 and "did you mean config.optim.lr?" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "there is no file"),
        ("def get_config(:", "cannot be used"),
        ("x = 1", "cannot be used"),
        ("def get_config(arg=''):\n    return {}", "not a ConfigDict"),
    ],
)
def test_a_config_file_that_cannot_be_used(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    done = run("-m", "launch.train", "--config=mine.py", "--workdir=runs", cwd=tmp_path)
    assert done.returncode == 1
    assert says in done.stderr and "mine.py" in done.stderr and "Traceback" not in done.stderr


def test_metadata() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"readme", "urls", "classifiers", "scripts"} <= project.keys()
    assert (ROOT / "eve_jax" / "py.typed").is_file()


def test_the_examples_end_in_a_line(tmp_path: Path) -> None:
    for given in (("ask", "nowhere", "What?", "a.png"), ("finetune_own_data", "nowhere", "a.json", "i", str(tmp_path))):
        done = launch(f"examples.{given[0]}", *given[1:])
        assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert "nowhere" in done.stderr


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path) -> None:
    """Fine-tune a plain LLM's folder on own records, then ask what came of it."""
    tensors, config = folders.plain("qwen2")
    hf = folders.write_hf(tmp_path / "hf", tensors, config | {"max_position_embeddings": 1024})
    records = write_records(tmp_path, 8)
    places = (hf, records, tmp_path / "images", tmp_path / "runs")
    done = launch("examples.finetune_own_data", *map(str, places))
    assert done.returncode == 0, done.stderr
    stage = tmp_path / "runs" / "finetuned"
    lines = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) > 1 and all(line["targets"] and line["loss"] > 0 for line in lines)
    image = next((tmp_path / "images").iterdir())
    asked = launch("examples.ask", str(stage), "What is it?", str(image))
    assert asked.returncode == 0, asked.stderr
    assert len(asked.stdout.splitlines()) >= 3
