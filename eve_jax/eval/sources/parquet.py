"""Rows of benchmarks in the Hugging Face layout: FOLDER/SPLIT-00000-of-00001.parquet, images as {bytes, path}."""

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from eve_jax.data.image_file import BadImage, ImageFile, StoredImage
from eve_jax.data.record import Recent, digest_of
from eve_jax.errors import UserError, shorten
from eve_jax.eval.sources.base import Ids, Item, adapted
from eve_jax.eval.task import Row, Task

KEPT = 2  # row groups of images
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.parquet$")


class _Cell(NamedTuple):
    """A place of an image: number of the file, row group, row in the group."""

    file: int
    group: int
    row: int


def shards(folder: Path, split: str) -> list[Path]:
    """Return the files of a split in `folder`, sorted; [] for none. Raises UserError where one is missing."""
    found = sorted(folder.glob(f"{split}-*.parquet")) or sorted(folder.glob(f"{split}.parquet"))
    numbers = {int(match[1]): int(match[2]) for path in found if (match := SHARD.search(path.name))}
    total = max(numbers.values(), default=0)
    missing = next((number for number in range(total) if number not in numbers), None)
    if missing is not None:
        name = f"{split}-{missing:05d}-of-{total:05d}.parquet"
        raise UserError(f"{folder}: {name} is missing of {total} files; download it")
    return found


def _is_image(name: str, kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_image(name, kind.value_type)
    if pa.types.is_struct(kind):
        return "bytes" in {field.name for field in kind}
    return name.startswith("image") and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


class _Files:
    """The row groups of Parquet files, with the images' columns read apart and when they are asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self.files = [self._open(path) for path in paths]
        schema = self.files[0].schema_arrow
        self.image_columns = [field.name for field in schema if _is_image(field.name, field.type)]
        self.text_columns = [name for name in schema.names if name not in self.image_columns]
        self._images = Recent(self._column, KEPT)

    def _open(self, path: Path) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
        except Exception as error:  # whatever a damaged footer leads the library to
            raise UserError(_damaged(path, error)) from None

    def _column(self, name: str, file: int, group: int) -> pa.ChunkedArray:
        return self.files[file].read_row_group(group, [name]).column(name)

    def __len__(self) -> int:
        return sum(file.metadata.num_rows for file in self.files)

    def footers(self) -> list[str]:
        """Return name, size and footer of each file, which change with its content."""
        pairs = zip(self.paths, self.files, strict=True)
        return [f"{path.name} {path.stat().st_size} {file.metadata.to_dict()}" for path, file in pairs]

    def groups(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, int, list[Row]]]:
        """Return file, row group and its rows with `columns`, or all without images. Raises UserError."""
        wanted = self.text_columns if columns is None else list(columns)
        for number, (path, file) in enumerate(zip(self.paths, self.files, strict=True)):
            for group in range(file.metadata.num_row_groups):
                try:
                    rows = file.read_row_group(group, wanted).to_pylist()
                except Exception as error:  # whatever damaged pages lead the library to
                    raise UserError(_damaged(path, error)) from None
                yield number, group, rows

    def of(self, cell: _Cell, name: str, where: str) -> list[ImageFile]:
        """Return the images of column `name`, one or a list, to be read when they are opened."""
        if name not in self.image_columns:
            return [StoredImage(f"{where} {name}", partial(_no_image, f"{where} {name}"))]
        kind = self.files[0].schema_arrow.field(name).type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            return [StoredImage(f"{where} {name}", partial(self._read, cell, name, 0))]
        try:
            count = len(self._value(cell, name).as_py() or [])
        except BadImage:
            count = 1  # it fails again when it is opened
        return [StoredImage(f"{where} {name}[{n}]", partial(self._read, cell, name, n)) for n in range(count)]

    def _value(self, cell: _Cell, name: str) -> pa.Scalar:
        try:
            return self._images(name, cell.file, cell.group)[cell.row]
        except Exception as error:  # whatever damaged pages lead the library to
            reason = f"its images cannot be read ({shorten(str(error), 200)}); download it again"
            raise BadImage(reason, self.paths[cell.file]) from None

    def is_null(self, cell: _Cell, name: str) -> bool:
        """Return whether the cell holds no image; one that cannot be read is none of those."""
        try:
            return not self._value(cell, name).is_valid
        except BadImage:
            return False

    def _read(self, cell: _Cell, name: str, number: int) -> BinaryIO:
        value: Any = self._value(cell, name).as_py()
        value = value[number] if isinstance(value, list) else value
        data = value.get("bytes") if isinstance(value, dict) else value
        if not data:
            raise BadImage("has no image", f"{self.paths[cell.file]} {name}")
        return io.BytesIO(data)


def _no_image(name: str) -> BinaryIO:
    raise BadImage("has no image", name)


def _damaged(path: Path, error: Exception) -> str:
    reason = shorten(str(error), 200)
    return f"{path}: not a whole Parquet file ({reason}); download it again"


class ParquetRows:
    """The rows of a task in Parquet files, see `base.Rows`.

    Args:
        task: the task.
        paths: files of the rows, in order.
        image_paths: files of the images where these lie apart (GQA).
    """

    def __init__(self, task: Task, paths: Sequence[Path], image_paths: Sequence[Path] = ()) -> None:
        self.task = task
        self._files = _Files(paths)
        self._apart = _Files(image_paths) if image_paths else None
        self._cells = self._index(self._apart) if self._apart else {}
        self.left_out: dict[str, int] = {}
        if type(task).left_out is not Task.left_out:
            reasons = Counter(task.left_out(row) for _, _, rows in self._files.groups() for row in rows)
            self.left_out = {reason: count for reason, count in reasons.items() if reason}
        self.digest = digest_of([*self._files.footers(), *(self._apart.footers() if self._apart else ())])

    def _index(self, files: _Files) -> dict[str, _Cell]:
        if "id" not in files.text_columns:
            raise UserError(f"{files.paths[0]}: has no column id, by which images are found")
        return {
            str(row["id"]): _Cell(file, group, place)
            for file, group, rows in files.groups(["id"])
            for place, row in enumerate(rows)
        }

    def __len__(self) -> int:
        return len(self._files) - sum(self.left_out.values())

    def __iter__(self) -> Iterator[Item]:
        ids, number = Ids(self.task), -1
        for file, group, rows in self._files.groups():
            path = self._files.paths[file]
            first = sum(self._files.files[file].metadata.row_group(n).num_rows for n in range(group))
            for place, raw in enumerate(rows):
                number += 1
                if not self.task.left_out(raw):
                    yield self._item(raw, _Cell(file, group, place), f"{path}#{first + place + 1}", ids, number)

    def _item(self, raw: Row, cell: _Cell, where: str, ids: Ids, number: int) -> Item:
        if "image" in self._files.image_columns and self._files.is_null(cell, "image"):
            raw = {**raw, "image": None}
        row, names = adapted(self.task, raw, where)
        if self._apart is None:
            images = [image for name in names for image in self._files.of(cell, name, where)]
        else:
            images = self._image_apart(raw, where)
        return Item(ids.of(row, number), row, tuple(images), where, number)

    def _image_apart(self, raw: Row, where: str) -> list[ImageFile]:
        assert self._apart is not None
        key = str(raw.get(self.task.data.image_key))
        if key not in self._cells:
            return [StoredImage(f"{where} {key}", partial(_no_image, f"{where} {key}"))]
        return self._apart.of(self._cells[key], "image", where)
