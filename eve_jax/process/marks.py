"""Marks: what was found out about a large file, kept so that it need not be read for it again while it is the same.

They lie in the user's own folder for caches, never next to the file, which may be of somebody else. A file is the same
as long as path, size, modification time, change time and inode are: the system sets the change time at every write, and
no program can set it back.
"""

import contextlib
import hashlib
import json
import os
import stat
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

from eve_jax.process import caches
from eve_jax.process.files import write_atomically

FOLDER = "checked"  # below that of caches
LEAST = 1 << 16  # bytes of a file that is marked: a smaller one is read as fast as its mark
LARGEST = 1 << 16  # bytes of a mark
MOST = 1000  # marks that are kept, the newest
SETTLED = 2.0  # seconds without a write after which the next one has another change time


class Mark(NamedTuple):
    """The mark of a file as it was when it was opened. of: what tells that it is still the same, and what was asked."""

    of: list[Any]
    name: str
    size: int
    changed: int

    @classmethod
    def of_file(cls, file: int, path: Path, what: list[str | int], wait: bool = False) -> Self:
        """Return that of the open file `file` at `path` for the question `what`, to be made before the file is read.

        wait: until a write would be seen (at most SETTLED seconds); a file written just now is not marked otherwise.
        """
        found = os.fstat(file)
        age = time.time() - found.st_ctime_ns / 1e9
        if wait and 0 <= age < SETTLED and found.st_size >= LEAST:
            time.sleep(SETTLED - age)
            found = os.fstat(file)
        place = os.path.abspath(path)
        name = hashlib.blake2b(f"{found.st_ino} {place}".encode(errors="surrogateescape"), digest_size=16).hexdigest()
        of = [place, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, *what]
        return cls(of, f"{name}.json", found.st_size, found.st_ctime_ns)

    def kept(self) -> str | None:
        """Return what was kept of the file; None when nothing was of it as it is now, or the mark cannot be read."""
        folder = caches.own_folder(FOLDER) if self.size >= LEAST else None
        if folder is None:
            return None
        try:
            kept = json.loads(_own_text(folder / self.name))
            return str(kept["kept"]) if kept["of"] == self.of else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def keep(self, file: int, found: str) -> None:
        """Keep `found` of the open file `file`, unless it was written since this was made or just before."""
        now, since = os.fstat(file), time.time() - self.changed / 1e9
        same = (now.st_size, now.st_ctime_ns) == (self.size, self.changed)
        folder = caches.own_folder(FOLDER) if self.size >= LEAST and same and since >= SETTLED else None
        if folder is not None:
            with contextlib.suppress(OSError, UnicodeError):  # what cannot be kept is found out again
                write_atomically(folder / self.name, json.dumps({"of": self.of, "kept": found}) + "\n")
                _remove_old(folder)


def _own_text(path: Path) -> str:
    """Return the text of a mark. Raises OSError, and ValueError for what this user did not write as one."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_size > LARGEST:
            raise ValueError("no mark")
        return os.read(file, LARGEST).decode()
    finally:
        os.close(file)


def _remove_old(folder: Path) -> None:
    marks = list(folder.iterdir())
    if len(marks) > MOST:
        for old in sorted(marks, key=lambda mark: mark.stat().st_mtime)[:-MOST]:
            old.unlink(missing_ok=True)
