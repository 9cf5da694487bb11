"""A limit on the age of the last finished step: a run that hangs ends, and says where each of its processes was.

A hung collective, a dead disk or a lost message leaves processes that wait for ever and look alive. In each process a
thread looks for progress: a step whose result is there, a phase or an item of a list that ended (`beats`), a compiler
at work. Progress of any process counts for all, since they wait for each other. When there was none for the limit, all
write their stacks into the work folder, and the run ends with one line.
"""

import contextlib
import os
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any

from eve_jax.process.beats import beat, count
from eve_jax.process.files import write_atomically
from eve_jax.process.peers import Notices, Peers

TICKS, TOLD = 20, 8  # looks at the own progress, and news for the others, during the limit
COMPILING = 4  # limits that the compiler may take
ANSWER = 15.0  # seconds that the others have to write their stacks
LOGS = "logs"  # folder of the work folder that takes the stacks
FIELD = "config.train.timeout"
_COMPILER = ("backend_compile_and_load", "compile_or_get_cached")  # functions of JAX around the compiler
_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"


class Watchdog:
    """Watches the stage `name` of the work folder `workdir`; `limit` in seconds, 0: not at all. A context manager."""

    def __init__(self, limit: float, workdir: Path, name: str, peers: Peers | None):
        self.limit, self.folder, self.name, self.peers = limit, workdir / LOGS, name, peers
        self.index = peers.index if peers else 0
        self._main = threading.get_ident()
        self._steps: deque[tuple[int, Any]] = deque()
        self._done = ""
        self._over = threading.Event()
        self._dumped = threading.Lock()
        self._left = False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._end = lambda: None

    def __enter__(self) -> "Watchdog":
        if self.limit:
            if self.peers is not None:
                self._end = self.peers.watch(self._on_notices)
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._end()

    def dispatched(self, step: int, result: Any) -> None:
        """Take note of step `step`, which is finished when the array `result` is there."""
        if self.limit:
            self._steps.append((step, result))

    def _watch(self) -> None:
        tick = self.limit / TICKS
        last = told = compiling = before = time.monotonic()
        seen, of_others = count(), self._of_others()
        while not self._over.wait(tick):
            now = time.monotonic()
            if now - before > 3 * tick:  # this process was suspended, not at work
                last += now - before - tick
            before = now
            self._finish_steps()
            at_work = self._compiles()
            compiling = compiling if at_work else now
            if count() != seen or (at_work and now - compiling < COMPILING * self.limit):
                seen, last = count(), now
                if now - told > self.limit / TOLD:
                    told = now
                    self._tell(f"{self.index} {now}")
            elif now - last > self.limit / TOLD and (news := self._of_others()) != of_others:
                of_others, last = news, now
            if now - last > self.limit:
                self._give_up(now - last)
                return

    def _finish_steps(self) -> None:
        while self._steps:
            step, result = self._steps[0]
            with contextlib.suppress(RuntimeError):  # of an array that was deleted, whose step is over
                if not result.is_ready():
                    return
            self._steps.popleft()
            self._done = f"step {step}"
            beat()

    def _compiles(self) -> bool:
        frame = sys._current_frames().get(self._main)
        while frame is not None:
            if frame.f_code.co_name in _COMPILER:
                return True
            frame = frame.f_back
        return False

    @property
    def _key(self) -> str:
        return f"alive/{self.name}/"

    def _tell(self, news: str) -> None:
        if self.peers is not None:
            with contextlib.suppress(Exception):  # a service that is gone ends the process itself
                self.peers.put(f"{self._key}last", news)

    def _of_others(self) -> str:
        try:
            return self.peers.found(self._key).get("last", "") if self.peers is not None else ""
        except Exception:  # as above
            return ""

    def _give_up(self, age: float) -> None:
        """Have all processes write their stacks, say where they are, and end this one; the others follow."""
        where = {str(self.index): self._dump()}
        peers = self.peers
        if peers is not None:
            with contextlib.suppress(Exception):
                peers.post(f"stuck/{self.name}/{self.index}", "")
                limit = time.monotonic() + ANSWER
                while len(where) < peers.count and time.monotonic() < limit:
                    where |= peers.found(f"stacks/{self.name}/")
                    time.sleep(0.2)
        line = self._line(age, where)
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            print(f"error: {line}", file=sys.stderr, flush=True)
            if peers is not None:
                peers.fail(line)
        os._exit(1)

    def _line(self, age: float, where: dict[str, str]) -> str:
        after = f"since {self._done} of" if self._done else "in"
        places: dict[str, list[str]] = {}
        for number, place in sorted(where.items(), key=lambda item: int(item[0])):
            places.setdefault(place, []).append(number)
        names = "; ".join(f"{_processes(numbers)} at {place}" for place, numbers in places.items())
        silent = self.peers.count - len(where) if self.peers else 0
        more = f"; {silent} did not answer" if silent else ""
        return (
            f"no progress for {age:.0f} s ({FIELD}={self.limit:g}) {after} {self.name}: {names}{more}; the stacks are "
            f"in {self.folder}/stacks-process-*.txt. Start all processes again to resume from the last checkpoint; "
            f"where a step takes so long, raise {FIELD}"
        )

    def _on_notices(self, notices: Notices) -> None:
        if self.peers is None or self._over.is_set():
            return
        if any(name.startswith(f"stuck/{self.name}/") for name in notices):
            self._dump()

    def _dump(self) -> str:
        """Write the stacks of all threads, once; returns where the main thread is in our code, and tells the others."""
        frames = sys._current_frames()
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        main = frames.get(self._main)
        inside = [f for f in traceback.extract_stack(main) if f.filename.startswith(_PACKAGE)] if main else []
        place = f"{inside[-1].filename.removeprefix(_PACKAGE)}:{inside[-1].lineno}" if inside else "an unknown place"
        with self._dumped:
            if self._left:
                return place
            self._left = True
        text = "".join(
            f"thread {names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}\n"
            for ident, frame in frames.items()
        )
        with contextlib.suppress(Exception):  # the disk may be what hangs, or is full
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / f"stacks-process-{self.index}.txt", text)
        if self.peers is not None:
            with contextlib.suppress(Exception):
                self.peers.put(f"stacks/{self.name}/{self.index}", place)
        return place


def _processes(numbers: list[str]) -> str:
    return f"process{'es' if len(numbers) > 1 else ''} {', '.join(numbers)}"
