"""Progress on standard error, on a terminal alone: a bar for counted work, a spinner for what cannot be counted."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from eve_jax.process.beats import beat

T = TypeVar("T")
BYTES = "bytes"  # a unit that is shown as kB, MB, GB
FORCED = ("FORCE_COLOR", "TTY_COMPATIBLE")  # variables by which rich takes what is no terminal for one


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
        self._drawn = None
        if not off and _is_terminal():
            from eve_jax.process.progress_drawn import DrawnBar

            self._drawn = DrawnBar(title, total, done, unit, status, keep, unit == BYTES)

    def advance(self, count: int = 1) -> None:
        """Count `count` more."""
        beat()
        if self._drawn:
            self._drawn.advance(count)

    def set(self, done: int, status: str = "") -> None:
        """Set what is counted to `done`, and the status text."""
        beat()
        if self._drawn:
            self._drawn.set(done, status)

    def close(self) -> None:
        """Stop showing progress."""
        if self._drawn:
            self._drawn.close()

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
    if off:
        yield lambda title: None
    elif _is_terminal():
        from eve_jax.process.progress_drawn import DrawnSpinner

        drawn = DrawnSpinner(title)
        try:
            yield drawn.show
        finally:
            drawn.close()
    else:
        started = time.monotonic()

        def show(title: str) -> None:
            if lines:
                print(f"{time.monotonic() - started:6.0f} s  {title}", file=sys.stderr, flush=True)

        yield show


def _is_terminal() -> bool:
    """Whether rich takes standard error for a terminal; it is asked where that may be."""
    try:
        may_be = any(os.environ.get(name) for name in FORCED) or sys.stderr.isatty()
    except (AttributeError, ValueError):  # none, or one that is closed
        return False
    if may_be:
        from eve_jax.process.progress_drawn import is_terminal

        return is_terminal()
    return False
