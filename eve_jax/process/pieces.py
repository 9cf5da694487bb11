"""Pieces of work shared out among processes, with a bar that says how far they are."""

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from eve_jax.errors import UserError
from eve_jax.process.progress import ProgressBar
from eve_jax.process.spawned import live_with_parent, without_main

T = TypeVar("T")
Tick = Callable[[], None]  # called for every record; in a process that was told to stop it raises
EVERY = 16  # records between two reports of a process
AHEAD = 2  # pieces waiting for each process
LOOK = 0.2  # seconds between two looks at the count
_process: dict[str, Any] = {}


class _Stopped(Exception):
    """The run was interrupted."""


def run_processes(
    work: Callable[[Any, Any, Tick], T],
    pieces: Sequence[Any],
    setup: Callable[[], Any],
    processes: int,
    title: str,
    total: int,
    done: int,
) -> list[T]:
    """[work(piece, setup(), tick) for piece in pieces], with `setup` called once in each process.

    All are picklable. `work` calls `tick` for each record; of `total` records `done` were there before. With one
    process the work is done in this one. Raises what `work` raises; `UserError` when a process dies.
    """
    processes = min(processes, len(pieces))
    with ProgressBar(title, total, done, "records") as bar:

        def show(count: int) -> None:
            bar.set(done + count)

        if processes <= 1:
            return _alone(work, pieces, setup, show)
        context = multiprocessing.get_context("spawn")  # threads and open files of this process stay here
        count, stop = context.Value("q", 0), context.Event()
        executor = ProcessPoolExecutor(processes, context, _enter, (setup, count, stop))
        try:
            return _results_in_order(executor, work, pieces, processes, lambda: show(count.value))
        except BrokenProcessPool:
            raise UserError(
                f"{title}: a process died (out of memory?); rerun the command to resume, perhaps with fewer --processes"
            ) from None
        finally:
            stop.set()
            executor.shutdown(cancel_futures=True)


def _alone(
    work: Callable[[Any, Any, Tick], T], pieces: Iterable[Any], setup: Callable[[], Any], show: Callable[[int], None]
) -> list[T]:
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1
        if count % EVERY == 0:
            show(count)

    opened = setup()
    return [work(piece, opened, tick) for piece in pieces]


def _results_in_order(
    executor: ProcessPoolExecutor, work: Any, pieces: Sequence[Any], processes: int, look: Callable[[], None]
) -> list[Any]:
    """The results in the order of `pieces`, few of which are handed out at a time."""
    results: list[Any] = [None] * len(pieces)
    waiting = list(enumerate(pieces))[::-1]
    running: dict[Future, int] = {}
    while waiting or running:
        while waiting and len(running) < AHEAD * processes:
            number, piece = waiting.pop()
            with without_main():  # the first ones start the processes
                running[executor.submit(_do, work, piece)] = number
        finished, _ = wait(running, LOOK, FIRST_COMPLETED)
        for future in finished:
            results[running.pop(future)] = future.result()
        look()
    return results


def _enter(setup: Callable[[], Any], count: Any, stop: Any) -> None:
    """The beginning of a process."""
    live_with_parent()
    _process.update(opened=setup(), count=count, stop=stop, ticks=0)


def _tick() -> None:
    _process["ticks"] += 1
    if _process["ticks"] % EVERY == 0:
        with _process["count"].get_lock():
            _process["count"].value += EVERY
        if _process["stop"].is_set():
            raise _Stopped


def _do(work: Callable[[Any, Any, Tick], T], piece: Any) -> T:
    return work(piece, _process["opened"], _tick)
