"""The exceptions and warnings that users are meant to see."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache


class UserError(Exception):
    """Bad input: the message alone says what is wrong, where, and what to do.

    Launchers print it as a single `error:` line and exit with status 1; everything else is a defect of ours and
    keeps its traceback. The message is one line of at most about 1,500 characters, whatever values it quotes.
    """

    def __str__(self) -> str:
        return shorten(super().__str__(), 1500)


class Field(str):
    """The name of a config's field in a message, without the word config: "data.max_size"."""


class Argument(Field):
    """A field that a function takes as an argument, which messages call by its last name."""


class FieldError(UserError):
    """A field of a config that cannot be what it is; `name_fields` gives its fields the names that a door has for them.

    The message is its `parts` in a row, of which those of type `Field` are read as `config.data.max_size`.
    """

    def __init__(self, *parts: str):
        self.parts = parts
        super().__init__(self.text(_own_name))

    def text(self, name: Callable[[Field], str]) -> str:
        """Return the message with every field called `name(field)`."""
        return "".join(name(part) if isinstance(part, Field) else part for part in self.parts)


def _own_name(field: Field) -> str:
    return field.rpartition(".")[2] if isinstance(field, Argument) else f"config.{field}"


@contextmanager
def name_arguments(*names: str) -> Iterator[None]:
    """Call the config fields `names` as the arguments that they are in the FieldErrors that leave the block.

    A door outside of it may still give them other names (`name_fields`).
    """
    try:
        yield
    except FieldError as error:
        parts = (Argument(p) if isinstance(p, Field) and p.rpartition(".")[2] in names else p for p in error.parts)
        raise FieldError(*parts) from error


@contextmanager
def name_fields(name: Callable[[str], str], where: str = "", note: str = "") -> Iterator[None]:
    """Call config fields `name(field)` in the UserErrors that leave the block, between `where` and `note`."""
    try:
        yield
    except UserError as error:
        if not where and not note and not isinstance(error, FieldError):
            raise
        text = error.text(name) if isinstance(error, FieldError) else str(error)
        raise UserError(where + text + note) from error


class InUse(UserError):
    """Another process writes the folder: nothing in it may be touched, not even at the end."""


class Hanging(UserError):
    """A thread of ours hangs, for which the process would wait for ever at its end: launchers leave without it."""


def shorten(text: str, most: int = 300) -> str:
    """Return `text` on one line, without its middle where it is longer than about `most` characters."""
    return clip(" ".join(text.splitlines()), most)


def install(extra: str) -> str:
    """Return the command that installs an extra of the project, for messages about a package that is missing."""
    return f"pip install -c constraints.txt -e '.[{extra}]'"


def amount(count: int, noun: str) -> str:
    """Return how many there are of a thing: "1 step", "2,000 steps"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def clip(text: str, most: int = 300) -> str:
    """Return `text` without its middle where it is longer than about `most` characters."""
    if len(text) <= most:
        return text
    tail = most // 4
    return f"{text[: most - tail]} ...({len(text) - most:,} characters)... {text[-tail:]}"


class Unreachable(UserError):
    """What cannot be had from the network now: no fault of a record or an image, which are not left out for it."""


@cache
def warn(line: str) -> None:
    """Print a warning on stderr, the same one once in a process."""
    print(f"warning: {line}", file=sys.stderr, flush=True)
