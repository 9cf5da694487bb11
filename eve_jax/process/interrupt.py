"""Ctrl-C and SIGTERM as a request that training honors at its next safe point."""

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_asked = False  # one came, even if the exception it raised was lost (Python drops those raised in callbacks)
_ready = False  # imports are over; an exception in the midst of a C extension's can crash the process


class Interrupted(Exception):
    """Training stopped on request, with its state saved; rerunning the command resumes from there."""


def install() -> None:
    """Remember every Ctrl-C and SIGTERM from now on; they raise KeyboardInterrupt once `ready` was called."""

    def handle(number: int, frame: FrameType | None) -> None:
        global _asked
        _asked = True
        if _ready:
            raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, handle)


def ready() -> None:
    """The imports are over: raise KeyboardInterrupt now if a Ctrl-C or SIGTERM came, else when it comes."""
    global _ready
    _ready = True
    if _asked:
        raise KeyboardInterrupt


def done() -> None:
    """All is written: a SIGTERM that comes while Python ends does not make the run look like one that failed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def asked() -> bool:
    """True when a Ctrl-C or SIGTERM came since `install`, also one that a `StopRequest` took."""
    return _asked


def tell(stream: Any, text: bytes) -> None:
    """Write to a stream from a signal's handler; nothing where it is no file, as in a notebook.

    Not by print: the signal may have come in the midst of one, which cannot be entered twice.
    """
    with suppress(OSError, ValueError, AttributeError):  # io.UnsupportedOperation is the first two
        os.write(stream.fileno(), text)


class StopRequest:
    """While active, the first Ctrl-C or SIGTERM sets `wanted`; a second Ctrl-C interrupts at once.

    doing: what is done before the end, for people.
    """

    def __init__(self, doing: str = "stopping after this step, saving") -> None:
        self.wanted = asked()
        self._text = f"\n{doing} (Ctrl-C again to stop at once) ...\n".encode()
        self._old: dict[int, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        global _asked
        if self.wanted and number == signal.SIGINT:
            raise KeyboardInterrupt
        _asked = self.wanted = True
        tell(sys.stdout, self._text)

    def __enter__(self) -> "StopRequest":
        here = threading.current_thread() is threading.main_thread()  # others get no signals
        for number in SIGNALS if here else ():
            self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)
