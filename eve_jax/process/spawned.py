"""Processes of Python that are started from nothing: they import what they are given to do, not the running command."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_one_at_a_time = threading.RLock()


@contextmanager
def without_main() -> Iterator[None]:
    """Let processes that are spawned in the block not import the module that runs as a command.

    It may be a script without `if __name__ == "__main__"`, and a command loads JAX, which no worker needs.
    """
    with _one_at_a_time:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def live_with_parent() -> None:
    """In a new process: leave signals to the parent, and end when it ends, however that is."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
