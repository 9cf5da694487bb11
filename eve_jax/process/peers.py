"""What the processes of a run tell each other: values, failures, and the step after which they all stop.

All goes through the key-value store of JAX's coordination service, never through the devices, so training waits for
nothing. A thread of each process looks at the notices once in POLL seconds. A peer that dies without a word is noticed
by the service's heartbeats (see `eve_jax.process.connect`).
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from eve_jax.process.beats import beat

POLL = 0.5  # seconds between looks at the notices
PREFIX, NOTICES, LEAVING, VALUES = "eve_jax/", "eve_jax/notices/", "eve_jax/leaving/", "eve_jax/values/"
PATIENCE = 10.0  # seconds that process 0, with which all notices end, waits for the others to read its last one
FAILED, STOPPED = "failed", "interrupted"
Notices = dict[str, str]  # name without NOTICES -> text


class Peers:
    """The other processes of this run. `client` is the process's client of the coordination service."""

    def __init__(self, client: Any, index: int, count: int):
        self.client, self.index, self.count = client, index, count
        self.agreed_to_stop = False
        self._calls = 0
        self._watchers: list[Callable[[Notices], None]] = []
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._thread.start()

    def gather(self, name: str, value: str = "") -> list[str]:
        """Every process's `value`, by process; waits until all have called it.

        All processes make the same calls in the same order. It can be interrupted by a signal.
        """
        self._calls += 1
        where = f"{PREFIX}gather/{self._calls}/{name}/"
        self.client.key_value_set(f"{where}{self.index}", value)
        wait = 0.01
        while len(found := self.client.key_value_dir_get(where)) < self.count:
            time.sleep(wait)
            wait = min(2 * wait, POLL)
        beat()
        return [text for _, text in sorted(found, key=lambda item: int(item[0].rpartition("/")[2]))]

    def put(self, name: str, value: str) -> None:
        """Keep a value that any process may look up; nobody is told."""
        self.client.key_value_set(VALUES + name, value, allow_overwrite=True)

    def found(self, name: str) -> dict[str, str]:
        """Return the values whose names begin with the folder `name` (which ends with /), by what follows it."""
        where = VALUES + name
        return {key.removeprefix(where): text for key, text in self.client.key_value_dir_get(where)}

    def post(self, name: str, text: str) -> None:
        """Leave a notice for every process; the last of a name counts."""
        self.client.key_value_set(NOTICES + name, text, allow_overwrite=True)

    def take_down(self, name: str) -> None:
        """Remove a notice."""
        self.client.key_value_delete(NOTICES + name)

    def watch(self, watcher: Callable[[Notices], None]) -> Callable[[], None]:
        """Call `watcher` with all notices, in a thread, at every look; returns what ends that.

        What it raises, `check` raises in the main thread.
        """
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def check(self) -> None:
        """Raise what a watcher has raised."""
        if self._error is not None:
            raise self._error

    def fail(self, message: str, kind: str = FAILED) -> None:
        """Tell the others that this process ends, and why; they end, too."""
        self._ended.set()
        with contextlib.suppress(Exception):  # the service may be what has failed
            self.post(f"{kind}/{self.index}", message)
            limit = time.monotonic() + PATIENCE * (self.index == 0)
            while time.monotonic() < limit and len(self.client.key_value_dir_get(LEAVING)) < self.count - 1:
                time.sleep(POLL / 5)

    def close(self) -> None:
        """Look at no more notices."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(POLL):
            try:
                found = self.client.key_value_dir_get(NOTICES)
            except Exception:  # the service is gone: its own client ends the process
                continue
            notices = {key.removeprefix(NOTICES): text for key, text in found}
            self._leave_with(notices)
            for watcher in tuple(self._watchers):
                try:
                    watcher(notices)
                except BaseException as error:
                    self._error = self._error or error

    def _leave_with(self, notices: Notices) -> None:
        """End this process when another has said that it ends."""
        for name, text in notices.items():
            kind, _, who = name.partition("/")
            if kind in (FAILED, STOPPED) and not self._ended.is_set():
                line = f"error: process {who} of {self.count} {'failed' if kind == FAILED else 'was stopped'}: {text}"
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    print(line, file=sys.stderr, flush=True)
                    self.client.key_value_set(f"{LEAVING}{self.index}", "")
                os._exit(1 if kind == FAILED else 130)


class StopAgreement:
    """The step after which all processes stop when any of them is asked to.

    A request becomes a notice. Every process's thread answers it with the number of the step that its main thread has
    begun or is about to begin; from then on the main thread begins no later step until all have answered. The largest
    number is the last step. So all stop after the same one, and nothing waits before a stop is asked for.
    """

    def __init__(self, peers: Peers | None, name: str, start: int, steps: int):
        """Of a run called `name` from step `start` to `steps`, which is its last in any case."""
        self.peers, self.name, self.steps = peers, f"stop/{name}/{start}", steps
        self._begun = start + 1
        self._answered = False
        self._last: int | None = None
        self._changed = threading.Condition()
        self._asked = False
        self._end: Callable[[], None] = lambda: None

    def after(self, done: int, wanted: bool) -> bool:
        """Whether to stop after step `done` (counted from 1), when `wanted` says that this process is asked to.

        To be called after every step. Raises what a watcher of the peers has raised.
        """
        peers = self.peers
        if peers is None:
            return wanted
        peers.check()
        if wanted and not self._asked:
            self._asked = True
            peers.post(f"{self.name}/asked", "")
        if done == self.steps:
            return wanted
        with self._changed:
            while self._answered and self._last is None:
                self._changed.wait(1.0)
            if self._last is not None and done >= self._last:
                peers.agreed_to_stop = True
                return True
            self._begun = done + 1
            return False

    def __enter__(self) -> "StopAgreement":
        if self.peers is not None:
            self._end = self.peers.watch(self._on_notices)
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()  # answers no more requests

    def _on_notices(self, notices: Notices) -> None:
        peers = self.peers
        if peers is None or self._last is not None or f"{self.name}/asked" not in notices:
            return
        with self._changed:
            if not self._answered:
                self._answered = True
                peers.post(f"{self.name}/begun/{peers.index}", str(self._begun))
        begun = [int(text) for name, text in notices.items() if name.startswith(f"{self.name}/begun/")]
        if len(begun) == peers.count:
            with self._changed:
                self._last = max(begun)
                self._changed.notify_all()
