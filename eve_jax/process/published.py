"""Work folders in buckets: a folder here is made equal to the bucket's when a run begins, and published as it goes.

An object takes the place of another in one piece, so each file is written anew as a whole where it was changed. A
checkpoint counts when its manifest is there, which is written last; what a run had in its other files when it was saved
is published before. So a run that is killed, here or with its machine, resumes on any machine from what the bucket has.
"""

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eve_jax.errors import UserError
from eve_jax.process import buckets, places
from eve_jax.process.fetched import MANIFEST, Notes, fetch_step
from eve_jax.process.files import PART
from eve_jax.process.lock import LOCK, Lock, held_around, locked

CHECKPOINTS = "checkpoints"
LAST = ("config.json", "eve_records.json")  # what a folder is recognized by: written when its other files are
OWN = (LOCK, "cache", "logs")  # of the machine, or of the bucket alone
EVERY = 30.0  # seconds between two looks for files that were changed

_held: dict[str, "Published"] = {}  # work folders of this process by their URLs


def work_folder(url: str, field: str = "") -> str:
    """Return where the work folder at `url` lies here. Raises UserError."""
    return str(places.folder_of(url, places.WORK))


def published(folder: Path) -> "Published | None":
    """Return the work folder that holds `folder`, if it is one in a bucket that this process holds."""
    url = places.url_of(folder, (places.WORK,))
    return next((work for at, work in _held.items() if url and f"{url}/".startswith(f"{at}/")), None)


@contextmanager
def in_bucket(folder: Path, what: str, processes: int = 1) -> Iterator[Lock | None]:
    """Hold the lock of a folder in a bucket, which is fetched first and published in the block.

    None for a local folder, or one inside of another that is held so. what: what the block does, for messages. Raises
    UserError for several processes, whose parts of a checkpoint would each be on another host.
    """
    url = places.url_of(folder, (places.WORK,))
    around = published(folder)
    if url is None or around is not None:
        yield around.lock if around is not None and around.url == url else None
        return
    if processes > 1:
        raise UserError(
            f"{url}: a run of several processes writes to a folder that all its hosts share, not to a bucket yet; name "
            "a folder on storage that they share, or mount the bucket"
        )
    from eve_jax.process.progress import spinner  # here, since every command imports this module

    with locked(folder, what) as lock:
        work = Published(url, folder, lock)
        with _one_line(url), spinner(f"fetching {url}"):
            work.pull()
        _held[url] = work
        held_around[lock.store.place] = lock
        thread = threading.Thread(target=work.follow, name="publish", daemon=True)
        thread.start()
        try:
            yield lock
            with _one_line(url):
                work.publish()
                work.save_all()
                work.prune()
        except BaseException:
            with suppress(OSError):
                work.publish()
            raise
        finally:
            del _held[url], held_around[lock.store.place]
            work.over.set()
            thread.join(timeout=EVERY)


@contextmanager
def sent(file: Path, *others: Path) -> Iterator[None]:
    """Write `file`, and `others` as far as they are there, to the bucket that they are of when the block has ended.

    Raises UserError; does nothing for local files.
    """
    if (url := places.url_of(file, (places.WORK,))) is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    yield
    with _one_line(url):
        for path in (*(path for path in others if path.is_file()), file):
            buckets.upload(path, str(places.url_of(path)))


@contextmanager
def _one_line(url: str) -> Iterator[None]:
    """Raise UserError in place of what a bucket raises."""
    try:
        yield
    except OSError as error:
        where = places.shown(str(error.filename or url))
        raise UserError(f"{where}: {error.strerror or error}; what was saved before is whole") from error


class Published:
    """The work folder `folder` here and its objects below `url`. Methods raise OSError; threads may call them."""

    def __init__(self, url: str, folder: Path, lock: Lock):
        self.url, self.folder, self.lock = url, folder, lock
        self.over = threading.Event()
        self._notes = Notes(url, folder)
        self._turn = threading.RLock()
        self._warned = False

    def pull(self) -> None:
        """Make the folder here equal to what the bucket has: files, and checkpoints that are whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        names = self._names()
        small = [name for name in names if self._is_published(name)]
        for name in set(self._local()) - set(small):
            (self.folder / name).unlink(missing_ok=True)
        buckets.together(self._notes.fetch, small)
        self._notes.remove_others(small)
        self._notes.write()
        whole = {name.rpartition("/")[0] for name in names if name.endswith(f"/{MANIFEST}") and self._is_step(name)}
        for path in self.folder.glob(f"**/{CHECKPOINTS}/*"):
            if path.name.isdecimal() and str(path.relative_to(self.folder)) not in whole:
                shutil.rmtree(path)
        for step in sorted(whole, key=lambda name: -int(name.rpartition("/")[2])):
            fetch_step(places.join(self.url, step), self.folder / step)

    def publish(self) -> None:
        """Write the files that were changed since the last time, and remove those that are gone."""
        with self._turn:
            names = self._local()

            def one(name: str) -> None:
                if not self._notes.generation(name):
                    with suppress(FileNotFoundError):  # removed, or replaced, in this moment
                        self._put(name)

            last = [name for name in names if name.rpartition("/")[2] in LAST]
            buckets.together(one, sorted(set(names) - set(last)))
            buckets.together(one, last)
            for name in set(self._notes.known) - set(names):
                buckets.remove(places.join(self.url, name))
                del self._notes.known[name]
            self._notes.write()

    def _put(self, name: str) -> None:
        path = self.folder / name
        before = path.stat()
        generation = buckets.upload(path, places.join(self.url, name))
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
            self._notes.note(name, generation)

    def save(self, made: Path, step: Path) -> None:
        """Publish the files, then the folder `made` of a checkpoint under the name of `step`, its manifest last."""
        self.publish()
        url = places.join(self.url, str(step.relative_to(self.folder)))
        self._remove_step(url)  # what a killed save has left
        files = [str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()]
        buckets.together(
            lambda name: buckets.upload(made / name, places.join(url, name)), [n for n in files if n != MANIFEST]
        )
        buckets.upload(made / MANIFEST, places.join(url, MANIFEST))
        try:
            self.prune(step)
        except OSError as error:
            self._warn(error)

    def save_all(self) -> None:
        """Publish the checkpoints that are whole here and that the bucket lacks."""
        there = set(self._remote_steps())
        for manifest in self.folder.glob(f"**/{CHECKPOINTS}/*/{MANIFEST}"):
            if manifest.parent.name.isdecimal() and str(manifest.relative_to(self.folder)) not in there:
                self.save(manifest.parent, manifest.parent)

    def prune(self, saved: Path | None = None) -> None:
        """Remove checkpoints from the bucket that are gone here, next to `saved`, and what is left of killed saves."""
        kept = {str(saved.relative_to(self.folder))} if saved else set()
        steps = {"/".join(name.split("/")[: name.split("/").index(CHECKPOINTS) + 2]) for name in self._remote_steps()}
        for step in sorted(steps - kept):
            if not (self.folder / step).is_dir():
                self._remove_step(places.join(self.url, step))

    def set_aside(self, step: Path) -> None:
        """Let the checkpoint `step` count no more; its files here keep what there was."""
        buckets.remove(places.join(self.url, str(step.relative_to(self.folder)), MANIFEST))

    def follow(self) -> None:
        """Publish every now and then, until it is over; a bucket that refuses is said once."""
        while not self.over.wait(EVERY):
            try:
                self.publish()
            except OSError as error:
                self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            where = places.shown(str(error.filename or self.url))
            print(f"warning: {where}: {error.strerror or error}; it is tried again", file=sys.stderr, flush=True)

    def _remove_step(self, url: str) -> None:
        buckets.remove(places.join(url, MANIFEST))
        buckets.remove_below(url)

    def _remote_steps(self) -> list[str]:
        return [name for name in self._names() if CHECKPOINTS in name.split("/")[:-2]]

    def _names(self) -> list[str]:
        """Names of all objects, of which the lock is one: nothing follows from a list that is not whole."""
        names = buckets.names_below(self.url)
        if LOCK not in names:
            raise buckets.Refused(self.url, f"its objects cannot be listed, or {LOCK} was removed")
        return names

    def _is_step(self, name: str) -> bool:
        parts = name.split("/")
        return len(parts) >= 3 and parts[-3] == CHECKPOINTS and parts[-2].isdecimal()

    def _is_published(self, name: str) -> bool:
        parts = name.split("/")
        return not any(p in OWN or p == CHECKPOINTS or p.startswith(".") or p.endswith(PART) for p in parts)

    def _local(self) -> list[str]:
        """Names of the files here that are published."""
        found = []
        for place, folders, files in os.walk(self.folder):
            below = Path(place).relative_to(self.folder)
            folders[:] = [name for name in folders if self._is_published(name)]
            found += [str(below / name) for name in files if self._is_published(name)]
        return found
