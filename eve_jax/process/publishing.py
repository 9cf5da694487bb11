"""One work folder of a bucket: what is fetched of it, and what is published when (`eve_jax.process.published`)."""

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eve_jax.errors import UserError
from eve_jax.process import buckets, places
from eve_jax.process.bucket_lock import BucketStore
from eve_jax.process.fetched import MANIFEST, Notes, fetch_step, writer_of
from eve_jax.process.files import PART
from eve_jax.process.lock import LOCK, Lock
from eve_jax.process.peers import Peers
from eve_jax.process.sqlite_copy import copied, has_more, is_beside

CHECKPOINTS = "checkpoints"
LAST = ("config.json", "eve_records.json")  # what a folder is recognized by: written when its other files are
OWN = (LOCK, "cache", "logs")  # of the machine, or of the bucket alone
EVERY = 30.0  # seconds between two looks for files that were changed
TRIES = 5  # to write an object that has another generation each time


def peers() -> Peers | None:
    """Return the other processes of this run, None when it is the only one; without JAX, which most commands lack."""
    connect = sys.modules.get("eve_jax.process.connect")
    return None if connect is None else connect.peers()


@contextmanager
def one_line(url: str) -> Iterator[None]:
    """Raise UserError in the block in place of what a bucket raises."""
    try:
        yield
    except OSError as error:
        where = places.shown(str(error.filename or url))
        raise UserError(f"{where}: {error.strerror or error}; what was saved before is whole") from error


class Published:
    """The work folder `folder` here and its objects below `url`. Methods raise OSError; threads may call them.

    lock: of the process that publishes. others: the processes of a run, of which each has a part of a checkpoint.
    token: in other processes, that of process 0's lock.

    Each object is written under the condition that it is as it was seen last, and under another one only after a look
    at the lock. So nothing of a process whose run was resumed elsewhere, or of a request that was on its way when it
    was killed, takes the place of what the resumed run writes.
    """

    def __init__(self, url: str, folder: Path, lock: Lock | None, others: Peers | None = None, token: str = ""):
        self.url, self.folder, self.lock, self.others = url, folder, lock, others
        self.token = token if lock is None else lock.owner.token
        self.over = threading.Event()
        self._notes = Notes(url, folder)
        self._turn = threading.RLock()
        self._warned = False

    def pull(self) -> None:
        """Make the folder here equal to what the bucket has: files, and checkpoints that are whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        names = self._names()
        self._pull_files(names)
        whole = {name.rpartition("/")[0] for name in names if name.endswith(f"/{MANIFEST}") and self._is_step(name)}
        for path in self.folder.glob(f"**/{CHECKPOINTS}/*"):
            if path.name.isdecimal() and str(path.relative_to(self.folder)) not in whole:
                shutil.rmtree(path)
        for step in sorted(whole, key=lambda name: -int(name.rpartition("/")[2])):
            fetch_step(places.join(self.url, step), self.folder / step, self.is_kept)

    def is_kept(self, name: str) -> bool:
        """Return whether the file `name` of a checkpoint is kept here whatever else is: of several, none of a part."""
        return self.others is None or writer_of(name) is None

    def _pull_files(self, names: list[str]) -> None:
        """Make the files here, but those of checkpoints, equal to what the bucket has, of all its `names`."""
        small = [name for name in names if self._is_published(name)]
        local = self._local(lambda name: self._is_published(name) or is_beside(name))
        for name in set(local) - set(small):
            (self.folder / name).unlink(missing_ok=True)
        buckets.together(self._notes.fetch, small)
        self._notes.remove_others(small)
        self._notes.write()

    def hand_out(self) -> None:
        """Let the other processes of a run have the files as process 0 has them; all call it. Raises UserError."""
        if self.others is None or peers() is None:  # the latter where process 0 does something alone
            return
        with one_line(self.url):
            if self.lock is not None:
                with self._turn:
                    self.publish()
                    self._notes.set_times()
            self.others.gather("published")
            if self.lock is None:
                self._pull_files(self._names())
            self.others.gather("handed out")

    def publish(self) -> None:
        """Write the files that were changed since the last time, and remove those that are gone."""
        with self._turn:
            names = self._local()
            self.check()

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

    def check(self) -> None:
        """Raise `TakenOver` where the lock in the bucket is not this run's any more. Raises OSError."""
        place = places.join(self.url, LOCK)
        held = BucketStore(place, 0.0).read()
        if held is None or held.owner.token != self.token:
            by = "removed" if held is None else f"taken over by {held.owner}"
            raise buckets.TakenOver(place, f"it was {by}, so nothing more is written")

    def write(self, url: str, data: bytes, known: bytes = buckets.NONE_YET) -> bytes:
        """Write the object at `url` that had the generation `known`, and return its new one.

        It may have another one by what was on its way when a process was killed, or by a request of this process whose
        answer was lost. Raises OSError, `TakenOver` where another run holds the folder.
        """
        condition: bytes | None = known
        for _ in range(TRIES):
            if generation := buckets.write(url, data, instead_of=condition):
                return generation
            self.check()
            found, generation = buckets.read(url, part=slice(0, 0))
            if found is None and condition == buckets.NONE_YET:  # which no server says that has the bucket
                condition = None
            else:
                condition = buckets.NONE_YET if found is None else generation or None
        raise buckets.Refused(url, "something else writes it, too")

    def _put(self, name: str) -> None:
        path, url = self.folder / name, places.join(self.url, name)
        before, more = path.stat(), has_more(path)
        with copied(path, self.folder) as whole, buckets.content(whole, url) as data:
            generation = self.write(url, data, self._notes.last(name) or buckets.NONE_YET)
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns) and not more:
            self._notes.note(name, generation)

    def save(self, made: Path, step: Path) -> None:
        """Publish the files, then the folder `made` of a checkpoint under the name of `step`, its manifest last."""
        url = self.begin(step)
        self.send(made, url, [str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()])
        self.end(made, url, step)

    def begin(self, step: Path) -> str:
        """Publish the files, make room for the checkpoint `step`, and return its URL."""
        self.publish()
        url = places.join(self.url, str(step.relative_to(self.folder)))
        self._remove_step(url)  # what a killed save has left
        return url

    def send(self, made: Path, url: str, names: list[str]) -> None:
        """Write the files `names` of the folder `made` of a checkpoint, but for its manifest, to `url`."""

        def one(name: str) -> None:
            at = places.join(url, name)
            with buckets.content(made / name, at) as data:
                self.write(at, data)

        buckets.together(one, [name for name in names if name != MANIFEST])

    def end(self, made: Path, url: str, step: Path) -> None:
        """Let the checkpoint `step` count, of which all else is at `url`, and remove those that are no longer kept."""
        self.check()
        self.write(places.join(url, MANIFEST), (made / MANIFEST).read_bytes())
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
        return not is_beside(name) and not any(
            p in OWN or p == CHECKPOINTS or p.startswith(".") or p.endswith(PART) for p in parts
        )

    def _local(self, wanted: Callable[[str], bool] | None = None) -> list[str]:
        """Names of the files here that are `wanted`, by default those that are published."""
        wanted = wanted or self._is_published
        found = []
        for place, folders, files in os.walk(self.folder):
            below = Path(place).relative_to(self.folder)
            folders[:] = [name for name in folders if self._is_published(name)]
            found += [str(below / name) for name in files if wanted(name)]
        return found
