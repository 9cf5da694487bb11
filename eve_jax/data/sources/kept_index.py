"""The index of a large JSON or JSONL file, kept in a file: where its records begin, and the hash of its content.

    the hash of what follows
    one line of JSON: what it is the index of, counts
    the bytes between two noted places, uint32 (uint64 where one needs it)
    line numbers, where they are not 1, 17, 33, ...

It is that of the same content as long as path, size, modification time, change time and inode are the same, and some
pieces of the file. The change time is what makes this safe: the system sets it at every write, and no program can set
it back, as programs can the other time. Within its resolution two writes look like one, so a file that was written
just now is first given time to settle.
"""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from eve_jax.data.record import digest_of
from eve_jax.process.files import write_atomically

VERSION = 1
INDEX = ".index"  # ending of the files
LEAST = 8 << 20  # bytes of a file whose index is kept: a smaller one is read faster than it is compared
EVERY = 16  # records between two noted places
SETTLED = 2.0  # seconds without a write after which the next one has another change time
PIECE, PIECES = 512, 16  # bytes and number of the pieces that are compared


class Index(NamedTuple):
    """Where the records of a file begin: `places` int64 [ceil(records / EVERY)], the first byte of every EVERY-th.

    lines: int64 [as many], the number (from 1) of its line or item; None where record n is number n + 1. fingerprint:
    of the content, as `JsonFile.fingerprint` gives it.
    """

    records: int
    places: np.ndarray
    lines: np.ndarray | None
    fingerprint: str

    def line(self, group: int) -> int:
        """Return the number of the line or item that the record at place `group` is."""
        return 1 + EVERY * group if self.lines is None else int(self.lines[group])


class State(NamedTuple):
    """What tells whether a file is still the one that an index was made of. given: its path and the images' folder."""

    given: tuple[str, str]
    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, file: int, path: str, images: str) -> Self:
        """Return that of the open file `file` as it is now."""
        found = os.fstat(file)
        return cls((path, images), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    @property
    def name(self) -> str:
        """What the file of the index is called."""
        return digest_of(self.given)[:16] + INDEX

    def settle(self) -> bool:
        """Wait until a write would change it; return False where the clocks are so far apart that none helps."""
        age = time.time() - self.changed / 1e9
        if 0 <= age < SETTLED:
            time.sleep(SETTLED - age)
        return age >= 0

    def described(self, file: int) -> list[Any]:
        """Return what is kept of it, with the hash of pieces of the open file."""
        digest = hashlib.blake2b(digest_size=16)
        for number in range(PIECES):
            digest.update(os.pread(file, PIECE, (self.size - PIECE) * number // (PIECES - 1)))
        return [VERSION, EVERY, list(self.given), *self[1:], digest.hexdigest()]


def load_index(folder: Path, state: State, file: int) -> Index | None:
    """Return the index of the open file `file` that is kept in `folder`; None when there is none of its content."""
    if state.size < LEAST:
        return None
    try:
        digest, _, content = (folder / state.name).read_bytes().partition(b"\n")
        if digest.decode() != digest_of([content]):
            return None
        head, _, data = content.partition(b"\n")
        kept = json.loads(head)
        if kept["of"] != state.described(file):
            return None
        count, groups, width = kept["count"], -(-kept["count"] // EVERY), kept["width"]
        steps = np.frombuffer(data, f"<u{width}", groups)
        lines = np.frombuffer(data, "<i8", groups, groups * width) if kept["lines"] else None
        places = np.cumsum(steps, dtype=np.int64)
        if groups and not 0 <= places[0] <= places[-1] < state.size:
            return None
        return Index(count, places, lines, kept["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_index(folder: Path, state: State, file: int, index: Index) -> None:
    """Write the index of the open file `file` into `folder`, for `load_index`."""
    steps = np.diff(index.places, prepend=0)
    width = 4 if steps.max(initial=0) < 1 << 32 else 8
    data = steps.astype(f"<u{width}").tobytes()
    data += b"" if index.lines is None else index.lines.astype("<i8").tobytes()
    head = {"of": state.described(file), "count": index.records, "width": width, "lines": index.lines is not None}
    content = json.dumps(head | {"fingerprint": index.fingerprint}).encode() + b"\n" + data
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / state.name, f"{digest_of([content])}\n".encode() + content)
