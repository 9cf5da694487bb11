"""Ctrl-C and SIGTERM as a request that training honours at its next safe point."""

import signal
from types import FrameType
from typing import Any

_asked = False  # a Ctrl-C came, even if the exception it raised was lost (Python drops those raised in callbacks)
_ready = False  # imports are over; an exception in the midst of a C extension's can crash the process


class Interrupted(Exception):
    """Training stopped on request, with its state saved; repeating the command goes on from there."""


def install() -> None:
    """Remember every Ctrl-C from now on; it raises KeyboardInterrupt once `ready` was called."""

    def handle(number: int, frame: FrameType | None) -> None:
        global _asked
        _asked = True
        if _ready:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)


def ready() -> None:
    """The imports are over: raise KeyboardInterrupt now if a Ctrl-C came, else when it comes."""
    global _ready
    _ready = True
    if _asked:
        raise KeyboardInterrupt


def asked() -> bool:
    """True when a Ctrl-C came since `install`."""
    return _asked


class StopRequest:
    """While active, the first SIGINT or SIGTERM sets `wanted`; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.wanted = asked()
        self._old: dict[int, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.wanted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.wanted = True
        print("\nstopping after this step, saving (Ctrl-C again to stop at once) ...", flush=True)

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)
