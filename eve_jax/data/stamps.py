"""What shows that a record or an image file is still the one that was measured: hashes of texts, stamps of files.

A stamp is cheap: the size, the modification time, and a checksum of the file's ends. The time is only a shortcut: a
file that was copied or touched has another one and the same checksum, and counts as the same.
"""

import hashlib
import os
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from eve_jax.data.images import BadImage, ImageFile, StoredImage, open_binary
from eve_jax.data.sources.base import Record

PIECE = 1 << 15  # bytes at either end of a file that its checksum covers
_SIZE = 0xFFFFFFFF  # sizes are kept modulo 2**32


class Stamp(NamedTuple):
    """Of an image file: `size` in bytes, CRC-32 of its content, modification `time` in nanoseconds.

    checksum: of a file over 64 KB, that of its first and last 32 KB. time: 0 for an image inside another file.
    """

    size: int
    checksum: int
    time: int


UNOPENED = Stamp(0, 0, 0)  # of an image that its source vouches for: prepared records have hashes of their own


class Seen(NamedTuple):
    """What an entry of a lengths table was measured on: the hash of its texts, the stamps of its images."""

    text: int
    stamps: list[Stamp]


@dataclass(frozen=True, eq=False)
class SeenTable:
    """What the n entries of a lengths table, their I images and the d records left out were measured on.

    texts: uint64 [n], `text_hash`. files: uint32 [I, 2], size and checksum. times: int64 [I]. left_out: int32 [d],
    indices of records. left_out_files: uint64 [d], `files_hash` of their images.
    """

    texts: np.ndarray
    files: np.ndarray
    times: np.ndarray
    left_out: np.ndarray
    left_out_files: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[int], stamps: Sequence[Stamp], left_out: Sequence[tuple[int, int]]) -> Self:
        """Return the table of these hashes of texts, stamps, and (record, hash of its files) of those left out."""
        sizes, checksums, times = np.array(stamps, np.int64).reshape(-1, 3).T
        indices, hashes = zip(*left_out, strict=True) if left_out else ((), ())
        return cls(
            np.array(texts, np.uint64),
            np.stack([sizes, checksums], axis=1).astype(np.uint32),
            times.copy(),
            np.array(indices, np.int32),
            np.array(hashes, np.uint64),
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the table of several parts, in that order."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def moved(self, by: int) -> Self:
        """Return the table of records whose indices are `by` larger."""
        return replace(self, left_out=self.left_out + np.int32(by))


SEEN = tuple(f.name for f in fields(SeenTable))


def text_hash(record: Record) -> int:
    """Return 64 bits that stand for the turns of a record and the number of its images."""
    text = repr((len(record.images), [(turn.role, turn.text) for turn in record.turns]))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def stamp_of(file: ImageFile) -> Stamp:
    """Return the stamp of an image file as it is now. Raises `BadImage` when it cannot be read."""
    if isinstance(file, StoredImage) and file.size is not None:
        return UNOPENED
    with open_binary(file) as stream:
        try:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            checksum = zlib.crc32(stream.read(min(size, PIECE)))
            stream.seek(max(PIECE, size - PIECE))
            checksum = zlib.crc32(stream.read(PIECE), checksum)
        except Exception as e:  # whatever the source's library raises
            raise BadImage(f"cannot be read ({type(e).__name__}: {e})", file) from None
        try:
            time = _time(os.fstat(stream.fileno()))
        except OSError:  # io.UnsupportedOperation: it lies inside another file
            time = 0
    return Stamp(size & _SIZE, checksum, time)


def is_changed(file: ImageFile, known: Stamp) -> bool:
    """Return whether an image file differs from what was measured. Raises `BadImage` when it cannot be read.

    An image inside another file counts as unchanged: its source tells.
    """
    if not known.time:
        return False
    if isinstance(file, str | Path):
        with suppress(OSError, ValueError):
            found = os.stat(file)
            if (found.st_size & _SIZE, _time(found)) == (known.size, known.time):
                return False
    return stamp_of(file)[:2] != known[:2]


def _time(status: os.stat_result) -> int:
    return status.st_mtime_ns or 1  # archives unpack to files of the time 0, too


def files_hash(files: Iterable[ImageFile]) -> int:
    """Return 64 bits that stand for which of the files given by a path are there, their sizes and times."""
    found: list[tuple[int, int] | None] = []
    for file in files:
        if isinstance(file, str | Path):
            try:
                status = os.stat(file)
                found.append((status.st_size, status.st_mtime_ns))
            except (OSError, ValueError):
                found.append(None)
    return int.from_bytes(hashlib.blake2b(repr(found).encode(), digest_size=8).digest(), "little")
