"""An image as a record has it: a file by its path, or one that lies inside another file; and its bytes."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from eve_jax.errors import Unreachable, UserError, shorten


class BadImage(UserError):
    """An image that cannot be used: `reason` and `path` (the name of a stored one)."""

    def __init__(self, reason: str, path: object) -> None:
        self.reason, self.path = shorten(reason), shorten(str(path))
        super().__init__(f"{self.path}: {self.reason}")


@dataclass(frozen=True, eq=False)
class StoredImage:
    """An image file inside another file: its `name` in messages, and `open()` for its bytes.

    size: width and height as `image_size` gives them, where the source knows them without opening the image.
    file_name: the path or name that its source has for it, "" for none.
    """

    name: str
    open: Callable[[], BinaryIO] = field(repr=False)
    size: tuple[int, int] | None = None
    file_name: str = ""

    def __str__(self) -> str:
        return self.name


ImageFile = str | Path | StoredImage


def image_bytes(file: ImageFile) -> bytes:
    """The image file as it is. Raises `BadImage` when it is empty or cannot be read."""
    with open_binary(file) as stream:
        try:
            return stream.read()
        except Exception as e:  # whatever the source's library raises
            raise BadImage(f"cannot be read ({one_line(e)})", file) from None


def open_binary(file: ImageFile) -> BinaryIO:
    """The bytes of an image file, opened; the caller closes it."""
    try:
        if isinstance(file, StoredImage):
            return file.open()
        status = os.stat(file)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # to open a pipe would wait for ever
            raise BadImage("is no file but a pipe, a device or a socket", file)
        if not status.st_size:
            raise BadImage("empty file", file)
        return open(file, "rb")
    except (BadImage, Unreachable):
        raise
    except FileNotFoundError:
        raise BadImage("missing file", file) from None
    except OSError as e:
        raise BadImage(f"cannot be read ({e.strerror or one_line(e)})", file) from None
    except Exception as e:  # whatever the library of a source raises
        raise BadImage(f"cannot be read ({one_line(e)})", file) from None


def one_line(error: Exception) -> str:
    """Return an error with its kind, in one line of at most 200 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
