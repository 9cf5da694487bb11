"""One writer per folder: a lock that names its owner, and is taken over when its owner is gone.

    with locked(folder, "training"):  # InUse when another process holds it
        ...

Three operations of a `Store` are atomic: create if absent, renew by token, remove by token. `FolderStore` has them on
any file system with POSIX renames, also on NFS and Lustre without flock; `BucketStore` by preconditions of object
storage.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from eve_jax.errors import InUse, UserError
from eve_jax.process import places
from eve_jax.process.bucket_lock import BucketStore
from eve_jax.process.owner import FolderStore, Held, Owner

LOCK = "run.lock"
BEAT = 15.0  # seconds between renewals of a lock
LAPSE = 180.0  # a lock that was not renewed for as many seconds has no owner any more
POLL = 0.5  # seconds between looks at a lock that may have lapsed
PATIENCE = 10.0  # seconds until a lock that can be neither created nor read is reported
held_around: dict[str, "Lock"] = {}  # by URL: locks that a block of this process holds for the blocks inside of it
ALIVE, GONE, CHANGED = "alive", "gone", "changed"


class Store(Protocol):
    """Where one lock is kept. `place` names it for people."""

    place: str

    def create(self, owner: Owner) -> bool:
        """Create the lock with `owner` in it if there is none; return whether it did. Raises OSError."""

    def read(self) -> Held | None:
        """Return the lock as it is now, None when there is none."""

    def renew(self, token: str) -> bool:
        """Mark the lock as used now; return False when it is not that of `token` any more."""

    def remove(self, token: str) -> None:
        """Remove the lock if it is that of `token`."""


@dataclass
class Lock:
    """A lock that this process holds and renews in the background until `release`."""

    store: Store
    owner: Owner
    what: str

    def __post_init__(self) -> None:
        self._lost = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise InUse when the lock was removed or taken over: whoever did so writes in its place."""
        if self._lost:
            now = self.store.read()
            by = f"taken over by {now.owner}" if now else "removed"
            raise InUse(f"{self.store.place} was {by}: {self.what} ends here")

    def release(self) -> None:
        """Give the lock up."""
        self._over.set()
        self._thread.join(timeout=POLL)  # it may wait for storage that does not answer
        with contextlib.suppress(OSError):  # then the next one finds that this process is gone
            self.store.remove(self.owner.token)

    def _renew(self) -> None:
        while not self._over.wait(BEAT):
            with contextlib.suppress(OSError):  # storage that fails for a moment is for those to report who write
                if not self.store.renew(self.owner.token):
                    self._lost = True
                    return


@contextlib.contextmanager
def locked(folder: Path, what: str, name: str = LOCK) -> Iterator[Lock]:
    """Hold the lock `folder`/`name` in the block; the folder is made if it is not there.

    `what` is what the block does, for messages: "training". Raises InUse, in one line that says who it is, when
    another process holds the lock, and UserError when the folder cannot be written. Inside of a block that holds the
    lock of a folder in a bucket for others (`held_around`), it is that lock.
    """
    url = places.url_of(folder / name)
    if url is not None and url in held_around:
        yield held_around[url]
        return
    lock = acquire(FolderStore(folder / name) if url is None else BucketStore(url, LAPSE - 3 * BEAT), what)
    try:
        yield lock
    finally:
        lock.release()


def acquire(store: Store, what: str) -> Lock:
    """Take the lock in `store`, also from an owner that is gone, which is said on stdout; see `locked`."""
    owner = Owner.this_process()
    began = time.monotonic()
    gone: Owner | None = None
    while True:
        try:
            if store.create(owner):
                break
            held = store.read()
            if held is not None and (state := _watch(store, held, owner)) == GONE:
                gone = held.owner
                store.remove(gone.token)
        except OSError as error:
            raise UserError(f"{store.place} cannot be written: {error.strerror}") from error
        if held is not None and state == ALIVE:
            raise InUse(
                f"{store.place}: in use by {held.owner}; choose another folder (--workdir, --to, --out), wait "
                "for that process or stop it, or, if you are sure that it is gone, remove this lock"
            )
        if held is None:
            if time.monotonic() - began > PATIENCE:
                raise UserError(f"{store.place} is not a lock: remove it, and rerun the command")
            time.sleep(0.05)
    if gone is not None:
        print(f"{store.place}: taken over from {gone}, which is gone", flush=True)
    return Lock(store, owner, what)


def _watch(store: Store, held: Held, mine: Owner) -> str:
    """Return whether the owner of a lock is ALIVE or GONE, or that the lock has CHANGED hands.

    On its own machine that is known at once; elsewhere, by whether the lock is renewed.
    """
    if held.owner.same_machine(mine):
        return ALIVE if held.owner.is_alive() else GONE
    left = LAPSE - held.age
    if left > 0:
        print(f"{store.place}: held by {held.owner}; waiting up to {left:.0f} s to see if it is alive", flush=True)
    limit = time.monotonic() + left
    while time.monotonic() < limit:
        time.sleep(POLL)
        now = store.read()
        if now is None or now.owner.token != held.owner.token:
            return CHANGED
        if now.stamp != held.stamp:
            return ALIVE
    return GONE
