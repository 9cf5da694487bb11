"""Copies of SQLite databases that are whole while other threads or programs write them."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from eve_jax.process.files import in_place_of

BESIDE = ("-journal", "-wal", "-shm")  # ends of the names of files that belong to a database: they are in no copy
_HEAD = b"SQLite format 3\x00"
_PATIENCE = 30.0  # seconds to wait for who writes


def is_beside(name: str) -> bool:
    """Return whether a file of that name is a part of what SQLite has not written into a database yet."""
    return name.endswith(BESIDE)


def has_more(path: Path) -> bool:
    """Return whether what was written into the database `path` may still lie next to it."""
    return any(path.with_name(f"{path.name}{end}").exists() for end in BESIDE[:2])


@contextmanager
def copied(path: Path, folder: Path) -> Iterator[Path]:
    """Yield a file with what is in `path` now: of a SQLite database a copy in `folder`, of others `path` itself.

    Raises OSError, also where a writer does not let go of the database.
    """
    with path.open("rb") as file:
        is_database = file.read(len(_HEAD)) == _HEAD
    if not is_database:
        yield path
        return
    part = folder / f".{path.name}.copy"
    try:
        with in_place_of(part) as made:
            _backup(path, made)
        yield part
    finally:
        part.unlink(missing_ok=True)


def _backup(path: Path, target: Path) -> None:
    url = f"file:{quote(str(path.resolve()))}?mode=rw"  # a reader alone may not finish what a killed writer began
    try:
        with (
            closing(sqlite3.connect(url, uri=True, timeout=_PATIENCE)) as source,
            closing(sqlite3.connect(target)) as to,
        ):
            source.backup(to)
    except sqlite3.Error as error:
        raise OSError(errno.EBUSY, f"the database cannot be copied ({error})", str(path)) from error
