"""The engine that calls a function for many shards: Daft, here or on a Ray cluster; no other file imports it.

Daft schedules; what is computed is a plain function of a shard's number, which leaves its result as a file. So the
files are the same whoever makes them, and every call does only what is missing.
"""

import atexit
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.pool import ThreadPool
from threading import Condition, Lock
from typing import Any

from eve_jax.curate.config import EngineConfig
from eve_jax.errors import Hanging, UserError, install
from eve_jax.process.cores import own_cores
from eve_jax.process.progress import ProgressBar

QUIET = {"DO_NOT_TRACK": "1", "DAFT_ANALYTICS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0", "RAY_USAGE_STATS_ENABLED": "0"}
PATIENCE = 10.0  # seconds that shards at work get when a run ends before they do
MOST_TASKS = 4096  # of Ray; each then makes several shards
_used: list[EngineConfig] = []


def run(make: Callable[[int], None], shards: Iterable[int], engine: EngineConfig, title: str) -> None:
    """Call `make(number)` for each of the shards, several at a time, with a bar.

    make: picklable; raises UserError or OSError for what users can change, whose text ends the run. title: of the bar;
    "" shows none. Raises UserError.
    """
    numbers = list(shards)
    if not numbers:
        return
    daft = start(engine)
    many = engine.runner == "ray"  # there, a partition is a task; here, a batch is what a thread takes at a time

    @daft.cls(use_process=False)
    class Work:
        def __init__(self, make: Callable[[int], None], folder: str) -> None:
            self.make = make
            if folder:  # that relative paths start from; where it is not there, nothing that they name is either
                with suppress(OSError):
                    os.chdir(folder)

        @daft.method(return_dtype=daft.DataType.string())
        def call(self, number: int) -> str:
            return _message(self.make, number)

    table = daft.from_pydict({"number": numbers})
    table = table.into_partitions(min(len(numbers), MOST_TASKS)) if many else table.into_batches(1)
    messages = table.select(Work(make, os.getcwd() if many else "").call(table["number"]).alias("message"))
    _calls.stopped = False
    try:
        with ProgressBar(title, len(numbers), unit="shards", off=not title) as bar:
            for row in messages.iter_rows():
                if row["message"]:
                    raise UserError(row["message"])
                bar.advance()
    except UserError as error:
        if not _calls.stop():
            raise Hanging(str(error)) from None
        raise
    except BaseException:
        _calls.stop()
        raise


class _Calls:
    """The calls of this process that are at work: when one failed no other begins, and Python waits for them to end."""

    def __init__(self) -> None:
        self.stopped, self._count, self._changed = False, 0, Condition()

    @contextmanager
    def one(self) -> Iterator[bool]:
        """Count a call while the block runs; yields whether it is still wanted."""
        with self._changed:
            self._count += 1
        try:
            yield not self.stopped
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def stop(self) -> bool:
        """Begin no more calls, and wait a while for those at work; return whether they have ended."""
        with self._changed:
            self.stopped = True
            return self._changed.wait_for(lambda: not self._count, PATIENCE)


_calls = _Calls()
_making = Lock()


@cache
def _threads() -> ThreadPool:
    """Return threads of Python's, which end with the process.

    Those of Daft have a Python state for a call alone: what libraries keep for a thread is lost after each, and JAX,
    whose own is then removed without the interpreter, ends the process.
    """
    threads = ThreadPool(max([own_cores(), *(engine.workers for engine in _used)]))
    atexit.register(threads.terminate)  # does not wait for those at work
    return threads


def _message(make: Callable[[int], None], number: int) -> str:
    """Return "" when the shard was made, else what went wrong, which Daft would wrap in its own words."""
    try:
        with _calls.one() as wanted:
            if wanted:
                with _making:
                    threads = _threads()
                threads.apply(make, (number,))
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or 'writing to the output folder'}: {error.strerror or error}; make room, then rerun"
    return ""


def start(engine: EngineConfig) -> Any:
    """Return Daft with the runner of `engine`. Raises UserError without it, or when the process has another one."""
    daft = _imported()
    if _used and _used[0] != engine:
        raise UserError(f"this process already works with {_used[0]}; start another one for {engine}")
    if not _used:
        if engine.runner == "ray":
            _start_ray(daft, engine)
        else:
            daft.set_runner_native(engine.workers or own_cores())
        _used.append(engine)
    return daft


def nodes(engine: EngineConfig) -> int:
    """Return the number of machines that the runner of `engine` works on. Raises UserError as `start` does."""
    start(engine)
    if engine.runner != "ray":
        return 1
    import ray

    return sum(bool(node["Alive"]) for node in ray.nodes())


@cache
def _imported() -> Any:
    os.environ.update(QUIET)
    try:
        import daft
    except ImportError as error:
        raise UserError(f"curation requires Daft ({error}): {install('curate')}") from None
    return daft


def _start_ray(daft: Any, engine: EngineConfig) -> None:
    try:
        import ray
    except ImportError as error:
        raise UserError(f"config.engine.runner=ray requires Ray ({error}): {install('curate,ray')}") from None
    try:
        ray.init(address=engine.address or None, ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
        daft.set_runner_ray(noop_if_initialized=True)
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"no Ray cluster at config.engine.address={engine.address!r} ({said})") from None
