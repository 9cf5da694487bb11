"""What C++ in this process writes to standard error, the compiler's warnings above all."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO


@contextmanager
def captured() -> Iterator[IO[bytes]]:
    """Standard error of this process and of the C++ in it, as a file; Python's own `sys.stderr` works as before."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        shown = os.dup(2)
        before = sys.stderr
        os.dup2(file.fileno(), 2)
        try:
            with os.fdopen(os.dup(shown), "w", buffering=1) as sys.stderr:
                yield file
        finally:
            sys.stderr = before
            os.dup2(shown, 2)
            os.close(shown)


def read(file: IO[bytes]) -> str:
    """All that was written to a captured file so far."""
    file.seek(0)
    return file.read().decode(errors="replace")
