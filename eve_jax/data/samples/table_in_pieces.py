"""A table of lengths, measured in pieces by several processes: each is a file until the table is whole.

    lengths-HASH.pieces/0-50000.npz, 50000-100000.npz ... -> lengths-HASH.npz

A run that was killed resumes with the pieces that are not there; the table is the same whoever measures them.
"""

import shutil
import struct
import sys
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from eve_jax.data.plan.joined_file import Part, save_joined
from eve_jax.data.plan.lengths import Lengths
from eve_jax.process.pieces import Tick, run_processes

PIECES = ".pieces"
LEAST, MOST = 2_000, 50_000  # records in a piece: memory of a process, and work that is lost when it is killed
OF_ALL = 256  # pieces of a table where that gives sizes between them
Measure = Callable[[range, Any, Tick], Lengths]


def pieces_of(span: range, total: int) -> list[range]:
    """Return the pieces of the records `span` of a table of `total` records; they depend on nothing else."""
    size = min(max(-(-total // OF_ALL), LEAST), MOST)
    return [span[start : start + size] for start in range(0, len(span), size)]


def table_in_pieces(
    path: Path, sources: Sequence[range | Lengths], measure: Measure, setup: Callable[[], Any], processes: int
) -> None:
    """Write the table `path` of the records of all `sources`: ranges of records, or tables that are there already.

    measure(records, setup(), tick) gives the table of some records, see `run_processes`; all are picklable.
    """
    folder = path.with_suffix(PIECES)
    for other in path.parent.glob(f"*{PIECES}"):  # of other records or settings: what was killed and not resumed
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    total = sum(len(source) for source in sources if isinstance(source, range))
    parts: list[Part] = []
    todo: list[tuple[range, Path]] = []
    for source in sources:
        if isinstance(source, Lengths):
            parts.append(source)
            continue
        for records in pieces_of(source, total) or [source]:
            parts.append(folder / f"{records.start}-{records.stop}.npz")
            if not _is_whole(folder / f"{records.start}-{records.stop}.npz"):
                todo.append((records, folder / f"{records.start}-{records.stop}.npz"))
    done = total - sum(len(records) for records, _ in todo)
    if done:
        print(f"{done:,} of {total:,} records are measured already ({folder})", file=sys.stderr, flush=True)
    run_processes(partial(_keep, measure), todo, setup, processes, "measuring records", total, done)
    save_joined(path, parts)
    shutil.rmtree(folder, ignore_errors=True)


def _keep(measure: Measure, piece: tuple[range, Path], opened: Any, tick: Tick) -> None:
    records, path = piece
    measure(records, opened, tick).save(path)


def _is_whole(piece: Path) -> bool:
    """Whether a piece is there; its checksums are looked at, since it may be what a power cut left."""
    try:
        with zipfile.ZipFile(piece) as file:
            return file.testzip() is None and Lengths.load(piece) is not None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, struct.error):
        return False
