"""Files of somebody else: whatever is in them, they end in one line, at once, and lead to no other file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutations.targets import KINDS

ROOT = Path(__file__).parents[2]
FEW, MANY = 300, int(os.environ.get("EVE_TEST_EXAMPLES", 10_000))


def poison(folder: Path, kind: str, count: int) -> None:
    """Try mutations 0 to `count` of a kind in a process of their own."""
    (folder / kind).mkdir()
    KINDS[kind].make(folder / kind)
    command = [sys.executable, "-m", "tests.mutations.poison", str(folder), kind, "0", str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    at = (folder / "at").read_text() if (folder / "at").is_file() else ""
    assert done.returncode == 0, f"{at}, status {done.returncode}: {done.stderr[-3000:]}"
    assert at == f"{kind} done"


@pytest.mark.parametrize("kind", KINDS)
def test_few(kind: str, tmp_path: Path) -> None:
    poison(tmp_path, kind, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many(kind: str, tmp_path: Path) -> None:
    poison(tmp_path, kind, MANY)
