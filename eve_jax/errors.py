"""The exceptions and warnings that users are meant to see."""

import sys
from functools import cache


class UserError(Exception):
    """Bad input: the message alone says what is wrong, where, and what to do.

    Launchers print it as a single `error:` line and exit with status 1; everything else is a defect of ours and
    keeps its traceback. The message is one line of at most about 1,500 characters, whatever values it quotes.
    """

    def __str__(self) -> str:
        return shorten(super().__str__(), 1500)


class InUse(UserError):
    """Another process writes the folder: nothing in it may be touched, not even at the end."""


class Hanging(UserError):
    """A thread of ours hangs, for which the process would wait for ever at its end: launchers leave without it."""


def shorten(text: str, most: int = 300) -> str:
    """Return `text` on one line, without its middle where it is longer than about `most` characters."""
    line = " ".join(text.splitlines())
    if len(line) <= most:
        return line
    tail = most // 4
    return f"{line[: most - tail]} ...({len(line) - most:,} characters)... {line[-tail:]}"


@cache
def warn(line: str) -> None:
    """Print a warning on stderr, the same one once in a process."""
    print(f"warning: {line}", file=sys.stderr, flush=True)
