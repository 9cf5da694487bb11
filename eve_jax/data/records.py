"""Records of a dataset: one conversation with its images, read from LLaVA JSON or JSONL files.

    {"id": "42", "image": "a.jpg" | ["a.jpg", "b.jpg"] | absent,
     "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A bus."}]}

A file is opened once and its records are parsed one at a time, when asked for: a record that is broken raises
`BadRecord` on access and leaves the others alone.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np

from eve_jax.errors import UserError

Role = Literal["system", "human", "gpt"]
ROLES: dict[str, Role] = {"system": "system", "human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}
SCAN_BYTES = 1 << 24


class BadRecord(UserError):
    """A record that cannot be used: `reason`, and where known `where` (file:line), `id` and `image` (path)."""

    def __init__(self, reason: str, where: str = "", id: str = "", image: str = "") -> None:
        label = " ".join(part for part in (where, f"(record {id})" if id else "") if part)
        super().__init__(f"{label}: {reason}" if label else reason)
        self.reason, self.where, self.id, self.image = reason, where, id, image


class Turn(NamedTuple):
    """One turn of a conversation; `text` may hold `<image>` markers."""

    role: Role
    text: str


class Record(NamedTuple):
    """One conversation; `images` are paths, `where` is file:line (JSONL) or file#number (JSON array), from 1."""

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    where: str


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise BadRecord(f"{what} is not a text but {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRecord(f"{what} is not valid UTF-8") from None
    return value


def _turn(raw: object, number: int) -> Turn:
    if not isinstance(raw, dict):
        raise BadRecord(f"turn {number} is not an object")
    role = ROLES.get(str(raw.get("from")))
    if role is None:
        raise BadRecord(f"turn {number} is from {raw.get('from')!r}, not one of human, gpt, system")
    return Turn(role, _text(raw.get("value"), f"the value of turn {number}"))


def _images(raw: object, folder: str) -> tuple[str, ...]:
    if raw is None or raw == "":
        return ()
    paths = raw if isinstance(raw, list) else [raw]
    if not all(isinstance(path, str) and path and "\0" not in path for path in paths):
        raise BadRecord("image is neither a path nor a list of paths")
    return tuple(os.path.join(folder, _text(path, "an image path")) for path in paths)


def parse_record(raw: object, where: str, images_dir: str, fallback_id: str) -> Record:
    """The record that the JSON value `raw` describes; `BadRecord` names what is wrong with it."""
    id = fallback_id
    try:
        if not isinstance(raw, dict):
            raise BadRecord(f"not an object but {type(raw).__name__}")
        if raw.get("id") is not None:
            id = _text(str(raw["id"]), "id")
        turns = raw.get("conversations")
        if not isinstance(turns, list) or not turns:
            raise BadRecord("no conversations" if not turns else "conversations is not a list")
        images = _images(raw.get("image"), images_dir)
        return Record(id, images, tuple(_turn(turn, n) for n, turn in enumerate(turns, 1)), where)
    except BadRecord as e:
        raise BadRecord(e.reason, where, id) from None


class _Lines:
    """A JSONL file as an index of byte offsets; lines are read and parsed when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY)  # never closed: shared by the threads through os.pread
        self.start, self.stop, self.line = _scan_lines(self._file)

    def __len__(self) -> int:
        return len(self.start)

    def where(self, index: int) -> str:
        return f"{self.path}:{self.line[index]}"

    def raw(self, index: int) -> Any:
        start = int(self.start[index])
        data = os.pread(self._file, int(self.stop[index]) - start, start).removeprefix(b"\xef\xbb\xbf")
        text = data.decode("utf-8", "surrogateescape")  # a bad byte is reported with the record's id, by `_text`
        try:
            return json.loads(text)
        except ValueError as e:
            found = re.search(r'"id"\s*:\s*"?([^",}]*)', text)
            id = found.group(1).encode("utf-8", "replace").decode() if found else ""
            raise BadRecord(f"not valid JSON ({e})", self.where(index), id) from None
        except RecursionError:
            raise BadRecord("not valid JSON (nested too deeply)", self.where(index)) from None


class _Array:
    """A JSON file that holds one array, parsed at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._items: list[Any] = json.loads(path.read_bytes().decode("utf-8-sig", "surrogateescape"))
        except ValueError as e:
            raise UserError(
                f"{path}: not valid JSON ({e}); mend the file, or write one record a line (JSONL)"
            ) from None

    def __len__(self) -> int:
        return len(self._items)

    def where(self, index: int) -> str:
        return f"{self.path}#{index + 1}"

    def raw(self, index: int) -> Any:
        return self._items[index]


def _scan_lines(file: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Byte offsets (int64) of the first byte and of the end of each line that is not blank, and its number from 1."""
    ends = []
    position = 0
    while block := os.pread(file, SCAN_BYTES, position):
        ends.append(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + position)
        position += len(block)
    end = np.concatenate([*ends, [position]]).astype(np.int64)
    start = np.concatenate([[0], end[:-1] + 1])
    keep = end > start
    for index in np.flatnonzero(keep & (end - start < 16)):  # too short for a record: perhaps nothing but spaces
        keep[index] = bool(os.pread(file, int(end[index] - start[index]), int(start[index])).strip())
    return start[keep], end[keep], (np.flatnonzero(keep) + 1).astype(np.int32)


def _open_file(path: Path) -> _Lines | _Array:
    if not path.is_file():
        raise UserError(f"{path}: no such records file; set config.data.records to existing JSON or JSONL files")
    try:
        with path.open("rb") as file:
            head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        return _Array(path) if head.startswith(b"[") else _Lines(path)
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from None


class Records(Sequence[Record]):
    """The records of one or more files, in order. Access is thread-safe and raises `BadRecord` for a broken one."""

    def __init__(self, paths: Sequence[str | Path], images_dir: str | Path = "") -> None:
        self.paths = [Path(path) for path in paths]
        self.images_dir = str(images_dir)
        self._files = [_open_file(path) for path in self.paths]
        self._first = np.cumsum([0] + [len(file) for file in self._files])
        if not len(self):
            raise UserError(f"{', '.join(map(str, self.paths))}: no records")

    def __len__(self) -> int:
        return int(self._first[-1])

    def _locate(self, index: int) -> tuple[_Lines | _Array, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        return self._files[number], index - int(self._first[number])

    def where(self, index: int) -> str:
        """Where record `index` stands: file:line or file#number."""
        file, local = self._locate(index)
        return file.where(local)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        file, local = self._locate(int(index) + (len(self) if index < 0 else 0))
        where = file.where(local)
        return parse_record(file.raw(local), where, self.images_dir, where.rpartition("/")[2])

    def __iter__(self) -> Iterator[Record]:
        for index in range(len(self)):
            yield self[index]


def open_records(records: str, images_dir: str | Path = "") -> Records:
    """Opens the LLaVA files `records` (comma separated JSON or JSONL paths); images are relative to `images_dir`."""
    paths = [path.strip() for path in records.split(",") if path.strip()]
    if not paths:
        raise UserError("config.data.records is empty: name one or more JSON or JSONL files")
    if images_dir and not Path(images_dir).is_dir():
        raise UserError(f"{images_dir}: no such folder; set config.data.images to the one that image paths start from")
    return Records(paths, images_dir)
