"""One question with its images, as the loaders of benchmarks give it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from eve_jax.data.image_file import ImageFile
from eve_jax.errors import UserError, shorten
from eve_jax.eval.task import Row, Task

WRONG = (KeyError, IndexError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Item:
    """One question of a benchmark.

    Attributes:
        id: stable and unique within the benchmark.
        row: the row as the task's protocol expects it, without the images.
        images: the images in the order of `Task.images`; they are read when they are opened, and raise `BadImage` then.
        where: FILE#NUMBER, from 1, for messages.
        number: place of the row in the data, from 0, those that are left out included; -1 if it is not known.
    """

    id: str
    row: Row
    images: tuple[ImageFile, ...]
    where: str
    number: int = -1


class NoData(UserError):
    """The data of a benchmark is not there."""


class Rows(Protocol):
    """The rows of a benchmark in a local folder.

    Attributes:
        task: the task, with the files next to the rows (`Task.with_files`).
        left_out: what is not asked, and how many there are (`Task.left_out`).
        digest: hash of the files, which reports state.
    """

    task: Task
    left_out: dict[str, int]
    digest: str

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def __iter__(self) -> Iterator[Item]:
        """Return the items in the order of the data. Raises UserError that names a damaged file or a bad row."""
        ...


class Ids:
    """Gives each row its id: its own, or its number from 0; a second one of the same name gets `#2`."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._seen: Counter[str] = Counter()

    def of(self, row: Row, number: int) -> str:
        """Return the id of a row, which is number `number` of the data."""
        name = self._task.row_id(row) or str(number)
        self._seen[name] += 1
        return name if self._seen[name] == 1 else f"{name}#{self._seen[name]}"


def adapted(task: Task, raw: Row, where: str) -> tuple[Row, list[str]]:
    """Return the row for the task's protocol and the fields of its images. Raises UserError that names what is bad."""
    try:
        row = task.adapt(raw)
        task.prompt(row), task.row_id(row)
        return row, task.images(row)
    except WRONG as error:
        raise UserError(f"{where}: not a row of {task.benchmark} ({reason_of(error)}); {fields_of(raw)}") from None


def reason_of(error: Exception) -> str:
    """Return what is wrong with a row, from the error that it led to."""
    return f"no field {error}" if isinstance(error, KeyError) else shorten(f"{type(error).__name__}: {error}", 200)


def fields_of(row: Iterable[Any]) -> str:
    """Return the names of a row's fields, for messages."""
    return f"its fields are {shorten(', '.join(map(str, row)), 300)}"
