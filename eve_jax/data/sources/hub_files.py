"""Names of data sets of the Hugging Face hub, with their commits, and which files belong to a split of one."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from eve_jax.data.sources.forms import split_format
from eve_jax.errors import UserError
from eve_jax.process.hub import COMMIT, HUB, HubName, Snapshot, fetch_card, front_matter, note_moving, stay
from eve_jax.process.paths import HUB_ID, split_names

NAME = re.compile(rf"{HUB}({HUB_ID.pattern})(?:@([\w][\w./-]*))?(?::([^:@]+))?(?::([^:@]+))?", re.ASCII)
DEFAULT = "default"
# What the hub takes for a split, by the words in the names of files and folders.
WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}


@dataclass(frozen=True)
class DataSet:
    """A data set as `config.data.records` names it; revision "" is that of the branch main, config and split "" the
    data set's own choice. form: of the records' texts, before the name."""

    given: str
    form: str
    id: str
    revision: str
    config: str
    split: str

    @classmethod
    def of(cls, name: str) -> "DataSet":
        """Return what `name` stands for. Raise UserError when it has another form."""
        rest = split_format(name)[1]
        found = NAME.fullmatch(rest)
        if found is None:
            raise UserError(f"{name}: expected {HUB}ORG/NAME[@REVISION][:CONFIG[:SPLIT]]")
        return cls(name, name.removesuffix(rest), *(part or "" for part in found.groups()))

    def snapshot(self) -> Snapshot:
        """Return the commit that the revision stands for, with the data set's card in the cache. Raise UserError."""
        return fetch_card(HubName(self.given, self.id, self.revision))

    def name(self) -> str:
        """Return how `config.data.records` names it."""
        place = f"{self.form}{HUB}{self.id}{'@' if self.revision else ''}{self.revision}"
        return place + "".join(f":{part}" for part in (self.config, self.split) if part)


def is_data_set(name: str) -> bool:
    """Return whether a source's name is of a data set of the hub."""
    return split_format(name)[1].startswith(HUB)


def pinned_records(records: str, began: str = "") -> str:
    """Return the sources `records` with data sets of the hub named by their commits; others stay as they are.

    began: those that a run began with: where these name a data set, its commit stays. Raise UserError where another
    commit is named, and when the hub does not say which one a revision is.
    """
    names = split_names(records)
    if not any(map(is_data_set, names)):
        return records
    first = [DataSet.of(name) for name in split_names(began) if is_data_set(name)]
    return ",".join((_pinned(DataSet.of(n), first) if is_data_set(n) else n).replace(",", "\\,") for n in names)


def _pinned(data_set: DataSet, began: Iterable[DataSet]) -> str:
    same = (one for one in began if replace(one, given="", revision="") == replace(data_set, given="", revision=""))
    kept = next(same, None)
    if COMMIT.fullmatch(data_set.revision):
        if kept is None or kept.revision == data_set.revision:
            return data_set.given
        return stay(kept.given, data_set.given, "data.records")
    if kept is not None:
        return kept.given
    name = replace(data_set, revision=data_set.snapshot().commit).name()
    note_moving(name)
    return name


@dataclass(frozen=True)
class Split:
    """Files of a split; first: of the config that is taken when none is named."""

    config: str
    name: str
    files: tuple[str, ...]
    first: bool = False


def splits_of(files: Iterable[str], card: Path) -> list[Split]:
    """Return the splits of a data set of the files `files`: by its card if that has `configs`, else by their names.

    Raise UserError for a card whose `configs` do not say which files they are of.
    """
    listed = front_matter(card).get("configs")
    files = sorted(files)
    try:
        stated = [split for one in listed for split in _stated(one, files)] if isinstance(listed, list) else []
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{card}: `data_files` of its `configs` are neither patterns nor a split with its path each"
        ) from error
    return stated or _by_names(path for path in files if path.endswith(".parquet"))


def _stated(entry: Any, files: list[str]) -> list[Split]:
    """Return the splits of one of the card's `configs`; [] for one that names no files."""
    if not isinstance(entry, Mapping):
        return []
    config, first = str(entry.get("config_name", DEFAULT)), entry.get("default") is True
    data, below = entry.get("data_files"), str(entry.get("data_dir") or "").strip("/")
    if data is None:
        own = [path for path in files if below and path.startswith(f"{below}/") and path.endswith(".parquet")]
        return [Split(config, one.name, one.files, first) for one in _by_names(own, config)]
    if isinstance(data, Mapping):
        data = [{"split": split, "path": path} for split, path in data.items()]
    elif isinstance(data, str) or all(isinstance(one, str) for one in data):
        data = [{"split": "train", "path": data}]
    found = []
    for one in data:
        patterns = [one["path"]] if isinstance(one["path"], str) else one["path"]
        every = [re.compile(_expression(f"{below}/{pattern}" if below else pattern)) for pattern in patterns]
        fitting = tuple(path for path in files if any(pattern.fullmatch(path) for pattern in every))
        found.append(Split(config, str(one.get("split", "train")), fitting, first))
    return found


def _expression(pattern: str) -> str:
    """Return a card's pattern of files as a regular expression; `**` crosses folders, `*` does not."""
    parts = re.split(r"(\*\*/?|\*|\?)", pattern.removeprefix("./"))
    special = {"**": ".*", "**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return "".join(special.get(part, re.escape(part)) for part in parts)


def _by_names(files: Iterable[str], config: str = "") -> list[Split]:
    """Return the splits of Parquet files by their names."""
    found: dict[tuple[str, str], list[str]] = {}
    for file in files:
        *folders, name = PurePosixPath(file).parts
        stem = name.removesuffix(".parquet")
        pieces = [word for part in (*reversed(folders), stem) for word in re.split(r"[^a-zA-Z]+", part)]
        split = next((WORDS[word.lower()] for word in reversed(pieces) if word.lower() in WORDS), "train")
        first = folders[0] if folders and folders[0] != "data" and folders[0].lower() not in WORDS else DEFAULT
        found.setdefault((config or first, split), []).append(file)
    return [Split(config, split, tuple(own)) for (config, split), own in found.items()]
