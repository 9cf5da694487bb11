"""Copies of what a run reads from buckets: files and folders, fetched once and again only where they were changed.

Of a stage folder of ours, the newest checkpoint that is whole comes along, without its optimizer. Folders of images
are not copied: each image is read when it is needed (`eve_jax.data.image_file`).
"""

import errno
import fcntl
import fnmatch
import glob
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from eve_jax.errors import UserError
from eve_jax.process import buckets, places
from eve_jax.process.at_step import AT_STEP
from eve_jax.process.files import folder_in_place_of, in_place_of, write_json

NOTES = "notes"  # below `places.root()`: which generation of an object a copy is of
TURN = "fetch.lock"
STEP = re.compile(r"(?:(.*)/)?checkpoints/(\d+)/(.*)", re.DOTALL)
PART_OF = re.compile(r"(?:ocdbt\.)?process_(\d+)")
MANIFEST = "manifest.json"  # of a checkpoint; written last, so that one without it is not finished
TRIES = 3  # to fetch the newest checkpoint of a run that is not over, which removes those before
WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
_done: dict[tuple[Path, bool], str] = {}
_lock = threading.RLock()


def fetch(url: str, field: str = "", weights: bool = True) -> str:
    """Return the path of a copy of the file or folder at `url`, or of what the pattern `url` matches.

    field: what it was given as, for messages. weights: False leaves out files and checkpoints that hold a model's.
    Raises UserError where there is nothing, or the bucket refuses.
    """
    url = url.rstrip("/")
    place = places.folder_of(url, places.READ)
    with _lock:
        if (place, weights) not in _done:
            from eve_jax.process.progress import spinner  # here, since every command imports this module

            about = f"{field}={url}" if field else url
            try:
                with spinner(f"fetching {url}"), _in_turn():
                    found = _fetched(url, weights)
            except OSError as error:
                where = "" if error.filename in (None, url) else f"{places.shown(str(error.filename))}: "
                raise UserError(f"{about}: {where}{error.strerror or error}") from error
            if not found:
                named = AT_STEP.fullmatch(url)
                step = f"; @{named[2]} names a step of a folder here: copy {named[1]} first" if named else ""
                raise UserError(f"{about}: there is no such object, and none below it{step}")
            _done[place, weights] = str(place)
        return _done[place, weights]


@contextmanager
def _in_turn() -> Iterator[None]:
    """Let the processes of this machine, which may have the same folder of copies, change it one after the other."""
    places.root().mkdir(parents=True, exist_ok=True)
    with (places.root() / TURN).open("w") as file:
        with suppress(OSError):  # of network file systems without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def without_weights(url: str, field: str = "") -> str:
    """Return the path of a copy of the folder at `url` but for a model's weights: of a tokenizer. Raises UserError."""
    return fetch(url, field, weights=False)


def images(url: str, field: str = "") -> str:
    """Return the place of the folder of images at `url`, of whose files none is fetched, nor looked for.

    Raises UserError when the bucket refuses, and when nothing is there.
    """
    place, called = places.folder_of(url, places.READ), f"{field}={url}" if field else url
    try:
        buckets.exists(places.join(url, ".folder"))
        if not buckets.any_below(url):
            raise UserError(f"{called}: no object is below it; name the folder that image paths start from")
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{called}: {error.strerror or error}") from error
    return str(place)


def _fetched(url: str, weights: bool, tries: int = TRIES) -> bool:
    """Make the copy of `url`; False when there is nothing."""
    place = places.folder_of(url, places.READ)
    if glob.has_magic(url):
        return _matching(url)
    bucket_alone = "/" not in url.partition("://")[2]  # which is no object, but the folder of all
    if not bucket_alone and not place.is_dir() and buckets.exists(url):
        _files(url, place, [""])
        return True
    names = buckets.names_below(url)
    steps: dict[str, set[str]] = {}
    for name in names:
        if found := STEP.fullmatch(name):
            steps.setdefault(f"{found[1] or ''}/{found[2]}", set()).add(found[3])
    small = [name for name in names if not STEP.fullmatch(name) and (weights or not name.endswith(WEIGHTS))]
    if not names:
        if place.is_dir():  # of an earlier one that was a folder
            shutil.rmtree(place)
            return _fetched(url, weights)
        return False
    _files(url, place, small, names)
    for stage in {step.rpartition("/")[0] for step in steps}:
        if not weights:
            break
        whole = [
            int(s.rpartition("/")[2]) for s, files in steps.items() if s.startswith(f"{stage}/") and MANIFEST in files
        ]
        folder = place / stage / "checkpoints"
        for other in folder.glob("*"):
            if not whole or other.name != str(max(whole)):
                shutil.rmtree(other, ignore_errors=True)
        if whole:
            at = places.join(url, stage, "checkpoints", str(max(whole)))
            try:
                fetch_step(at, folder / str(max(whole)), lambda name: name.split("/")[0] != "optimizer")
            except FileNotFoundError:  # the run has saved a newer one
                if tries == 1:
                    raise
                return _fetched(url, weights, tries - 1)
    return True


def writer_of(name: str) -> int | None:
    """Return the number of the process that wrote the file `name` of a checkpoint: Orbax's folders are named by it.

    None for what belongs to no part of a process: metadata, and the index of all parts.
    """
    found = (PART_OF.fullmatch(part) for part in name.split("/"))
    return next((int(match[1]) for match in found if match), None)


def fetch_step(url: str, folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Copy the checkpoint at `url`, which its manifest names the files of, to `folder`, which then holds no other.

    wanted: of a file's name; others are left out. Of a copy that is there, only what it lacks is fetched. Raises
    OSError, also for a manifest that cannot be read, and FileNotFoundError where the checkpoint is removed meanwhile.
    """
    manifest = buckets.read_whole(places.join(url, MANIFEST))
    try:
        listed = {name for name in json.loads(manifest)["files"] if all(map(places.is_name, name.split("/")))}
    except (ValueError, KeyError, TypeError):
        raise buckets.Refused(places.join(url, MANIFEST), "no manifest of a checkpoint") from None
    if (folder / MANIFEST).is_file() and (folder / MANIFEST).read_bytes() == manifest:
        buckets.together(
            lambda name: _one_file(places.join(url, name), folder / name),
            [name for name in listed if wanted(name) and not (folder / name).is_file()],
        )
        return
    beside = [name for name in buckets.names_below(url) if name != MANIFEST and "/" not in name]
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder_in_place_of(folder) as part:

        def is_there(name: str) -> bool:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                buckets.download(places.join(url, name), part / name)
            except FileNotFoundError:
                (part / name).unlink()
                return False
            return True

        found = buckets.together(is_there, filter(wanted, {*listed, *beside}))
        if not all(found) and not buckets.exists(places.join(url, MANIFEST)):
            raise FileNotFoundError(errno.ENOENT, "it was removed while it was read", url)
        (part / MANIFEST).write_bytes(manifest)  # what it names and was not there is damage


def _one_file(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with in_place_of(path) as part:
        buckets.download(url, part)


def complete_step(folder: Path) -> None:
    """Fetch the optimizer of the checkpoint that `folder` is a copy of; nothing for other folders. Raises UserError."""
    if (url := places.url_of(folder, (places.READ,))) is None:
        return
    try:
        fetch_step(url, folder)
    except OSError as error:
        raise UserError(f"{places.shown(str(error.filename or url))}: {error.strerror or error}") from error


def _matching(url: str) -> bool:
    """Copy the objects that a pattern matches, of one folder."""
    at, _, pattern = url.rpartition("/")
    if glob.has_magic(at):
        raise UserError(f"{url}: only the last part of a URL may be a pattern")
    names = [name for name in buckets.names_below(at) if "/" not in name and fnmatch.fnmatchcase(name, pattern)]
    place = places.folder_of(at, places.READ)
    for path in place.glob(pattern):
        if path.name not in names:
            path.unlink()
    for name in names:
        _files(places.join(at, name), place / name, [""])
    return bool(names)


def _files(url: str, place: Path, names: list[str], there: Collection[str] = ("",)) -> None:
    """Make the files below `place` copies of the objects `names` below `url`; a name "" is the object itself.

    there: all objects; files that were copies of others are removed.
    """
    notes = Notes(url, place)
    buckets.together(notes.fetch, names)
    notes.remove_others(there)
    notes.write()


def _set_time(path: Path, generation: bytes) -> None:
    """Fingerprints of records have the time of their files: here one that all hosts' copies of an object share."""
    time = int.from_bytes(hashlib.blake2b(generation, digest_size=7).digest(), "little")
    os.utime(path, ns=(time, time))


class Notes:
    """Which generations of the objects below `url` the files below `place` are copies of, kept between runs."""

    def __init__(self, url: str, place: Path):
        self.url, self.place = url, place
        below = place.relative_to(places.root())
        self.path = places.root() / NOTES / below.with_name(f"{below.name}.json")
        self.known: dict[str, list[Any]] = {}
        with suppress(OSError, ValueError):
            self.known = json.loads(self.path.read_text())

    def fetch(self, name: str) -> None:
        """Fetch one object, unless the file is the copy of it as it is now. Raises OSError."""
        url, path = (places.join(self.url, name), self.place / name) if name else (self.url, self.place)
        generation = self.generation(name)
        if generation and buckets.read(url, generation)[1] == generation:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with in_place_of(path) as part:
            generation = buckets.download(url, part)
            _set_time(part, generation)
        self.note(name, generation)

    def set_times(self) -> None:
        """Give files that were published the times that copies of them have."""
        for name in self.known:
            if generation := self.generation(name):
                _set_time(self.place / name, generation)
                self.note(name, generation)
        self.write()

    def generation(self, name: str) -> bytes:
        """Return the generation that the file is a copy of; b"" when it was changed since, or is not there."""
        path = self.place / name if name else self.place
        with suppress(OSError, ValueError, TypeError):
            generation, size, time = self.known.get(name, ("", 0, 0))
            found = path.stat()
            if (found.st_size, found.st_mtime_ns) == (size, time):
                return bytes.fromhex(generation)
        return b""

    def last(self, name: str) -> bytes:
        """Return the generation of the object that was seen last, whatever the file is by now; b"" for none."""
        with suppress(ValueError, TypeError, IndexError):
            return bytes.fromhex(self.known.get(name, [""])[0])
        return b""

    def note(self, name: str, generation: bytes) -> None:
        """Say that the file `name` is now a copy of the object's `generation`."""
        found = (self.place / name if name else self.place).stat()
        self.known[name] = [generation.hex(), found.st_size, found.st_mtime_ns]

    def remove_others(self, names: Collection[str]) -> None:
        """Remove files that were copies of objects which are not there any more."""
        for name in set(self.known) - set(names):
            (self.place / name).unlink(missing_ok=True)
            del self.known[name]

    def write(self) -> None:
        """Keep the notes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.known, indent=0)
