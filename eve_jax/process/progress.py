"""Progress on standard error, on a terminal alone: a bar for counted work, a spinner for what cannot be counted."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from eve_jax.process.beats import beat

T = TypeVar("T")
BYTES = "bytes"  # a unit that is shown as kB, MB, GB


class _Rate(ProgressColumn):
    """Units a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.speed or (task.completed - task.fields["begun"]) / max(task.elapsed or 0, 1e-9)
        return Text(f"{speed:,.{0 if speed >= 100 else 1}f} {self.unit}/s" if speed else task.fields["status"])


class ProgressBar:
    """A bar that counts from `done` to `total`; `close` takes it off the screen's live part.

    unit: what is counted, shown with its rate; `BYTES` are scaled; "" shows the text of `set` instead. status: text in
    place of the rate until something is counted. keep: True leaves the full bar on the screen. Nothing is shown with
    `off`, or where standard error is no terminal.
    """

    def __init__(
        self,
        title: str,
        total: int,
        done: int = 0,
        unit: str = "",
        status: str = "",
        keep: bool = False,
        off: bool = False,
    ) -> None:
        columns: tuple[ProgressColumn, ...] = (TextColumn("{task.description}", markup=False), BarColumn())
        if unit == BYTES:
            columns += (DownloadColumn(), TransferSpeedColumn())
        else:
            rate = _Rate(unit) if unit else TextColumn("{task.fields[status]}", markup=False)
            columns += (MofNCompleteColumn(), rate)
        self._progress = _progress((*columns, TimeRemainingColumn()), keep, off)
        self._task = self._progress.add_task(title, total=total, completed=done, status=status, begun=done)
        self._progress.start()

    def advance(self, count: int = 1) -> None:
        """Count `count` more."""
        beat()
        self._progress.advance(self._task, count)

    def set(self, done: int, status: str = "") -> None:
        """Set what is counted to `done`, and the status text."""
        beat()
        self._progress.update(self._task, completed=done, status=status)

    def close(self) -> None:
        """Stop showing progress."""
        self._progress.stop()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def tracked(items: Sequence[T], title: str, unit: str = "", least: int = 1, off: bool = False) -> Iterator[T]:
    """Yield `items` with a bar that counts them, unless they are fewer than `least` or `off` is set."""
    with ProgressBar(title, len(items), unit=unit, off=off or len(items) < least) as bar:
        for item in items:
            yield item
            bar.advance()


@contextmanager
def spinner(title: str = "", lines: bool = False, off: bool = False) -> Iterator[Callable[[str], None]]:
    """Show `title` and the seconds it takes while the block runs; yields the function that changes the title.

    lines: where standard error is no terminal, each new title is printed there as a line.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with _progress(columns, False, off) as progress:
        task = progress.add_task(title, total=None)
        started = time.monotonic()

        def show(title: str) -> None:
            progress.reset(task, description=title, total=None)
            if lines and not off and not progress.console.is_terminal:
                print(f"{time.monotonic() - started:6.0f} s  {title}", file=sys.stderr, flush=True)

        yield show


def _progress(columns: Sequence[ProgressColumn], keep: bool, off: bool) -> Progress:
    """Return what draws `columns` on standard error. Prints to standard output stay there unless it is the terminal."""
    console = Console(stderr=True)
    return Progress(
        *columns,
        console=console,
        transient=not keep,
        disable=off or not console.is_terminal,
        refresh_per_second=4,
        redirect_stdout=sys.stdout.isatty(),
    )
