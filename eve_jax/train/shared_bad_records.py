"""Records that break on any host, in the one list that process 0 keeps."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

from eve_jax.data.plan.lengths import Dropped
from eve_jax.data.rows.bad_records import BAD_RECORDS_FILE, BadRecords
from eve_jax.process.peers import Notices, Peers


def _name(folder: str | Path) -> str:
    """What the names of the notices about a stage's records begin with."""
    return f"bad/{Path(folder).name}/"


class ForwardedBadRecords(BadRecords):
    """Tells process 0 of the records that break while rows are built here; writes nothing.

    What is left out while planning, process 0 finds itself. It also counts all hosts' records against the limit.
    """

    def __init__(self, folder: str | Path, peers: Peers):
        self.path = Path(folder) / BAD_RECORDS_FILE
        self._name = _name(folder)
        self._peers = peers
        self._numbers = itertools.count()

    def begin(self, dropped: Iterable[Dropped], resumed: bool = False, found: str = "planning") -> None:
        """Do nothing: process 0 lists them."""

    def report_dropped(self, dropped: Iterable[Dropped], found: str = "planning") -> None:
        """Nothing: process 0 lists them."""

    def report(self, where: str, id: str, image: str, reason: str, found: str = "training") -> None:
        """Sends one record to process 0."""
        entry = json.dumps([where, id, image, reason, found])
        self._peers.post(f"{self._name}{self._peers.index}/{next(self._numbers)}", entry)


class CollectedBadRecords(BadRecords):
    """The list of process 0, which also takes those of the others; too many of theirs end the run through `Peers`."""

    def __init__(self, folder: str | Path, max_bad: float, peers: Peers):
        super().__init__(folder, max_bad)
        self._peers, self._name = peers, _name(folder)
        peers.watch(self._collect)

    def _collect(self, notices: Notices) -> None:
        for name, text in notices.items():
            if name.startswith(self._name):
                self._peers.take_down(name)
                self.report(*json.loads(text))


def bad_records(folder: str | Path, max_bad: float, peers: Peers | None) -> BadRecords:
    """The list of broken records of a run: the file itself, or on another process than 0 the way to it."""
    if peers is None:
        return BadRecords(folder, max_bad)
    return CollectedBadRecords(folder, max_bad, peers) if peers.index == 0 else ForwardedBadRecords(folder, peers)
