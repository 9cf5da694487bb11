"""The folder of captioned records: what it is made of, what lies where, and when it is begun anew.

    OUT/caption.json      what it is made of; written first
    OUT/answers/          the answer log (`answers`), which is never removed
    OUT/asked/00003.jsonl what became of every record of a shard, in order, until the records are written
    OUT/00003.records, 00003.images, eve_records.json     the captioned records, as `launch.prepare_data` writes them
    OUT/rejected.jsonl    {"index", "id", "where", "stage", "rule", "value", "caption"} of each rejected record
    OUT/funnel.json       {"in", "kept", "rejected": {stage: {rule: count}}, "again"}: in = kept + all rejected
    OUT/usage.json        what the answers cost

All but the answer log follows from the records and that log, and is made again from them.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eve_jax.caption.answers import FOLDER as ANSWERS
from eve_jax.caption.ask import Outcome
from eve_jax.caption.config import CaptionConfig
from eve_jax.data.record import digest_of
from eve_jax.data.sources.kept_index import INDEX
from eve_jax.data.sources.records import Records
from eve_jax.data.sources.shards import DATASET_FILE, shard_paths
from eve_jax.errors import UserError
from eve_jax.process.files import PART, read_json, write_atomically, write_json
from eve_jax.process.lock import LOCK

CAPTION_FILE, ASKED = "caption.json", "asked"
REJECTED_FILE, FUNNEL_FILE, USAGE_FILE = "rejected.jsonl", "funnel.json", "usage.json"
SAME = "same"  # in the folder ASKED: what became of records whose captions many others had, too
PAID = ("model", "max_tokens", "temperature", "again_temperature", "seed", "body")  # fields of `endpoint` in a request


@dataclass(frozen=True)
class Line:
    """What became of one record: its place in the source, its id and the outcome."""

    index: int
    id: str
    outcome: Outcome

    def to_json(self) -> str:
        """Return it as a line."""
        return json.dumps([self.index, self.id, *self.outcome], ensure_ascii=False)

    @classmethod
    def of_json(cls, text: str) -> "Line":
        """Return what `to_json` wrote."""
        index, id, *outcome = json.loads(text)
        return cls(index, id, Outcome(*outcome))


class CaptionFolder:
    """The files of a folder; `shards`: how many there are to be."""

    def __init__(self, path: Path, n_records: int, records_per_shard: int) -> None:
        self.path, self.n_records, self._size = path, n_records, records_per_shard
        self.shards = -(-n_records // records_per_shard)
        self.answers = path / ANSWERS

    def span(self, number: int) -> range:
        """Return the records of the source that shard `number` is made of."""
        return range(number * self._size, min((number + 1) * self._size, self.n_records))

    def shard_of(self, index: int) -> int:
        """Return the number of the shard that record `index` of the source belongs to."""
        return index // self._size

    def line_file(self, number: int) -> Path:
        """Return where the summary of a shard lies until all are written."""
        return self.path / f"{number:05d}.json"

    def asked_file(self, name: int | str) -> Path:
        """Return where the lines of a shard lie, or those of SAME."""
        return self.path / ASKED / f"{name if isinstance(name, str) else f'{name:05d}'}.jsonl"

    def write_asked(self, name: int | str, lines: Iterable[Line]) -> None:
        """Write what became of the records of a shard. Raises OSError."""
        self.asked_file(name).parent.mkdir(exist_ok=True)
        write_atomically(self.asked_file(name), "".join(f"{line.to_json()}\n" for line in lines))

    def read_asked(self, name: int | str) -> list[Line]:
        """Return what `write_asked` wrote. Raises UserError for a file that is damaged."""
        file = self.asked_file(name)
        try:
            with file.open(encoding="utf-8", newline="\n") as lines:  # a caption may have other ends of lines in it
                return [Line.of_json(text) for text in lines]
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{file}: damaged ({error}); remove it, and rerun the command: nothing is asked again"
            ) from None

    @property
    def is_complete(self) -> bool:
        """Whether the captioned records are written, and all of them are there."""
        files = (file for number in range(self.shards) for file in shard_paths(self.path, number))
        return (self.path / DATASET_FILE).is_file() and all(file.is_file() for file in files)

    def claim(self, config: CaptionConfig, records: Records, new: "Allowed") -> None:
        """Make the folder, which is locked, one of these records and this config.

        What was made by another is begun anew: without a word where checks or what is written changed; where records,
        or what is asked, are others, if `new` allows it. Raises UserError.
        """
        described = describe(config, records)
        file = self.path / CAPTION_FILE
        if file.is_file():
            found = read_json(file)
            self._refuse(found, described, new)
            damaged = (self.path / DATASET_FILE).is_file() and not self.is_complete
            if found != described or new.retry or damaged:
                self.forget()
        elif any(LOCK not in one.name and one.name != ANSWERS for one in self.path.iterdir()):
            raise UserError(f"{self.path}: holds something else; choose a folder for --to that is empty or not there")
        write_json(file, described, indent=1, sort_keys=False)

    def _refuse(self, found: dict[str, Any], described: dict[str, Any], new: "Allowed") -> None:
        asked, old = described["asked"], found.get("asked", {})
        changed = [name for name in asked if old.get(name) != asked[name]]
        if changed and not new.answers:
            raise UserError(
                f"{self.path}: its captions were asked for with another config.{changed[0]}; choose another --to, or "
                "give --new_answers to ask for all of them again (those of before are kept, and found again)"
            )
        if found.get("source") != described["source"] and not new.records:
            raise UserError(
                f"{self.path}: holds captions of other records, or of files that were changed since; choose another "
                "--to, or give --new_records: what was asked about the same images before is not asked again"
            )

    def forget(self) -> None:
        """Remove all that was made of the answers. The list of shards goes first: they are no data set without it."""
        (self.path / DATASET_FILE).unlink(missing_ok=True)
        shutil.rmtree(self.path / ASKED, ignore_errors=True)
        for name in (REJECTED_FILE, FUNNEL_FILE, USAGE_FILE):
            (self.path / name).unlink(missing_ok=True)
        for pattern in ("[0-9]*.records", "[0-9]*.images", "[0-9]*.json"):
            for file in self.path.glob(pattern):
                file.unlink()

    def clean(self) -> None:
        """Remove what only a run that resumes reads, and what killed ones left."""
        shutil.rmtree(self.path / ASKED, ignore_errors=True)
        for number in range(self.shards):
            self.line_file(number).unlink(missing_ok=True)
        for left in (*self.path.glob(f"*{PART}"), *self.path.glob(f".*{PART}"), *self.path.glob(f"*{INDEX}")):
            left.unlink()

    def records_file(self, number: int) -> Path:
        """Return the file of conversations of a shard."""
        return shard_paths(self.path, number)[0]


@dataclass(frozen=True)
class Allowed:
    """What a run may do with a folder that was made otherwise: ask anew, take other records; rules to ask again."""

    answers: bool = False
    records: bool = False
    retry: tuple[str, ...] = ()


def describe(config: CaptionConfig, records: Records) -> dict[str, Any]:
    """Return what captioned records are made of: what is asked, which records, and what else decides about them."""
    values = config.to_dict()
    max_pixels = values["image"].pop("max_pixels")  # says which images are rejected, not what is sent of the others
    asked = {f"endpoint.{name}": values["endpoint"][name] for name in PAID}
    for section in ("prompt", "image"):
        asked |= {f"{section}.{name}": value for name, value in values[section].items()}
    block = values["experts"]["block"]
    asked |= {f"experts.block.{name}": value for name, value in block.items()}
    return {
        "asked": asked,
        "source": digest_of([records.fingerprint()]),
        "names": records.names,
        "records": len(records),
        "max_pixels": max_pixels,
        "checks": values["checks"],
        "write": values["write"],
    }
