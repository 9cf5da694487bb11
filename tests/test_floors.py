"""The contracts of imports in pyproject.toml hold, and break in a copy that imports upward or in a circle."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for package in ("configs", "eve_jax", "launch"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    return folder


def broken(folder: Path) -> list[str]:
    """Names of the contracts that the package in `folder` breaks, by `lint-imports`."""
    process = subprocess.run(LINT, cwd=folder, capture_output=True, text=True)
    contracts = [line.removesuffix(" BROKEN") for line in process.stdout.splitlines() if line.endswith(" BROKEN")]
    assert process.returncode == bool(contracts), process.stdout + process.stderr
    return contracts


def test_the_package_keeps_its_floors() -> None:
    assert broken(ROOT) == []


FLOORS = "Imports lead to lower floors only"
COMMANDS = "Commands and configs are above the package"
DATA = "Rooms of the data, and what they share"
INDEPENDENT = "Text, images, sources and the plan know nothing of each other"


@pytest.mark.parametrize(
    ("file", "line", "contracts"),
    [
        ("data/record.py", "from eve_jax.model import eve", [FLOORS]),
        ("errors.py", "from eve_jax.process import paths", [FLOORS, "No circles"]),
        ("train/step.py", "def late():\n    from eve_jax.infer import engine", [FLOORS]),
        (
            "model/eve.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from eve_jax.hf import names",
            [FLOORS, "No circles"],
        ),
        ("data/plan/packing.py", "from eve_jax.data.text import encode", [DATA, INDEPENDENT]),
        ("data/image/rule.py", "from eve_jax.data.rows import build", [DATA, INDEPENDENT, "No circles"]),
        ("compile/count.py", "from launch import train", [FLOORS, COMMANDS]),
        ("infer/sampling.py", "from eve_jax.infer import engine", ["No circles"]),
    ],
)
def test_an_import_against_them_is_found(copy: Path, file: str, line: str, contracts: list[str]) -> None:
    path = copy / "eve_jax" / file
    before = path.read_text()
    path.write_text(f"{before}\n{line}\n")
    try:
        assert broken(copy) == contracts
    finally:
        path.write_text(before)


@pytest.mark.parametrize("room", ["attic.py", "data/attic.py"])
def test_a_new_room_needs_a_floor(copy: Path, room: str) -> None:
    path = copy / "eve_jax" / room
    path.touch()
    try:
        process = subprocess.run(LINT, cwd=copy, capture_output=True, text=True)
    finally:
        path.unlink()
    assert process.returncode == 1
    assert "attic" in process.stdout
