"""The batches of a run, taken by a thread of its own that is watched: hanging and dying are noticed and said."""

import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from eve_jax.errors import Hanging, UserError

T = TypeVar("T")
_TICK = 0.2  # seconds between looks at the thread while waiting for it
_LOOK = 5.0  # seconds to look up the place of a record that a thread reads
_DATA = f"{Path(__file__).parents[1] / 'data'}{os.sep}"  # the files of the code that builds batches


class _End:
    """Follows the last item; `error` is what ended the iteration, if it was no ordinary end."""

    def __init__(self, error: BaseException | None = None):
        self.error = error


def watched(
    items: Iterator[T],
    timeout: float,
    stopped: Callable[[], bool] = lambda: False,
    reading: Mapping[int, object] = MappingProxyType({}),
) -> Iterator[T]:
    """Yield the same items, the next one fetched while the last is worked on.

    Ends early when `stopped()` while waiting. Raises what `items` raises; `Hanging` when an item takes longer than
    `timeout` seconds (0: no limit), naming where the data threads are and what they are `reading`
    (`where_data_threads_are`); UserError when the thread died.
    """
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=1)
    over = threading.Event()

    def hand_over(item: T | _End) -> None:
        while not over.is_set():
            try:
                return ready.put(item, timeout=_TICK)
            except queue.Full:
                continue

    def pull() -> None:
        try:
            for item in items:
                hand_over(item)
                if over.is_set():
                    return
            hand_over(_End())
        except BaseException as error:
            hand_over(_End(error))

    thread = threading.Thread(target=pull, name="batches", daemon=True)
    thread.start()
    try:
        while not isinstance(item := _next(ready, thread, timeout, stopped, reading), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        over.set()


def _next(
    ready: "queue.Queue[T | _End]",
    thread: threading.Thread,
    timeout: float,
    stopped: Callable[[], bool],
    reading: Mapping[int, object],
) -> T | _End:
    began = time.monotonic()
    while True:
        alive = thread.is_alive()
        try:
            return ready.get(timeout=_TICK if alive else 0.01)
        except queue.Empty:
            if stopped():
                return _End()
            if not alive:
                raise UserError("the data thread died without an error; rerun the command") from None
            if timeout and time.monotonic() - began > timeout:
                raise Hanging(
                    f"no batch for config.data.timeout={timeout:g} seconds; {where_data_threads_are(reading)}. "
                    "Fix what they wait for (a disk, a network folder) or raise config.data.timeout; then rerun the "
                    "command"
                ) from None


def where_data_threads_are(reading: Mapping[int, object]) -> str:
    """Return what the threads that build batches are doing: file, line and the record each of them reads.

    reading: the records being read, by the identifiers of their threads (`RowBuilder.reading`).
    """
    found = set()
    for thread, frame in sys._current_frames().items():
        inside = [call for call in traceback.extract_stack(frame) if call.filename.startswith(_DATA)]
        if inside and thread != threading.get_ident():
            record = f" (record {_text(reading[thread])})" if thread in reading else ""
            found.add(f"{inside[-1].filename.removeprefix(_DATA)}:{inside[-1].lineno}{record}")
    return f"its threads are at {', '.join(sorted(found))}" if found else "no thread is building any"


def _text(record: object) -> str:
    """Return `record` as a text: looking it up may read the very storage that hangs, so not for long."""
    found: list[str] = []
    look = threading.Thread(target=lambda: found.append(str(record)), daemon=True)
    look.start()
    look.join(_LOOK)
    return found[0] if found else "unknown: its file cannot be read"
