"""What shows that a record or an image file is still the one that was measured: hashes of texts, stamps of files.

A stamp is cheap: the size, the modification time, and a checksum of pieces of the file. The time is only a shortcut: a
file that was copied or touched has another one and the same checksum, and counts as the same.
"""

import hashlib
import os
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from eve_jax.data.image_file import BadImage, ImageFile, StoredImage, open_binary
from eve_jax.data.plan.measured_on import UNOPENED, Stamp
from eve_jax.data.record import Record

PIECE = 1 << 15  # bytes at either end of a file that its checksum covers
BETWEEN, SHORT = 14, 1 << 12  # evenly spaced pieces between them, and their bytes: an image may be edited in its midst
_SIZE = 0xFFFFFFFF  # sizes are kept modulo 2**32


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
            for place in _between(size):
                stream.seek(place)
                checksum = zlib.crc32(stream.read(SHORT), checksum)
            stream.seek(max(PIECE, size - PIECE))
            checksum = zlib.crc32(stream.read(PIECE), checksum)
        except Exception as e:  # whatever the source's library raises
            raise BadImage(f"cannot be read ({type(e).__name__}: {e})", file) from None
        try:
            time = _time(os.fstat(stream.fileno()))
        except OSError:  # io.UnsupportedOperation: it lies inside another file
            time = 0
    return Stamp(size & _SIZE, checksum, time)


def _between(size: int) -> list[int]:
    """Return where the pieces between the ends of a file of `size` bytes begin; none where the ends are all of it."""
    room = size - 2 * PIECE
    return [PIECE + (2 * n + 1) * room // (2 * BETWEEN) for n in range(BETWEEN)] if room > 0 else []


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
