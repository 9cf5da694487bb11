"""Files that are complete or absent, and JSON files."""

import errno
import json
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from eve_jax.errors import UserError
from eve_jax.process.strict_json import without_repeats

PART = ".part"  # ending of the name of a file or folder that is being written


def refuse_pipe(path: Path) -> None:
    """Raise UserError where `path` is a pipe, a device or a socket, at which a reader may wait without end."""
    with suppress(OSError):  # of what is not there, or cannot be looked at: left to those who open it
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise UserError(f"{path} is a pipe or a device; name a file")


def read_text(path: Path) -> str:
    """Return the UTF-8 text of the file `path`, without a byte order mark. Raises UserError that names the file."""
    try:
        return read_bytes(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error})") from None


def read_bytes(path: Path) -> bytes:
    """Return the bytes of the file `path`. Raises UserError, also for a pipe or a device, which may have no end."""
    refuse_pipe(path)
    with _named_errors(path):
        return path.read_bytes()


def read_blocks(path: Path, size: int = 1 << 24) -> Iterator[bytes]:
    """Yield the bytes of the file `path`, at most `size` at a time. Raises UserError as `read_bytes` does."""
    refuse_pipe(path)
    with _named_errors(path), path.open("rb") as stream:
        while block := stream.read(size):
            yield block


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Raise UserError that names the file `path` where it cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name a file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file `path`, with or without a byte order mark; raise UserError without one."""
    refuse_pipe(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=without_repeats)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value


def write_json(path: Path, value: Any, indent: int = 2, sort_keys: bool = True) -> None:
    """Write `value` as JSON to `path` by `write_atomically`."""
    write_atomically(path, json.dumps(value, indent=indent, sort_keys=sort_keys) + "\n")


def write_atomically(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Write the file `path`, which holds all of `content` or what it held before, whenever the process is killed.

    content: text (written as UTF-8), bytes, or a function that writes the file whose path it is given. Raises OSError,
    and what the function raises; nothing is left of the new file then.
    """
    with in_place_of(path) as part:
        if callable(content):
            content(part)
        else:
            part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """Yield the path of a new, empty file that takes the name `path` when the block succeeds, and is removed otherwise.

    Its name is unique, so that several processes, also of several machines, may write `path` at once. Raises OSError,
    also where `path` is a pipe or a device, which a file would take the place of.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a pipe or a device; name a file", str(path))
    part = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}{PART}")
    part.touch(exist_ok=False)
    try:
        yield part
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


@contextmanager
def folder_in_place_of(path: Path) -> Iterator[Path]:
    """Yield a new folder that takes the name `path` when the block succeeds, and is removed otherwise.

    At the end there must be nothing at `path` but an empty folder. For one process at a time: the new folder's name is
    the same each time, so that what a killed process left is removed. Raises OSError.
    """
    part = path.with_name(f".{path.name}{PART}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
