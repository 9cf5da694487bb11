"""What native libraries write and how they end a process, made readable.

JAX's coordination service ends a process whose peer is gone by a fatal log entry and abort(), which no Python code can
catch. So in a run of several processes the text of native libraries (file descriptors 1 and 2) goes to a log file,
Python's own output stays where it was, and abort() ends the process with one line that says what happened.
"""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TAIL = 20_000  # bytes at the end of the log that are searched for the reason
_keep: list[Any] = []  # what C code points to


class NativeOutput:
    """Sends the output of native libraries to `file` from now on, and turns abort() into a line and exit status 1."""

    def __init__(self, file: Path):
        file.parent.mkdir(parents=True, exist_ok=True)
        self.file = file
        self.start = file.stat().st_size if file.exists() else 0
        log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for name, number in (("stdout", 1), ("stderr", 2)):
            stream = getattr(sys, name)
            stream.flush()
            own = os.fdopen(os.dup(number), "w", 1, stream.encoding, "backslashreplace")
            os.dup2(log, number)
            setattr(sys, name, own)
        os.close(log)
        self.stderr = sys.stderr.fileno()

    def rename(self, file: Path) -> None:
        """Give the log its final name; what an earlier process left there is replaced."""
        self.file.replace(file)
        self.file = file

    def on_abort(self, describe: Callable[[str], str]) -> None:
        """On abort(), print `error: ` and what `describe` makes of the log's tail; exit with status 1."""

        def handle(number: int) -> None:
            line = f"error: {describe(self.tail())}; details in {self.file}\n"
            os.write(self.stderr, line.encode(errors="replace"))
            os._exit(1)

        handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(handle)
        _keep.append(handler)
        libc = ctypes.CDLL(None)
        libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
        libc.signal.restype = ctypes.c_void_p
        libc.signal(int(signal.SIGABRT), ctypes.cast(handler, ctypes.c_void_p))

    def tail(self) -> str:
        """The end of what this process has written to the log."""
        try:
            with self.file.open("rb") as file:
                file.seek(max(self.start, self.file.stat().st_size - TAIL))
                return file.read().decode(errors="replace")
        except OSError:
            return ""


def lost_peer(tail: str, count: int, start_timeout: int) -> str:
    """One line for people from the fatal log entry of JAX's coordination service in a run of `count` processes."""
    fatal = tail.rpartition("absl::Status:")[2]
    if taken := re.search(r"ABORTED: \D*(\d+) unexpectedly tried to connect", fatal or tail):
        return (
            f"something else has connected as process {taken[1]} of {count}: that process started once more, another "
            "run at the same port, or a stranger (docs/tpu.md on the port of process 0); start all processes again to "
            "resume from the last checkpoint"
        )
    gone = re.search(r"heartbeats\):\s*([\d,\s]+?)\s*(?:The tasks|\n\n|$)", fatal)
    if gone:
        numbers = ", ".join(re.findall(r"\d+", gone[1]))
        who = f"process {numbers} of {count} has died or is out of reach"
    elif "RegisterTask" in fatal:
        return f"not all {count} processes were there within {start_timeout} s (--start_timeout)"
    elif "coordination service" in fatal or "UNAVAILABLE" in fatal:
        who = f"process 0 of {count}, the coordinator, has died or is out of reach"
    else:
        return "a native library has ended the process"
    return f"{who}, so the run ends here; start all processes again to resume from the last checkpoint"
