"""JSON files, and paths written into them so that they are found again after a move."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from eve_jax.errors import UserError
from eve_jax.process.strict_json import without_repeats


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file `path`, with or without a byte order mark; raise UserError without one."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` to `path`, which holds all of it or what it held before."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)


class StoredPath(NamedTuple):
    """A path as it is written into a file: relative to the file's folder, and absolute.

    It is found when the file's folder and what it names have moved together, and when either has moved alone.
    """

    relative: str
    absolute: str

    @classmethod
    def of(cls, path: str | Path, folder: Path) -> "StoredPath":
        """Return how to write `path`, relative to the current folder or absolute, into a file in `folder`."""
        absolute = Path(path).resolve()
        return cls(os.path.relpath(absolute, folder.resolve()), str(absolute))

    @classmethod
    def read(cls, entry: Any, file: Path) -> "StoredPath":
        """Return the path that `file` holds as `entry`; raise UserError when that is none."""
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in cls._fields):
            raise UserError(f"{file}: {entry!r} is no path; expected its parts {' and '.join(cls._fields)}")
        return cls(entry["relative"], entry["absolute"])

    def find(self, folder: Path, there: Callable[[Path], bool] = Path.exists) -> Path | None:
        """Return the place that is `there` now, for a file that is now in `folder`; None when neither is."""
        places = (folder.resolve() / self.relative, Path(self.absolute))
        return next((place for place in places if there(place)), None)
