"""What a stage leaves on disk: a folder of Parquet shards, named by the hash of all that they depend on.

    OUT/stages/measure-1f0c.../000003.parquet

A shard has its name only when it is complete, so a run that was killed resumes with those that are missing; a stage
whose settings, code version or input changed has another folder, and those before it are used as they are.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eve_jax.data.record import digest_of
from eve_jax.errors import UserError, shorten
from eve_jax.process.files import PART, write_atomically

STAGES = "stages"


def key_of(name: str, version: int, settings: Mapping[str, Any], *inputs: str) -> str:
    """Return the hash of a stage's name, code version, settings and the keys of its input."""
    return digest_of([name, str(version), json.dumps(settings, sort_keys=True, default=list), *inputs])


@dataclass(frozen=True)
class Stage:
    """The output of stage `name` with the key `key` below the folder `out`."""

    out: Path
    name: str
    key: str

    @property
    def folder(self) -> Path:
        """Return the folder of the shards."""
        return self.out / STAGES / f"{self.name}-{self.key[:16]}"

    def shard(self, number: int) -> Path:
        """Return the file of shard `number`."""
        return self.folder / f"{number:06d}.parquet"

    def missing(self, shards: int) -> list[int]:
        """Return the numbers, of `shards`, of those that are not there, and make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return [number for number in range(shards) if not self.shard(number).is_file()]

    def write(self, number: int, columns: Mapping[str, Any], schema: pa.Schema) -> None:
        """Write a shard: complete or not at all."""
        write_parquet(self.shard(number), pa.table(dict(columns), schema))

    def read(self, number: int, columns: list[str] | None = None) -> pa.Table:
        """Return a shard, or some of its columns. Raises UserError for a damaged one."""
        path = self.shard(number)
        try:
            return pq.ParquetFile(path, memory_map=True).read(columns, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} cannot be read ({shorten(str(error), 200)}); remove it, then rerun") from None

    def tables(self, shards: Iterable[int], columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield several shards in order."""
        for number in shards:
            yield self.read(number, columns)


def remove_parts(folder: Path) -> None:
    """Remove the files in a folder that a killed process left unfinished."""
    for part in folder.glob(f"*{PART}"):
        part.unlink(missing_ok=True)


def write_parquet(path: Path, table: pa.Table, files: str = "") -> None:
    """Write `table` to the file `path`: complete or not at all.

    files: the column, as Parquet calls it, of files that are compressed already.
    """
    compression = dict.fromkeys(table.column_names, "zstd") | ({files: "none"} if files else {})
    dictionary = [name for name in table.column_names if not files.startswith(name)] if files else True
    write_atomically(path, lambda part: pq.write_table(table, part, compression=compression, use_dictionary=dictionary))
