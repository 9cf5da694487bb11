"""Files of somebody else: whatever is in them, they end in one line, at once, and lead to no other file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutations.targets import KINDS

ROOT = Path(__file__).parents[2]
FEW, MANY = 150, int(os.environ.get("EVE_TEST_EXAMPLES", 10_000))


def poison(folder: Path, count: int, *kinds: str) -> None:
    """Try mutations 0 to `count` of each of `kinds` in a process of their own."""
    for kind in kinds:
        (folder / kind).mkdir()
        KINDS[kind].make(folder / kind)
    command = [sys.executable, "-m", "tests.mutations.poison", str(folder), str(count), *kinds]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    at = (folder / "at").read_text() if (folder / "at").is_file() else ""
    assert done.returncode == 0, f"{at}, status {done.returncode}: {done.stderr[-3000:]}"
    assert at == f"{kinds[-1]} done"


def test_few(tmp_path: Path) -> None:
    poison(tmp_path, FEW, *KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many(kind: str, tmp_path: Path) -> None:
    poison(tmp_path, MANY, kind)
