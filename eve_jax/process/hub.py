"""Models and data sets of the Hugging Face hub by their ids, where a folder or records are taken.

    ORG/NAME, ORG/NAME@REVISION         where nothing of that name is here, nor a folder ORG
    hf:ORG/NAME, hf:ORG/NAME@REVISION   in any case

A name leads to a folder of the hub's own cache, `models--ORG--NAME/snapshots/COMMIT`. That path says which commit was
taken, and what is missing of it is fetched when it is asked for. HF_HUB_OFFLINE, HF_ENDPOINT, HF_HOME and the account
are those of the package huggingface_hub.
"""

import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from eve_jax.errors import UserError, shorten
from eve_jax.process.files import read_json
from eve_jax.process.hub_errors import is_offline, login_hint, reason
from eve_jax.process.paths import HUB_ID, WORKDIR, no_folder
from eve_jax.version import __version__

HUB = "hf:"  # before an id
REVISION = re.compile(r"\w[\w./-]*", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
SNAPSHOT = re.compile(r"(model|dataset)s--([\w.-]+?)--([\w.-]+)", re.ASCII)  # a folder of the cache
CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"  # of a model
CARD, LICENSES = "README.md", "LICENSE*"
TEXTS = ("*.json", "*.model", "*.txt", "*.jinja", CARD, LICENSES)  # all of a model but its weights
ALL = (*TEXTS, "*.safetensors")
LEFT_OUT = ("*/*", "consolidated*")  # of a model: other libraries' files of the same weights
_moving: set[str] = set()  # folders and names that came of a branch, a tag or no revision


class HubName(NamedTuple):
    """An id of the hub as it was given; revision "" is that of the branch main."""

    given: str
    id: str
    revision: str


class Snapshot(NamedTuple):
    """A commit of a repository in the hub's cache; kind: model | dataset."""

    cache: Path
    kind: str
    id: str
    commit: str

    @property
    def folder(self) -> Path:
        """Return where its files are, or will be."""
        return self.cache / f"{self.kind}s--{self.id.replace('/', '--')}" / "snapshots" / self.commit

    @property
    def name(self) -> str:
        """Return the name that stands for it for good."""
        return f"{HUB}{self.id}@{self.commit}"

    @classmethod
    def of(cls, folder: str | Path) -> "Snapshot | None":
        """Return what `folder` holds by its path, whether it is there or not; None for any other folder."""
        path = Path(folder)
        found = SNAPSHOT.fullmatch(path.parent.parent.name)
        if found is None or path.parent.name != "snapshots" or not COMMIT.fullmatch(path.name):
            return None
        return cls(path.parent.parent.parent, found[1], f"{found[2]}/{found[3]}", path.name)


def hub_name(text: str) -> HubName | None:
    """Return the id of the hub that `text` stands for; None for a path. Raise UserError for `hf:` without an id."""
    name = text.removeprefix(HUB)
    id, at, revision = name.partition("@")
    fits = HUB_ID.fullmatch(id) is not None and (REVISION.fullmatch(revision) is not None or not at)
    if name != text:
        if not fits:
            raise UserError(f"{text}: expected {HUB}ORG/NAME, or {HUB}ORG/NAME@REVISION with a commit, tag or branch")
        return HubName(text, id, revision)
    owner = id.partition("/")[0]
    if not fits or owner == WORKDIR or os.path.lexists(text) or os.path.lexists(owner):
        return None
    return HubName(text, id, revision)


def local_model(given: str) -> str:
    """Return the folder with the model `given`: a path as it is, or of an id of the hub its folder in the cache.

    Of a model of the hub all but the weights is fetched, which `complete` does. Says which commit was taken. Raise
    UserError where there is neither a folder nor a model.
    """
    name = hub_name(given)
    return given if name is None else str(_resolved(name).folder)


def refuse_empty(given: str | Path) -> None:
    """Raise UserError for a checkpoint's name that is empty, as of a variable that is not set: as a path it would be
    the current folder."""
    if not str(given).strip():
        raise UserError("the checkpoint's name is empty: name a folder, or a model of the hub as ORG/NAME")


def find_folder(given: str | Path) -> Path:
    """Return the folder `given`, or that of the hub's model `given` with all its files. Raise UserError for neither."""
    refuse_empty(given)
    name = hub_name(str(given))
    if name is not None:
        found = _resolved(name).folder
        complete(found)
        return found
    if not Path(given).is_dir():
        raise no_folder(given)
    return Path(given)


@cache  # a name stands for one commit as long as the process lives
def _resolved(name: HubName) -> Snapshot:
    return _taken(name, "model", TEXTS)


@cache
def fetch_card(name: HubName) -> Snapshot:
    """Return the commit of the data set `name`, of which the card is fetched. Raise UserError."""
    return _taken(name, "dataset", (CARD,))


def _taken(name: HubName, kind: str, patterns: tuple[str, ...]) -> Snapshot:
    found = Snapshot.of(_fetched(name, patterns, kind))
    assert found is not None, name
    bare = not name.given.startswith(HUB)
    here = f": nothing of that name is here, so it is the hub's {kind} {name.id}" if bare and kind == "model" else ""
    if found.commit != name.revision:
        note_moving(str(found.folder))
        said = f"{here}, which is" if here else " is"
        _tell(f"{name.given}{said} at commit {found.commit}; {found.name} names it for good")
    elif here:
        _tell(f"{name.given}{here}")
    return found


def note_moving(name: str) -> None:
    """Note that a folder or name with a commit came of a branch, a tag or no revision."""
    _moving.add(name)


def complete(folder: str | Path, patterns: tuple[str, ...] = ALL) -> None:
    """Fetch what the folder of a snapshot lacks, by default all of a model; other folders are left as they are.

    Raise UserError when the hub does not give it.
    """
    kept = Snapshot.of(folder)
    if kept is not None and (patterns != ALL or not _is_whole(kept.folder)):
        _fetched(HubName(kept.name, kept.id, kept.commit), patterns, kept.kind, kept.cache)


def _is_whole(folder: Path) -> bool:
    """Return whether the folder of a model has its config and every file of weights, without asking the hub."""
    names = [CONFIG, SINGLE]
    if (folder / INDEX).is_file():
        named = read_json(folder / INDEX).get("weight_map")
        names = [CONFIG, *(map(str, named.values()) if isinstance(named, dict) else ())]
    return all((folder / name).is_file() for name in names)


def put_back(folder: Path) -> bool:
    """Fetch the snapshot `folder` again if the cache has lost it; False where it is none. Raise UserError."""
    complete(folder)
    return Snapshot.of(folder) is not None


def pinned(began: str, now: str, field: str) -> str:
    """Return the folder of a run that resumes with the folder `now` and began with `began`: of one model, the latter.

    Fetches what is missing of it. Raise UserError where another commit is named.
    """
    first, second = Snapshot.of(began), Snapshot.of(now)
    if first is None or second is None or (first.kind, first.id) != (second.kind, second.id):
        return now
    if first.commit == second.commit:
        return now
    stay(first.name, second.name, field, moving=now)
    here = second._replace(commit=first.commit).folder
    complete(here, TEXTS)
    return str(here)


def make_repository(id: str, private: bool) -> None:
    """Make the repository of a model on the hub unless it is there. Raise UserError for no id, and when refused."""
    from huggingface_hub import HfApi

    if not HUB_ID.fullmatch(id):
        raise UserError(f"--push={id}: expected ORG/NAME")
    if is_offline():
        raise UserError(f"--push={id}: HF_HUB_OFFLINE is set")
    try:
        HfApi().create_repo(id, private=private, exist_ok=True)
    except Exception as error:  # the hub's client raises many kinds, of itself and of its HTTP library
        raise UserError(f"--push={id}: the hub did not make it: {reason(error)}{login_hint(error)}") from error


def push(folder: Path, id: str) -> str:
    """Make the files of `folder` the model `id` on the hub, and return the commit's address.

    Weights of an earlier push that are not among them are removed there. Raise UserError when the hub refuses.
    """
    from huggingface_hub import HfApi

    stale = ["*.safetensors", INDEX]
    try:
        message = f"Export of eve_jax {__version__}"
        done = HfApi().upload_folder(repo_id=id, folder_path=folder, commit_message=message, delete_patterns=stale)
    except Exception as error:  # as above
        raise UserError(f"--push={id}: {folder} is whole, but was not uploaded: {reason(error)}") from error
    return str(done.commit_url)


def stay(began: str, now: str, field: str, moving: str = "") -> str:
    """Return the name `began`, and say that the run keeps it though the hub has `now` (of the folder `moving`).

    Raise UserError where `now` was named with its commit.
    """
    if (moving or now) not in _moving:
        raise UserError(
            f"config.{field}: the run began with {began}, now {now} is named; name the former, or another work folder"
        )
    _tell(f"config.{field}: the hub has {now} now; the run keeps what it began with, {began}")
    return began


def _tell(line: str) -> None:
    from eve_jax.process.connect import is_leader  # imports JAX, which reading records does not need

    if is_leader():
        print(line, file=sys.stderr, flush=True)


def _fetched(name: HubName, patterns: tuple[str, ...], kind: str, cache_dir: Path | None = None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import tqdm

    class Quiet(tqdm):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **(settings | {"disable": True}))

    try:
        folder = snapshot_download(
            name.id,
            repo_type=kind,
            revision=name.revision or None,
            cache_dir=cache_dir,
            allow_patterns=list(patterns),
            ignore_patterns=list(LEFT_OUT),
            tqdm_class=tqdm if patterns == ALL else Quiet,
        )
        return Path(folder)
    except Exception as error:  # the hub's client raises many kinds, of itself and of its HTTP library
        both = "" if name.given.startswith(HUB) else "no such folder, and "
        raise UserError(f"{name.given}: {both}the hub did not give it: {reason(error)}") from error


def front_matter(card: Path) -> dict[str, Any]:
    """Return the front matter of a card; {} without one. Raise UserError when it is broken."""
    if not card.is_file() or not re.match(rb"---\s*\n", card.read_bytes()[:8]):
        return {}
    from huggingface_hub import metadata_load

    try:
        return metadata_load(card) or {}
    except Exception as error:  # of its YAML library
        raise UserError(f"{card}: its front matter cannot be read ({shorten(str(error), 100)})") from error
