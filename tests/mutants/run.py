"""Applies mutants, one after another, to a copy of the repository, and reports those that their tests do not find.

    python -m tests.mutants.run [--processes=1] [NAME ...]      a NAME is the beginning of a mutant's; default: all

The status is 1 when more than `SURVIVORS` survive.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
SURVIVORS = 2
LIMIT = 900  # seconds of a mutant's tests; one that hangs them is found
FAILED, PASSED = 1, 0  # of pytest


def find(mutant: Mutant, folder: Path) -> str:
    """'found' or 'survives' after the mutant's tests in `folder`, a copy of the repository, which is then as before."""
    file = folder / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {mutant.file} has {text.count(mutant.old)} places {mutant.old!r}, expected 1")
    file.write_text(text.replace(mutant.old, mutant.new))
    try:
        return "survives" if passes(mutant.tests, folder) else "found"
    except subprocess.TimeoutExpired:
        return "found"
    finally:
        file.write_text(text)


def passes(tests: Sequence[str], folder: Path) -> bool:
    """Whether `tests` pass in `folder`. Raises RuntimeError where they do not run."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    if done.returncode not in (PASSED, FAILED):
        raise RuntimeError(f"{tests}: the tests did not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == PASSED


def copied(folder: Path) -> Path:
    """A copy of what git knows of the repository, in `folder`."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def survivors(mutants: Sequence[Mutant], processes: int = 1) -> list[str]:
    """Names of those that survive; prints each as it is known.

    Raises RuntimeError where tests fail in a copy without a mutant: what they find there tells nothing.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folders = [copied(Path(temporary, str(number))) for number in range(processes)]

        def part(number: int) -> list[str]:
            left = []
            for tests in dict.fromkeys(m.tests for m in mutants[number::processes]):
                if not passes(tests, folders[number]):
                    raise RuntimeError(f"{tests} fail without a mutant")
            for mutant in mutants[number::processes]:
                what = find(mutant, folders[number])
                print(f"{what:9} {mutant.name}", flush=True)
                left += [mutant.name] if what == "survives" else []
            return left

        with ThreadPoolExecutor(processes) as pool:
            return [name for names in pool.map(part, range(processes)) for name in names]


def main(*arguments: str) -> int:
    """Run those that are named; return the status."""
    processes = next((int(a.partition("=")[2]) for a in arguments if a.startswith("--processes=")), 1)
    names = [a for a in arguments if not a.startswith("--")]
    chosen = [m for m in MUTANTS if not names or any(m.name.split()[0] == name for name in names)]
    left = survivors(chosen, processes)
    print(f"{len(left)} of {len(chosen)} survive")
    return int(len(left) > SURVIVORS)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
