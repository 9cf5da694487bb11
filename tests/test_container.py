"""The Dockerfile as far as it can be checked without docker; .ci/run builds it where a daemon answers."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILE = ROOT / "Dockerfile"


def steps() -> list[tuple[str, str]]:
    """Instruction and arguments of every step, lines that continue joined."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE)
    joined = re.sub(r"\\\n", " ", text)
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in joined.splitlines() if line.strip()]


def ignored(name: str) -> bool:
    """Whether .dockerignore keeps a file of the root from the build: all are but those that it takes back."""
    first, *rest = (ROOT / ".dockerignore").read_text().split()
    assert first == "*"
    return f"!{name}" not in rest


def test_what_is_copied_is_there() -> None:
    copied = [names.split()[:-1] for step, names in steps() if step == "COPY" and "--from" not in names]
    names = [name for several in copied for name in several]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {"pyproject.toml", "constraints.txt", project["project"]["readme"]} < set(names)
    assert {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]} < set(
        names
    )
    for name in names:
        assert (ROOT / name).exists() and not ignored(name), name
    assert not ignored("LICENSE")
    assert ignored(".git") and ignored("runs") and ignored(".venv")


def test_arguments_are_declared_where_they_are_used() -> None:
    """An ARG before the first FROM is known to FROM lines alone, others until the next FROM."""
    known: set[str] = set()
    outer: set[str] = set()
    begun = False
    for step, value in steps():
        if step == "FROM":
            assert set(re.findall(r"\$\{?([A-Z]+)", value)) <= outer
            known, begun = set(), True
        elif step == "ARG":
            (known if begun else outer).add(value.partition("=")[0])
        elif step == "RUN":
            assert set(re.findall(r"\$\{?([A-Z_]+)", value)) <= known, value
            assert subprocess.run(["sh", "-n", "-c", value]).returncode == 0


@pytest.mark.parametrize("device", ["cpu", "tpu", "cuda", "gpu"])
def test_every_device_has_its_extra(device: str) -> None:
    """The shell of the step that installs, with a pip that prints."""
    install = next(value for step, value in steps() if step == "RUN" and "pip install" in value)
    shell = install.replace("python -m venv /opt/eve", "true").replace("/opt/eve/bin/pip", "echo")
    done = subprocess.run(
        ["sh", "-c", shell],
        env={"DEVICE": device, "EXTRAS": "serve", "PATH": "/bin:/usr/bin"},
        capture_output=True,
        text=True,
    )
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    if device == "gpu":
        assert (done.returncode, done.stderr) == (1, "DEVICE=gpu: expected cpu, tpu or cuda\n")
        return
    named = re.search(r"\.\[(.*)\]", done.stdout)
    assert named and set(named[1].split(",")) == {"serve", device} - {"cpu"} <= {*extras}
    assert "-c constraints.txt" in done.stdout


def test_it_ends_as_a_user_with_the_command() -> None:
    last = dict(steps())  # of each instruction the last
    assert last["USER"] == "eve" and last["ENTRYPOINT"] == '["eve"]' and last["WORKDIR"] == "/work"
    assert "eve" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert [step for step, _ in steps()].count("FROM") == 2
    assert all(
        step in ["ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "ENTRYPOINT", "CMD"]
        for step, _ in steps()
    )


def test_hadolint() -> None:
    if not shutil.which("hadolint"):
        pytest.skip("hadolint is not installed")
    assert subprocess.run(["hadolint", str(FILE)]).returncode == 0
