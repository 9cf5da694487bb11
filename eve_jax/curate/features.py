"""Features of records on disk, float16, and blocks of them in memory, float32 of length 1."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from eve_jax.curate.rows import by_shard
from eve_jax.curate.stage import Stage
from eve_jax.errors import UserError, shorten
from eve_jax.process.files import write_atomically


def write_features(path: Path, index: np.ndarray, features: np.ndarray) -> None:
    """Write features float16 [n, D] of the records `index`, int64 [n] ascending, as an Arrow file: complete or not."""
    column = pa.FixedSizeListArray.from_arrays(pa.array(features.astype(np.float16).ravel()), features.shape[1])
    table = pa.table({"index": index, "features": column})

    def write(part: Path) -> None:
        with pa.OSFile(str(part), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=max(len(index), 1))

    write_atomically(path, write)


def read_features(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return index int64 [n] and features float16 [n, D], both mapped from the file. Raises UserError."""
    try:
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        width = table.schema.field("features").type.list_size
        if not len(table):
            return np.zeros(0, np.int64), np.zeros((0, width), np.float16)
        values = table["features"].chunk(0).flatten().to_numpy(zero_copy_only=True)
        return table["index"].chunk(0).to_numpy(), values.reshape(-1, width)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({shorten(str(error), 200)}); remove it, then rerun") from None


@dataclass(frozen=True, eq=False)
class Features:
    """The features of the records `index`, int64 [n] ascending, whose shards hold `size` records of the source each."""

    stage: Stage
    index: np.ndarray
    size: int

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def width(self) -> int:
        """Return the number of features of a record."""
        return self._shard(int(self.index[0]) // self.size)[1].shape[1]

    def _shard(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return read_features(feature_file(self.stage, number))

    def rows(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return unit float32 [m, D] of some of the records, by their numbers among `index`."""
        rows = np.asarray(rows, np.int64)
        order = np.argsort(rows, kind="stable")
        found = np.empty((len(rows), self.width), np.float16)
        wanted = self.index[rows[order]]
        for number, span in by_shard(wanted, self.size):
            index, features = self._shard(number)
            found[order[span]] = features[np.searchsorted(index, wanted[span])]
        return unit(found)

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Yield unit float32 [size, D] of all records in order, the last block shorter."""
        for start in range(0, len(self), size):
            yield self.rows(np.arange(start, min(start + size, len(self))))


def feature_file(stage: Stage, number: int) -> Path:
    """Return the file of the features of a shard."""
    return stage.folder / f"{number:06d}.arrow"


def unit(features: np.ndarray) -> np.ndarray:
    """Return the features [n, D] as float32 of length 1; those of length 0 stay 0."""
    wide = features.astype(np.float32)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(length, length, 1)
