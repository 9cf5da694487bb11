"""One question with its images, as the loaders of benchmarks give it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from eve_jax.eval.task import Row, Task


@dataclass(frozen=True)
class Item:
    """One question of a benchmark.

    Attributes:
        id: stable and unique within the benchmark (`Task.row_id`).
        row: the row as the task's protocol expects it, without the images.
        images: the encoded images, as bytes or as files, in the order of `Task.images`.
        where: FILE#NUMBER or the like, for messages.
    """

    id: str
    row: Row
    images: tuple[bytes | Path, ...]
    where: str


class Rows(Protocol):
    """The rows of a benchmark in a local folder.

    Attributes:
        task: the task, with the files next to the rows (`Task.with_files`).
        skipped: reasons for which rows are left out, with how many (video questions of SEED-Bench).
        digest: hash of the files, which reports state.
    """

    task: Task
    skipped: dict[str, int]
    digest: str

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def __iter__(self) -> Iterator[Item]:
        """Return the items in the order of the data. Raises UserError that names a damaged file."""
        ...
