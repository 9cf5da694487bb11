"""Sources of a user's own: a class that `config.data.records` names as `module:Class`."""

from pathlib import Path
from typing import Any

from eve_jax.data.image_file import ImageFile
from eve_jax.data.record import ROLES, Fields, Record, Source, Turn
from eve_jax.errors import UserError
from eve_jax.process.named import describe_error, make_named

FIELD = "config.data.records"
MEMBERS = ("__len__", "read", "where", "fingerprint", "tables")  # of `eve_jax.data.record.Source`


class OwnSource:
    """The source that the class `name` makes, with what it returns checked: errors name the class and the method.

    The class is called without arguments and has the members of `eve_jax.data.record.Source`. `read` raises `BadRecord`
    for a record that cannot be used; any other exception stops the run. Raises UserError.
    """

    path = None

    def __init__(self, name: str) -> None:
        self.name = name
        self._source: Source = make_named(name, FIELD, MEMBERS, "source")
        length = self._call("__len__")
        self._check(isinstance(length, int) and length >= 0, "__len__()", length, "a whole number of at least 0")
        self._length = length
        fingerprint = self._call("fingerprint")
        self._check(isinstance(fingerprint, str) and fingerprint, "fingerprint()", fingerprint, "a text")
        self._fingerprint = fingerprint
        self.tables: Path | None = self._source.tables
        self._check(self.tables is None or isinstance(self.tables, Path), "tables", self.tables, "a folder or None")

    def __len__(self) -> int:
        return self._length

    def where(self, index: int) -> str:
        """What the class calls the place of a record."""
        place = self._call("where", index)
        self._check(isinstance(place, str), f"where({index})", place, "a text")
        return place

    def read(self, index: int) -> tuple[Record, Fields]:
        """Return what the class returns. Raises its `BadRecord`, and UserError for anything that is no record."""
        found = self._call("read", index)
        about = f"read({index})"
        pair = isinstance(found, tuple) and len(found) == 2
        self._check(pair and isinstance(found[1], Fields), about, found, "a Record and Fields")
        record: Record = found[0]
        self._check(isinstance(record, Record), about, record, "a Record and Fields")
        self._check(isinstance(record.id, str) and isinstance(record.where, str), about, record, "texts id and where")
        images = isinstance(record.images, tuple) and all(isinstance(one, ImageFile) for one in record.images)
        self._check(images, about, record.images, "a tuple of paths or StoredImages as images")
        turns = isinstance(record.turns, tuple) and all(_is_turn(turn) for turn in record.turns)
        roles = ", ".join(dict.fromkeys(ROLES.values()))
        self._check(turns, about, record.turns, f"a tuple of Turns of {roles} with a text as turns")
        return record, found[1]

    def fingerprint(self) -> str:
        """What the class gave as its fingerprint when it was opened."""
        return self._fingerprint

    def _call(self, method: str, *arguments: int) -> Any:
        try:
            return getattr(self._source, method)(*arguments)
        except UserError:  # BadRecord is one
            raise
        except Exception as error:
            call = f"{self.name}.{method}({', '.join(map(str, arguments))})"
            hint = "; it should raise BadRecord for a record that cannot be used" if method == "read" else ""
            raise UserError(f"{FIELD}: {call} failed: {describe_error(error)}{hint}") from error

    def _check(self, good: object, call: str, value: object, expected: str) -> None:
        if not good:
            given = f"{value!r:.100}"
            raise UserError(f"{FIELD}: {self.name}: {call} gives {given} ({type(value).__name__}), not {expected}")


def _is_turn(turn: object) -> bool:
    return isinstance(turn, Turn) and turn.role in ROLES.values() and isinstance(turn.text, str)
