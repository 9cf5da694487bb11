"""Files of somebody else: whatever is in them, they end in one line, at once, and lead to no other file."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from eve_jax.process.cores import cores
from tests.mutations.targets import KINDS

ROOT = Path(__file__).parents[2]
FEW, MANY = 60, int(os.environ.get("EVE_TEST_EXAMPLES", 10_000))


def poison(folder: Path, numbers: range, *kinds: str) -> None:
    """Try mutations `numbers` of each of `kinds` in a process of their own."""
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        KINDS[kind].make(folder / kind)
    which = [str(folder), str(numbers.start), str(numbers.stop), *kinds]
    command = [sys.executable, "-m", "tests.mutations.poison", *which]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    at = (folder / "at").read_text() if (folder / "at").is_file() else ""
    assert done.returncode == 0, f"{at}, status {done.returncode}: {done.stderr[-3000:]}"
    assert at == f"{kinds[-1]} done"


def test_few(tmp_path: Path) -> None:
    poison(tmp_path, range(FEW), *KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many(kind: str, tmp_path: Path) -> None:
    ends = np.linspace(0, MANY, cores() + 1, dtype=int).tolist()
    with ThreadPoolExecutor(cores()) as pool:
        parts = [pool.submit(poison, tmp_path / str(a), range(a, b), kind) for a, b in pairwise(ends)]
        errors = [str(error) for part in parts if (error := part.exception())]
    assert not errors, "\n".join(errors)
