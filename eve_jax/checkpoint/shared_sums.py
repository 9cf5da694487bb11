"""Checksums of a checkpoint by those who wrote and read its files: each process of a run sums and checks its own.

When all have written, process 0 tells the others; each sums what it wrote, which is in its host's memory still, into a
part of the manifest, manifest.process_N.json, and process 0 joins the parts before the checkpoint takes its name.
"""

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from eve_jax.checkpoint.checksums import Sum, damage, sums, write_manifest
from eve_jax.process.fetched import writer_of
from eve_jax.process.files import read_json, write_atomically
from eve_jax.process.peers import POLL, Peers
from eve_jax.process.published import bring

PART = "manifest.process_{}.json"


class Sums:
    """The checksums of the checkpoints that a run saves; of several processes each has one."""

    def __init__(self, peers: Peers | None):
        self.peers = peers
        self._over = threading.Event()

    def follow(self, step: Path) -> None:
        """Sum the files of this process in `step`, in the background, as soon as process 0 seals it."""
        self._over.set()  # of the save before, which has ended
        self._over = threading.Event()
        if self.peers is not None and self.peers.index:
            arguments = (self.peers, step, self._over)
            threading.Thread(target=_sum_own, args=arguments, name="checksums", daemon=True).start()

    def seal(self, step: Path) -> None:
        """Write the manifest of `step`; in process 0, when all files are written. Raises OSError."""
        peers = self.peers
        if peers is None:
            write_manifest(step)
            return
        name = _values(step)
        peers.put(f"{name}0", "written")
        files = sums(step, (0, peers.count))
        while len(told := peers.found(name)) < peers.count:
            time.sleep(POLL / 5)
        if failed := next((text for number, text in told.items() if number != "0" and text), ""):
            raise OSError(None, failed, str(step))
        for number in range(1, peers.count):
            part = step / PART.format(number)
            files |= read_json(part)
            part.unlink()
        write_manifest(step, files)


def _is_share(name: str, items: Sequence[str], number: int, count: int) -> bool:
    """Whether `damage` looks at the file `name` of a checkpoint."""
    writer = writer_of(name)
    return writer is None or ((not items or name.split("/")[0] in items) and writer % count == number)


def _values(step: Path) -> str:
    """Where processes tell each other about `step`: by the names of its stage and its own."""
    return f"sums/{step.parent.parent.name}/{step.name}/"


def _sum_own(peers: Peers, step: Path, over: threading.Event) -> None:
    name = _values(step)
    while "0" not in peers.found(name):
        if over.wait(POLL):
            return
    failed = ""
    try:
        files: dict[str, Sum] = sums(step, (peers.index, peers.count))
        write_atomically(step / PART.format(peers.index), json.dumps(files))
    except OSError as error:
        failed = error.strerror or str(error)
    peers.put(f"{name}{peers.index}", failed)


def damage_seen_by_all(step: Path, peers: Peers | None, items: Sequence[str] = (), contents: bool = True) -> str:
    """What `damage` finds, in every process; each of several, which all call this, reads its share of the files.

    Of a checkpoint in a bucket, the share is fetched first. Raises UserError.
    """
    number, count = (0, 1) if peers is None else (peers.index, peers.count)
    bring(step, lambda name: _is_share(name, items, number, count))
    if peers is None:
        return damage(step, items, contents)
    found = peers.gather("damage", damage(step, items, contents, (number, count)))
    return next((text for text in found if text), "")
