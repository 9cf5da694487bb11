"""Captions by several processes of a Ray cluster: each asks about some of the shards, with its part of the requests.

What a process leaves are the lines of whole shards and answers in a file of the log of its own; the rest follows from
them, as if one process had asked.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from eve_jax.caption.answers import AnswerLog
from eve_jax.caption.config import KEYS, CaptionConfig, key_of_environment
from eve_jax.caption.folder import ASKED, CAPTION_FILE, CaptionFolder
from eve_jax.caption.run import Asking, Captioner, ask_shards
from eve_jax.curate.engine import nodes, run
from eve_jax.data.record import digest_of
from eve_jax.data.sources.records import Records, open_records
from eve_jax.errors import UserError
from eve_jax.process.progress import ProgressBar

LOOK = 5.0  # seconds between two looks at what there is


@dataclass(frozen=True)
class Part:
    """Asks about every `parts`-th of the shards `todo`; called with the number of the first. Goes to other machines.

    source, images, out: as of `caption_records`. fingerprint: of the records. keyed: whether the endpoint has a key,
    which stays in the environment. retry: rules to ask again.
    """

    config: CaptionConfig
    source: str
    images: str
    out: Path
    fingerprint: str
    keyed: bool
    retry: tuple[str, ...]
    parts: int
    todo: tuple[int, ...]

    def __call__(self, number: int) -> None:
        """Ask about the shards of part `number`."""
        records, key = self._opened(), key_of_environment()
        folder = CaptionFolder(self.out, len(records), self.config.write.records_per_shard)
        if self.keyed and not key:
            raise UserError(f"{socket.gethostname()}: no {KEYS[0]} in the environment; set it on every node of Ray")
        log = AnswerLog(folder.answers, self.retry)
        try:
            captioner = Captioner(Asking(self.config, records), log, key)
            ask_shards(captioner, folder, self.todo[number :: self.parts])
        finally:
            log.close()

    def _opened(self) -> Records:
        """Return the records. Raises UserError where this machine has others, or another folder."""
        here = socket.gethostname()
        if not (self.out / CAPTION_FILE).is_file():
            raise UserError(f"{here}: {self.out} is not there; name a folder of a file system that all nodes have")
        records = open_records(self.source, self.images, self.out, texts=False)
        if digest_of([records.fingerprint()]) != self.fingerprint:
            raise UserError(f"{here}: {self.source} holds other records than where the command was started")
        return records


def ask_on_cluster(
    config: CaptionConfig, records: Records, folder: CaptionFolder, keyed: bool, retry: tuple[str, ...]
) -> None:
    """Have the processes of a cluster ask about the shards of `folder` that are not asked yet.

    Each has a gate of its own for every endpoint, with its part of `endpoint.concurrency`. Raises UserError.
    """
    todo = tuple(number for number in range(folder.shards) if not folder.asked_file(number).is_file())
    if not todo:
        return
    assert records.opened is not None
    source, images, _ = records.opened
    parts = min(config.engine.workers or nodes(config.engine), len(todo), config.endpoint.concurrency)
    own = replace(
        config.endpoint,
        concurrency=config.endpoint.concurrency // parts,
        start=max(config.endpoint.start // parts, 1),
    )
    found = digest_of([records.fingerprint()])
    make = Part(replace(config, endpoint=own), source, images, folder.path.resolve(), found, keyed, retry, parts, todo)
    with _shown(folder, todo):
        run(make, range(parts), config.engine, "")
    missing = [number for number in todo if not folder.asked_file(number).is_file()]
    if missing:
        raise UserError(
            f"{folder.path}: {len(missing)} shards that other nodes asked about are not here; name a folder of a file "
            "system that all nodes have"
        )


@contextmanager
def _shown(folder: CaptionFolder, todo: tuple[int, ...]) -> Iterator[None]:
    """Show a bar of the records of shards that are done, and how much was answered, while the block runs."""
    names = {folder.asked_file(number).name: len(folder.span(number)) for number in todo}
    before, ended = folder.n_records - sum(names.values()), threading.Event()

    def look(bar: ProgressBar) -> None:
        while not ended.wait(LOOK):
            there = os.listdir(folder.path / ASKED) if (folder.path / ASKED).is_dir() else ()
            answers = sum(file.stat().st_size for file in folder.answers.glob("*.jsonl"))
            bar.set(before + sum(names.get(name, 0) for name in there), f"{answers / 1e6:,.1f} MB of answers")

    with ProgressBar("captioning", folder.n_records, before) as bar:
        thread = threading.Thread(target=look, args=(bar,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
