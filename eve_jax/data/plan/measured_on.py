"""What a table of lengths was measured on: hashes of texts, stamps of image files."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, Self

import numpy as np


class Stamp(NamedTuple):
    """Of an image file: `size` in bytes, CRC-32 of its content, modification `time` in nanoseconds.

    checksum: of a file over 64 KB, that of its first and last 32 KB and 14 pieces of 4 KB between. time: 0 for an image
        inside another file.
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
