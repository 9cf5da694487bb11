"""The batches of a run, taken by a thread of its own that is watched: hanging and dying are noticed and said."""

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TypeVar

from eve_jax.data.rows.build import RowBuilder
from eve_jax.errors import Hanging, UserError

T = TypeVar("T")
_TICK = 0.2  # seconds between looks at the thread while waiting for it
_DATA = Path(__file__).parents[1] / "data"


class _End:
    """Follows the last item; `error` is what ended the iteration, if it was no ordinary end."""

    def __init__(self, error: BaseException | None = None):
        self.error = error


def watched(items: Iterator[T], timeout: float, stopped: Callable[[], bool] = lambda: False) -> Iterator[T]:
    """The same items, the next one fetched while the last is worked on.

    Ends early when `stopped()` while waiting. Raises what `items` raises; `Hanging` when an item takes longer than
    `timeout` seconds (0: no limit), naming where the data threads are; UserError when the thread died.
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
        while not isinstance(item := _next(ready, thread, timeout, stopped), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        over.set()


def _next(
    ready: "queue.Queue[T | _End]", thread: threading.Thread, timeout: float, stopped: Callable[[], bool]
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
                raise UserError("the thread that builds batches died without a word; rerun the command") from None
            if timeout and time.monotonic() - began > timeout:
                raise Hanging(
                    f"no batch for config.data.timeout={timeout:g} seconds; {where_data_threads_are()}. Mend what they "
                    "wait for (a disk, a network folder), or raise config.data.timeout; then rerun the command"
                ) from None


def where_data_threads_are() -> str:
    """What the threads that build batches are doing: file, line and, where it is known, the record."""
    found = []
    for number, frame in sys._current_frames().items():
        if number == threading.get_ident():
            continue
        stack = list(_stack(frame))
        record = next((r for f in stack if (r := _record(f))), "")
        ours = next((f for f in stack if Path(f.f_code.co_filename).parent == _DATA), None)
        if record or ours is not None:
            at = ours or stack[0]
            reading = f" (record {record})" if record else ""
            found.append(f"{Path(at.f_code.co_filename).name}:{at.f_lineno}{reading}")
    return "its threads are at " + ", ".join(sorted(set(found))) if found else "no thread is building any"


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    """Frames from the innermost outwards."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _record(frame: FrameType) -> str:
    """The record that a frame of `RowBuilder._sample` is at; "" for other frames."""
    if frame.f_code is not RowBuilder._sample.__code__:
        return ""
    builder, entry = frame.f_locals["self"], frame.f_locals["entry"]
    return builder.records.where(entry[0])
