"""The list of records that could not be used: bad_records.jsonl."""

import json
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eve_jax.data.plan.lengths import Dropped
from eve_jax.errors import Field, FieldError, UserError, amount
from eve_jax.process.files import write_atomically

BAD_RECORDS_FILE = "bad_records.jsonl"
FIELDS = {"where", "id", "image", "reason", "found"}
FLOOR = 1000  # records that may break in any case where `max_bad` is a share


class BadRecords:
    """Keeps {"where", "id", "image", "reason", "found"} lines in `folder`/bad_records.jsonl; safe for threads.

    An entry is listed once, also when a run is resumed. `found` is "preparing" or "planning" (the record was left out)
    or "training" (its slots stay, its loss is masked); more than `max_bad` records of the latter stop the run. A
    `max_bad` below 1 is a share of the records `seen`, which whoever trains on them counts, and of at least FLOOR.
    Where the file of `where` is gone, since the data was moved, a record that breaks again takes the entry's place.
    Raises `UserError` when the file cannot be read or written.
    """

    seen = 0  # records that the run has come to so far, on all hosts; a record that comes again counts once

    def __init__(self, folder: str | Path, max_bad: float) -> None:
        self.path = Path(folder) / BAD_RECORDS_FILE
        self.max_bad = max_bad
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._named():
            lines, whole = self._read()
            if not whole:  # a run was killed while writing it
                self._write(lines)
        self._set(lines)

    @property
    def count(self) -> int:
        """Number of records that broke while training."""
        return len(self._broken)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Raise `UserError`, which names the file, for an OSError."""
        try:
            yield
        except OSError as e:
            raise UserError(
                f"{self.path}: cannot be read or written ({e.strerror or e}); the records left out are listed there: "
                "remove it, or make it a file that can be written"
            ) from None

    def _read(self) -> tuple[list[str], bool]:
        """Lines of the file that hold an entry, and whether there is nothing else."""
        if not self.path.exists():
            return [], True
        text = self.path.read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.split("\n") if _entry(line)]
        return lines, text == _text(lines)

    def _write(self, lines: list[str]) -> None:
        write_atomically(self.path, _text(lines))

    def _set(self, lines: list[str]) -> None:
        self._listed = set(lines)
        self._reported: set[tuple[str, ...]] = set()
        broken = [(line, entry) for line in lines if (entry := _entry(line))["found"] == "training"]
        self._broken = {entry["where"] for _, entry in broken}
        self._gone = {_moving(**entry): line for line, entry in broken if not _origin(entry["where"]).exists()}

    def begin(self, dropped: Iterable[Dropped], resumed: bool = False, found: str = "planning") -> None:
        """List what a plan leaves out in place of what an earlier one did; the file is replaced atomically.

        What broke while training stays listed when the run is `resumed`.
        """
        with self._lock, self._named():
            kept = [line for line in self._read()[0] if _entry(line)["found"] == "training"] if resumed else []
            lines = list(dict.fromkeys([*(_line(*one, found) for one in dropped), *kept]))
            if lines or self.path.exists():
                self._write(lines)
            self._set(lines)

    def report_dropped(self, dropped: Iterable[Dropped], found: str = "planning") -> None:
        """List more records that were left out while planning; the file is opened once."""
        with self._lock:
            self._list([(*one, found) for one in dropped])

    def report(self, where: str, id: str, image: str, reason: str, found: str = "training") -> None:
        """List one record. Raises `UserError` when too many were found while training, see `max_bad`."""
        with self._lock:
            self._list([(where, id, image, reason, found)])
            if found != "training":
                return
            self._broken.add(where)
            if self.count > self.most:
                last = Dropped(f"{where} (record {id})", id, image, reason)
                raise FieldError(
                    f"{amount(self.count, 'record')} broke while training, more than ",
                    Field("data.max_bad"),
                    f"={self.max_bad:g}{self._share()}; the last: {last.described}; all are listed in {self.path}",
                )

    @property
    def most(self) -> int:
        """How many records may break while training, by what was `seen` so far."""
        return int(self.max_bad) if not 0 < self.max_bad < 1 else max(FLOOR, int(self.max_bad * self.seen))

    def _share(self) -> str:
        if not 0 < self.max_bad < 1:
            return ""
        return f" of the {self.seen:,} records seen so far, and than {FLOOR:,}"

    def _list(self, entries: Iterable[tuple[str, ...]]) -> None:
        """Add those of the entries (where, id, image, reason, found) to the file that are not there."""
        new = []
        for where, id, image, reason, found in entries:
            line, key = _line(where, id, image, reason, found), (where, image, reason, found)
            if key not in self._reported and line not in self._listed:
                new.append(line)
            self._reported.add(key)
        if new:
            with self._named():
                self._add(new)

    def _add(self, lines: list[str]) -> None:
        old = {line: self._gone.pop(_moving(**_entry(line)), None) for line in lines}
        added = _text([line for line in lines if old[line] is None])
        if added:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(added)
        moved = {before: line for line, before in old.items() if before is not None}
        if moved:
            self._write([moved.get(one, one) for one in self._read()[0]])
            self._broken -= {_entry(before)["where"] for before in moved}


def _text(lines: list[str]) -> str:
    return "".join(line + "\n" for line in lines)


def _line(where: str, id: str, image: str, reason: str, found: str) -> str:
    return json.dumps({"where": where, "id": id, "image": image, "reason": reason, "found": found})


def _entry(line: str) -> dict[str, str]:
    """The entry that a line holds; {} when it holds none."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    known = (
        isinstance(entry, dict) and entry.keys() == FIELDS and all(isinstance(value, str) for value in entry.values())
    )
    return entry if known else {}


def _origin(where: str) -> Path:
    """The file of a record that stands at FILE:LINE, FILE#NUMBER or the like."""
    return Path(re.sub(r"[:#][^/]*$", "", where))


def _moving(where: str, id: str, image: str, reason: str, found: str) -> tuple[str, ...]:
    """What an entry has in common with that of the same record in a folder that was moved."""
    return where.rpartition("/")[2], id, image.rpartition("/")[2], reason, found


def kind_of(reason: str) -> str:
    """A reason without what is particular to one record: `not valid JSON (Expecting ...)` -> `not valid JSON`."""
    return re.sub(r"(?<!UTF-)\d+", "N", re.split(r" \(|: ", reason, maxsplit=1)[0])


def most_broke(broken: int, records: int) -> bool:
    """Return whether more than half of the records broke: a command that ends so ends with a status other than 0."""
    return 2 * broken > records
