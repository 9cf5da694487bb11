"""The records that are left after a stage, as columns in memory: some 50 bytes a record and its id."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eve_jax.curate.stage import STAGES, Stage
from eve_jax.process.files import write_atomically

COLUMNS = ("index", "id", "width", "height", "bytes", "phash")


@dataclass(frozen=True, eq=False)
class Rows:
    """Records by their index in the source, ascending; arrays [n].

    index: int64. id: strings. pixels, bytes: int64, of the image and its file. phash: uint64.
    """

    index: np.ndarray
    id: pa.ChunkedArray
    pixels: np.ndarray
    bytes: np.ndarray
    phash: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: np.ndarray) -> "Rows":
        """Return some of the rows; a mask bool [n] or their numbers, ascending."""
        if rows.dtype == bool and rows.all():
            return self
        at = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Rows(self.index[at], self.id.take(pa.array(at)), self.pixels[at], self.bytes[at], self.phash[at])

    def by_size(self) -> np.ndarray:
        """Return the numbers of the rows: largest image first, then the largest file, the first id, the first row."""
        keys = {"pixels": self.pixels, "bytes": self.bytes, "id": self.id, "index": self.index}
        order = [("pixels", "descending"), ("bytes", "descending"), ("id", "ascending"), ("index", "ascending")]
        return pc.sort_indices(pa.table(keys), order).to_numpy().astype(np.int64)


def kept_rows(measured: Stage, filtered: Stage, shards: int) -> Rows:
    """Return the records that the filter kept."""
    tables = [_kept(measured, filtered, number) for number in range(shards)]
    table = pa.concat_tables(tables)
    sides = [table[name].to_numpy().astype(np.int64) for name in ("width", "height")]
    return Rows(
        table["index"].to_numpy(),
        table["id"],
        sides[0] * sides[1],
        table["bytes"].to_numpy(),
        table["phash"].to_numpy(),
    )


def _kept(measured: Stage, filtered: Stage, number: int) -> pa.Table:
    kept = pc.equal(filtered.read(number, ["rule"])["rule"], "")
    return measured.read(number, list(COLUMNS)).filter(kept)


@dataclass(frozen=True)
class Wanted:
    """Indices of records in a file: work that goes to other machines names it instead of holding millions of them."""

    path: Path

    @classmethod
    def of(cls, out: Path, index: np.ndarray) -> "Wanted":
        """Return those of `index`, int64 [n] ascending, in a file below `out` that is named by their hash."""
        path = out / STAGES / f"rows-{hashlib.blake2b(index.tobytes(), digest_size=8).hexdigest()}.npy"
        if not path.is_file():
            write_atomically(path, partial(_save, index=index))
        return cls(path)

    @property
    def index(self) -> np.ndarray:
        """Return the indices, mapped from the file."""
        return _mapped(self.path)


def _save(path: Path, index: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, index)


@cache
def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def by_shard(index: np.ndarray, size: int) -> Iterator[tuple[int, slice]]:
    """Yield each shard of `size` source records that has some of `index` (ascending), and where those are."""
    if not len(index):
        return
    numbers = index // size
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(index)], strict=True):
        yield int(numbers[start]), slice(int(start), int(stop))


def texts(column: pa.ChunkedArray, rows: Sequence[int] | np.ndarray) -> list[str]:
    """Return the texts of some rows of a column of strings."""
    return column.take(pa.array(np.asarray(rows, np.int64))).to_pylist()
