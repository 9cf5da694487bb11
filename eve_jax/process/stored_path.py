"""Paths in files, which are found again after a move."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from eve_jax.errors import UserError
from eve_jax.process import places
from eve_jax.process.fetched import fetch
from eve_jax.process.published import published


class StoredPath(NamedTuple):
    """A path as it is written into a file: relative to the file's folder, and absolute.

    It is found when the file's folder and what it names have moved together, and when either has moved alone.
    """

    relative: str
    absolute: str

    @classmethod
    def of(cls, path: str | Path, folder: Path) -> "StoredPath":
        """Return how to write `path`, relative to the current folder or absolute, into a file in `folder`."""
        absolute, start = Path(path).resolve(), folder.resolve()
        url, start_url = places.url_of(absolute), places.url_of(start)
        if url and start_url:  # copies of both kinds lie next to each other in the bucket
            return cls(os.path.relpath(url, start_url), url)
        return cls(os.path.relpath(absolute, start), url or str(absolute))

    @classmethod
    def read(cls, entry: Any, file: Path) -> "StoredPath":
        """Return the path that `file` holds as `entry`; raise UserError when that is none."""
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in cls._fields):
            raise UserError(f"{file}: {entry!r} is no path; expected its parts {' and '.join(cls._fields)}")
        return cls(entry["relative"], entry["absolute"])

    def find(self, folder: Path, there: Callable[[Path], bool] = Path.exists) -> Path | None:
        """Return the place that is `there` now, for a file that is now in `folder`; None when neither is.

        What is in a bucket is fetched; of a folder in one, `relative` leads to what is next to it in the bucket.
        """
        return next((place for place in self._places(folder.resolve()) if there(place)), None)

    def _places(self, folder: Path) -> Iterator[Path]:
        url, beside = places.url_of(folder), folder / self.relative
        if url is None or published(Path(os.path.normpath(beside))):
            yield beside
        else:
            with suppress(UserError):
                yield Path(fetch(places.join(url, self.relative)))
        if places.is_url(self.absolute):
            with suppress(UserError):
                yield Path(fetch(self.absolute))
        else:
            yield Path(self.absolute)
