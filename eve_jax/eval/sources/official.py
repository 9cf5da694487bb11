"""Rows of benchmarks in the layouts of their authors and of EVE's scripts: JSON, JSONL or TSV, and a folder of images.

A `Layout` says which files of a folder make the rows; names are patterns, so that LLaVA's and EVE's question files are
both found. Readers give the rows of the `eve` protocol: the line of the question file with its annotation.
"""

import base64
import binascii
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from eve_jax.data.image_file import BadImage, ImageFile, StoredImage
from eve_jax.data.record import BadRecord, digest_of
from eve_jax.data.sources.image_refs import find_file
from eve_jax.errors import UserError, shorten
from eve_jax.eval.sources.base import WRONG, Ids, Item, adapted, fields_of, reason_of
from eve_jax.eval.task import Row, Task
from eve_jax.process.files import read_text
from eve_jax.process.strict_json import without_repeats

Found = dict[str, list[Path]]


@dataclass(frozen=True)
class Layout:
    """An official layout.

    Attributes:
        files: names -> patterns below the folder, of which the first that matches is taken; all must be there.
        rows: the files that were found -> the rows.
        images: folders that the rows' `image` may be relative to, below the benchmark's folder.
        optional: further names -> patterns, which may be absent.
        extras: the files that were found -> what `Task.with_files` takes.
    """

    files: dict[str, tuple[str, ...]]
    rows: Callable[[Found], Iterator[Row]]
    images: tuple[str, ...] = ("", "images")
    optional: dict[str, tuple[str, ...]] = field(default_factory=dict)
    extras: Callable[[Found], dict[str, Any]] = lambda found: {}

    def find(self, folder: Path) -> Found | None:
        """Return the files of the layout below `folder`; None if one is not there."""
        found = {name: _first(folder, patterns) for name, patterns in (self.files | self.optional).items()}
        return None if any(not found[name] for name in self.files) else found


def _first(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files of the first of `patterns` that has any; a pattern is one or several, joined by `|`."""
    named = ((path for part in pattern.split("|") for path in folder.glob(part)) for pattern in patterns)
    kinds = (sorted(path for path in paths if path.is_file() or path.is_dir()) for paths in named)  # no pipes
    return next((paths for paths in kinds if paths), [])


def read_lines(path: Path) -> list[Row]:
    """Return the objects of a JSONL file. Raises UserError that names file and line."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            rows.append(_object(_parsed(line, f"{path}#{number}"), f"{path}#{number}"))
    return rows


def read_whole(path: Path) -> Any:
    """Return the value of a JSON file. Raises UserError that names the file."""
    return _parsed(read_text(path), str(path))


def read_table(path: Path) -> Iterator[Row]:
    """Return the rows of a TSV file; empty cells are None. Raises UserError that names file and row."""
    csv.field_size_limit(sys.maxsize)
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream, delimiter="\t"), 1):
                if None in row or None in row.values():
                    raise UserError(f"{path}#{number}: not as many cells as columns; download the file again")
                yield {key: value or None for key, value in row.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({shorten(str(error), 200)})") from None


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({shorten(str(error), 200)})") from None


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{where}: not a JSON object")
    return value


class OfficialRows:
    """The rows of a task in an official layout, see `base.Rows`; they are read at once, images when opened.

    Args:
        task: the task.
        layout: the layout.
        folder: folder of the benchmark.
        found: its files, by `Layout.find`.
    """

    def __init__(self, task: Task, layout: Layout, folder: Path, found: Found) -> None:
        self._folder, self._layout = folder, layout
        files = [path for paths in found.values() for path in paths]
        self._name = str(next(iter(found.values()))[0])
        try:
            self.task = task.with_files(layout.extras(found))
            rows = list(layout.rows(found))
        except WRONG as error:
            raise UserError(f"{self._name}: not {task.benchmark}'s official files ({reason_of(error)})") from None
        asked = [(number, row) for number, row in enumerate(rows, 1) if not task.left_out(row)]
        reasons = [reason for row in rows if (reason := task.left_out(row))]
        self.left_out = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
        self._rows = asked
        self.digest = digest_of(f"{path.name} {path.stat().st_size}" for path in files)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Item]:
        ids = Ids(self.task)
        for number, raw in self._rows:
            where = f"{self._name}#{number}"
            encoded = raw.get("image") if "index" in raw else None  # MMBench's tables hold the images
            row, names = adapted(self.task, {k: v for k, v in raw.items() if k != "image"} if encoded else raw, where)
            images = tuple(self._image(raw, encoded, where) for _ in names)
            yield Item(ids.of(row, number - 1), row, images, where, number - 1)

    def _image(self, raw: Row, encoded: str | None, where: str) -> ImageFile:
        if encoded:
            return StoredImage(f"{where} image", partial(_decoded, encoded, where))
        name = raw.get("image", raw.get("img_path"))
        if not isinstance(name, str) or not name:
            raise UserError(f"{where}: names no image; {fields_of(raw)}")
        try:
            return find_file(name, [str(self._folder / folder) for folder in self._layout.images])
        except BadRecord as error:
            raise UserError(f"{where}: {error.reason}") from None


def _decoded(text: str, where: str) -> BinaryIO:
    try:
        return io.BytesIO(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise BadImage("is not valid base64", f"{where} image") from None
