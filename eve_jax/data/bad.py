"""The list of records that could not be used: bad_records.jsonl."""

import json
import os
import re
import threading
from collections.abc import Iterable
from pathlib import Path

from eve_jax.data.lengths import Dropped
from eve_jax.errors import UserError

BAD_RECORDS_FILE = "bad_records.jsonl"


class BadRecords:
    """Appends {"where", "id", "image", "reason", "found"} lines to `folder`/bad_records.jsonl; safe for threads.

    A record is listed once, also when a run goes on after a stop. `found` is "preparing" or "planning" (the record was
    left out) or "training" (its slots stay, its loss is masked); more than `max_bad` of the latter stop the run.
    """

    def __init__(self, folder: str | Path, max_bad: int) -> None:
        self.path = Path(folder) / BAD_RECORDS_FILE
        self.max_bad = max_bad
        self.count = 0  # found while training
        self._known: set[str] = set()
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._recall()

    def _recall(self) -> None:
        whole, _, cut = self.path.read_bytes().rpartition(b"\n")
        if cut:  # a run was killed while writing it
            os.truncate(self.path, len(whole) + 1 if whole else 0)
        for line in whole.splitlines():
            entry = json.loads(line)
            self._known.add(entry["where"])
            self.count += entry["found"] == "training"

    def report_dropped(self, dropped: Iterable[Dropped], found: str = "planning") -> None:
        """Lists the records that were left out while planning, or while preparing."""
        for one in dropped:
            self.report(*one, found=found)

    def report(self, where: str, id: str, image: str, reason: str, found: str = "training") -> None:
        """Lists one record. Raises `UserError` when more than `max_bad` were found while training."""
        with self._lock:
            if where not in self._known:
                self._known.add(where)
                self.count += found == "training"
                line = json.dumps({"where": where, "id": id, "image": image, "reason": reason, "found": found})
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            if found == "training" and self.count > self.max_bad:
                raise UserError(
                    f"{self.count} records broke while training, more than config.data.max_bad={self.max_bad}; "
                    f"the last: {where} (record {id}): {reason}; all are listed in {self.path}"
                )


def kind_of(reason: str) -> str:
    """A reason without what is particular to one record: `not valid JSON (Expecting ...)` -> `not valid JSON`."""
    return re.sub(r"(?<!UTF-)\d+", "N", re.split(r" \(|: ", reason, maxsplit=1)[0])
