"""Bars and spinners of `progress` on a terminal; imports rich, which takes 30 ms."""

import sys
from collections.abc import Sequence

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


class _Rate(ProgressColumn):
    """Units a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.speed or (task.completed - task.fields["begun"]) / max(task.elapsed or 0, 1e-9)
        return Text(f"{speed:,.{0 if speed >= 100 else 1}f} {self.unit}/s" if speed else task.fields["status"])


class DrawnBar:
    """A bar on the terminal of standard error, see `ProgressBar` of `progress`."""

    def __init__(self, title: str, total: int, done: int, unit: str, status: str, keep: bool, of_bytes: bool) -> None:
        columns: tuple[ProgressColumn, ...] = (TextColumn("{task.description}", markup=False), BarColumn())
        if of_bytes:
            columns += (DownloadColumn(), TransferSpeedColumn())
        else:
            rate = _Rate(unit) if unit else TextColumn("{task.fields[status]}", markup=False)
            columns += (MofNCompleteColumn(), rate)
        self._progress = _progress((*columns, TimeRemainingColumn()), keep)
        self._task = self._progress.add_task(title, total=total, completed=done, status=status, begun=done)
        self._progress.start()

    def advance(self, count: int) -> None:
        """Count `count` more."""
        self._progress.advance(self._task, count)

    def set(self, done: int, status: str) -> None:
        """Set what is counted to `done`, and the status text."""
        self._progress.update(self._task, completed=done, status=status)

    def close(self) -> None:
        """Stop showing it."""
        self._progress.stop()


class DrawnSpinner:
    """A spinner on the terminal of standard error, with a title and the seconds that it takes."""

    def __init__(self, title: str) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self._progress = _progress(columns, False)
        self._task = self._progress.add_task(title, total=None)
        self._progress.start()

    def show(self, title: str) -> None:
        """Change the title, and count its seconds anew."""
        self._progress.reset(self._task, description=title, total=None)

    def close(self) -> None:
        """Stop showing it."""
        self._progress.stop()


def is_terminal() -> bool:
    """Return whether standard error is a terminal, or something that is to be taken for one."""
    return Console(stderr=True).is_terminal


def _progress(columns: Sequence[ProgressColumn], keep: bool) -> Progress:
    """Return what draws `columns` on standard error. Prints to standard output stay there unless it is the terminal."""
    return Progress(
        *columns,
        console=Console(stderr=True),
        transient=not keep,
        refresh_per_second=4,
        redirect_stdout=sys.stdout.isatty(),
    )
