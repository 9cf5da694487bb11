"""WebDataset tar files: neighbours of one name up to the first dot make a record (`key.jpg`, `key.json`, `key.txt`).

`key.json` holds a LLaVA record (`conversations`) or a `caption`; `key.txt` is a caption; any number of images, in the
order in which they lie in the file, whatever the JSON calls them.
"""

import os
import tarfile
from array import array
from collections.abc import Iterator
from functools import partial
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import BinaryIO

import numpy as np

from eve_jax.data.images import StoredImage
from eve_jax.data.sources.base import BadRecord, Record, digest_of, make_record
from eve_jax.data.sources.json_files import parse_json
from eve_jax.errors import UserError

IMAGES = {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "jp2", "avif"}
_JSON, _TEXT, _IMAGE = 0, 1, 2
KIND = {"json": _JSON, "txt": _TEXT, **dict.fromkeys(IMAGES, _IMAGE)}


class TarFile:
    """The records of a tar file that is not compressed, see `base.Source`; members are found by their offsets."""

    tables: Path | None = None

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{path}: no such records file; set config.data.records to files that exist")
        self._file = os.open(path, os.O_RDONLY)  # never closed: shared by the threads through os.pread
        self._size = os.fstat(self._file).st_size
        members, first, keys = array("q"), array("q", [0]), bytearray()
        key_ends = array("q", [0])
        last = None
        for key, kind, offset, size in _members(self.path):
            if key != last:
                if last is not None:
                    first.append(len(members) // 3)
                keys += key.encode("utf-8", "surrogateescape")
                key_ends.append(len(keys))
                last = key
            members.extend((kind, offset, size))
        if last is not None:
            first.append(len(members) // 3)
        self._members = np.frombuffer(members, np.int64).reshape(-1, 3)  # kind, offset, bytes
        self._first, self._key_ends = np.frombuffer(first, np.int64), np.frombuffer(key_ends, np.int64)
        self._keys = bytes(keys)

    def __len__(self) -> int:
        return len(self._first) - 1

    def _key(self, index: int) -> str:
        return self._keys[self._key_ends[index] : self._key_ends[index + 1]].decode("utf-8", "replace")

    def where(self, index: int) -> str:
        """file.tar#key."""
        return f"{self.path}#{self._key(index)}"

    def record(self, index: int) -> Record:
        """The record. Raises `BadRecord`."""
        where, key = self.where(index), self._key(index)
        members = self._members[self._first[index] : self._first[index + 1]].tolist()
        if any(offset + size > self._size for _, offset, size in members):
            raise BadRecord("the tar file ends within it", where, key)
        raw: dict = {}
        for kind, offset, size in members:
            data = b"" if kind == _IMAGE else os.pread(self._file, size, offset)
            if kind == _JSON:
                found = parse_json(data, where)
                raw = raw | {k: v for k, v in found.items() if v is not None} if isinstance(found, dict) else found
            elif kind == _TEXT and isinstance(raw, dict):
                raw = {"caption": data.decode("utf-8", "surrogateescape").strip(), **raw}
        images = tuple(
            StoredImage(f"{where}[{number}]", partial(self._stream, offset, size))
            for number, (_, offset, size) in enumerate((m for m in members if m[0] == _IMAGE), 1)
        )
        return make_record(raw, where, key, lambda _: images)

    def _stream(self, offset: int, size: int) -> BinaryIO:
        return BufferedReader(_Window(self._file, offset, size), 1 << 14)

    def fingerprint(self) -> str:
        """Hash of the members' names, places and sizes, the file's name and when it was changed."""
        parts: list[str | bytes] = [
            str(self.path),
            str(os.fstat(self._file).st_mtime_ns),
            self._keys,
            self._members.tobytes(),
        ]
        return digest_of(parts)


def _members(path: Path) -> Iterator[tuple[str, int, int, int]]:
    """Key, kind, offset and size of every member that can belong to a record."""
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := _next(tar)) is not None:
                folder, slash, name = member.name.rpartition("/")
                stem, _, endings = name.partition(".")
                kind = KIND.get(endings.rpartition(".")[2].lower())
                if member.isfile() and stem and kind is not None:
                    yield folder + slash + stem, kind, member.offset_data, member.size
    except tarfile.TarError as e:
        raise UserError(f"{path}: not a tar file that can be read in place ({e}); is it compressed?") from None
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from None


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    tar.members = []  # type: ignore[attr-defined]  # or it keeps a description of every member
    try:
        return tar.next()
    except tarfile.ReadError:  # the file is cut off: what is whole can be used
        return None


class _Window(RawIOBase):
    """Part of a file as a file of its own, which shares nothing with others but the descriptor."""

    def __init__(self, file: int, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("seek before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        wanted = max(min(len(buffer), self._size - self._at), 0)
        data = os.pread(self._file, wanted, self._start + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
