"""What a command line says of values that cannot be read: one line, in words that do not speak of Python."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from absl import flags

from eve_jax.process import interrupt
from launch._flags import as_flag, run
from tests.launcher import ROOT, launch

MINE = """from configs import stage3


def rows(text):
    return int(text)


def get_config(arg=""):
    c = stage3.get_config("llm=tiny")
    c.data.rows = rows(arg)
    return c
"""


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("--config=stage3 --config.train.whole=yess", "--config.train.whole=yess: expected True or False"),
        ("--config=stage3 --config.train.keep=many", "--config.train.keep=many: expected a whole number"),
        ("--config=stage3 --config.optim.lr=fast", "--config.optim.lr=fast: expected a number"),
        ("--config=stage3 --config.optim.groups.text=x", "--config.optim.groups.text=x: expected a number"),
        (
            "--config=stage3 --config.optim.groups=text",
            "--config.optim.groups=text: expected its fields one by one, --config.optim.groups.FIELD=VALUE",
        ),
        ("--config=stage3 --peer_timeout=x", "--peer_timeout=x: expected a whole number"),
        ("--config.data.rows=2 --config=stage3", "--config.data.rows changes a field of a config: give --config=NAME"),
        ("--config.data.rows=2", "--config.data.rows changes a field of a config: give --config=NAME before it"),
        ("--config=stage3 --config.eval.tasks=pop", "config.eval.tasks: unknown task 'pop'; did you mean pope?"),
    ],
)
def test_a_value_that_cannot_be_read(tmp_path: Path, args: str, says: str) -> None:
    done = launch("launch.train", "--workdir=runs", *args.split(), cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"error: {says}")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("launch.serve", ("--checkpoint=x", "--slots=1000000000")),
        ("launch.eval", ("--checkpoint=x", "--tasks=x", "--out=y", "--rows=1000000")),
        ("launch.score", ("--checkpoint=x", "--records=x", "--out=y", "--threads=1000000")),
    ],
)
def test_numbers_without_which_a_machine_would_be_taken_have_an_end(
    tmp_path: Path, command: str, flags: tuple[str, ...]
) -> None:
    done = launch(command, *flags, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"error: flag {flags[-1]}: "), done.stderr


def test_a_task_of_a_stage_of_a_recipe(tmp_path: Path) -> None:
    args = ("--config=demo:tiny", "--workdir=runs", "--config.stages.stage3.eval.tasks=mme,ai3d")
    done = launch("launch.recipe", *args, cwd=tmp_path)
    assert done.stderr.startswith("error: config.stages.stage3.eval.tasks: unknown task 'ai3d'; did you mean ai2d?")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MINE, "(ValueError in {file}, line 5: invalid literal for int() with base 10: 'two')"),
        ("x = 1\ndef get_config(arg)\n", "(SyntaxError in {file}, line 2: expected ':')"),
        ("\nimport not_there\n", "(ModuleNotFoundError in {file}, line 2: No module named 'not_there')"),
    ],
)
def test_the_line_of_a_config_file_that_fails(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    done = launch("launch.train", f"--config={file}:two", "--workdir=runs", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert says.format(file=file) in done.stderr


@pytest.mark.parametrize("package", ["configs/__init__.py", "configs.py"])
def test_a_project_may_have_a_package_configs(tmp_path: Path, package: str) -> None:
    """`python -m` looks in the current folder first."""
    file = tmp_path / package
    file.parent.mkdir(exist_ok=True)
    file.write_text("THEIRS = 1\n")
    (tmp_path / "configs").mkdir(exist_ok=True)
    (tmp_path / "configs" / "mine.py").write_text(MINE)
    name = "configs.mine:get_config:7" if package.endswith("__init__.py") else "stage3"  # mine imports our stage3
    done = subprocess.run(
        [sys.executable, "-m", "launch.train", f"--config={name}", "--workdir=runs", "--config.data.rows=0"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stderr.startswith("error: config.data.rows=0: expected"), done.stderr


def test_errors_call_a_field_by_the_flag_that_a_command_has_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    own = flags.FlagValues()
    for name in ("mesh", "max_size"):
        flags.DEFINE_string(name, "", "", flag_values=own)
    own.mark_as_parsed()
    monkeypatch.setattr(flags, "FLAGS", own)
    named = {"mesh": "--mesh", "data.max_size": "--max_size", "data.rows": "config.data.rows", "init": "config.init"}
    assert {field: as_flag(field) for field in named} == named


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError("Unable to allocate 16.0 GiB"), "this process has no more memory (Unable to allocate 16.0 GiB); "),
        (MemoryError(), "this process has no more memory; take fewer"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes\nin two lines"),
            "the device's memory is full (RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes in two lines); take",
        ),
    ],
)
def test_memory_that_is_full_is_one_line(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["train"])
    monkeypatch.setattr(interrupt, "install", lambda: None)
    monkeypatch.setattr(flags.FlagValues, "validate_all_flags", lambda self: None)  # of commands imported before
    with pytest.raises(SystemExit, match="1"):
        run(main)
    said = capsys.readouterr().err
    assert said.startswith(f"error: {says}")
    assert said.count("\n") == 1
