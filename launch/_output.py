"""Standard streams that never end a command with a traceback, whatever their encoding and reader."""

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

PIPE_CLOSED = 141  # the status of programs that end by SIGPIPE


def tolerate_encodings() -> None:
    """Write `\\xe9` and the like for characters that an output's encoding lacks, and read bytes that the input's lacks
    as halves of surrogate pairs, which `eve_jax.process.checks.encodable` finds."""
    kinds = ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace"))
    for stream, errors in kinds:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


@contextmanager
def quiet_when_unread() -> Iterator[None]:
    """End the program with status 141 and without a message when nobody reads its output any more (`| head`)."""
    try:
        try:
            yield
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except BrokenPipeError:
        unread = [stream for stream in (sys.stdout, sys.stderr) if stream and _is_unread(stream)]
        if not unread:  # another pipe or socket
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in unread:  # the interpreter flushes them once more
            os.dup2(nowhere, stream.fileno())
        sys.exit(PIPE_CLOSED)


def _is_unread(stream: TextIO) -> bool:
    poll = select.poll()
    poll.register(stream, 0)  # errors are always reported
    return bool(poll.poll(0))
