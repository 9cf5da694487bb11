"""An image as a record has it: a file by its path, or one that lies inside another file; and its bytes."""

import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from eve_jax.data.bucket_images import image_at
from eve_jax.errors import UserError, shorten
from eve_jax.process import buckets, places


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
    return bytes_and_status(file)[0]


def bytes_and_status(file: ImageFile) -> tuple[bytes, os.stat_result | None]:
    """Return what `image_bytes` does, and of a file of its own what the system said of it before it was read."""
    if not isinstance(file, StoredImage) and (found := _read_plain(file)) is not None:
        return found
    with open_binary(file) as stream:
        try:
            return stream.read(), None
        except Exception as e:  # whatever the source's library raises
            raise BadImage(f"cannot be read ({one_line(e)})", file) from None


def _read_plain(file: str | Path) -> tuple[bytes, os.stat_result] | None:
    """Return a plain file at one go, None where there is none; `open_binary` says of it why not.

    With few calls of the system: at each, threads that read images take turns.
    """
    try:
        number = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # to open a pipe would wait for ever
    except (OSError, ValueError):
        return None
    try:
        status = os.fstat(number)
        data = os.read(number, status.st_size + 1) if stat.S_ISREG(status.st_mode) else b""
    except OSError:
        return None
    finally:
        os.close(number)
    return (data, status) if data and len(data) == status.st_size else None


def open_binary(file: ImageFile) -> BinaryIO:
    """The bytes of an image file, opened; the caller closes it."""
    try:
        if isinstance(file, StoredImage):
            return file.open()
        try:
            status = os.stat(file)
        except FileNotFoundError:
            if (url := places.url_of(file)) is None:
                raise
            return _from_bucket(url)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # to open a pipe would wait for ever
            raise BadImage("is no file but a pipe, a device or a socket", file)
        if not status.st_size:
            raise BadImage("empty file", file)
        return open(file, "rb")
    except UserError:
        raise
    except FileNotFoundError:
        raise BadImage("missing file", file) from None
    except OSError as e:
        raise BadImage(f"cannot be read ({e.strerror or one_line(e)})", file) from None
    except Exception as e:  # whatever the library of a source raises
        raise BadImage(f"cannot be read ({one_line(e)})", file) from None


def _from_bucket(url: str) -> BinaryIO:
    """The bytes of an image in a bucket. Raises UserError where the bucket refuses: no fault of the image."""
    try:
        data = image_at(url)
    except buckets.Refused as e:
        raise UserError(f"{url}: {e.strerror}; rerun the command when the bucket answers") from e
    if not data:
        raise BadImage("missing file" if data is None else "empty file", url)
    return io.BytesIO(data)


def is_there(path: str) -> bool:
    """Return whether there is a file or folder at `path`, or what it stands for in a bucket. Raises UserError."""
    if os.path.exists(path) or (url := places.url_of(path)) is None:
        return os.path.exists(path)
    try:
        return buckets.exists(url)
    except buckets.Refused as e:
        raise UserError(f"{url}: {e.strerror}; rerun the command when the bucket answers") from e


def one_line(error: Exception) -> str:
    """Return an error with its kind, in one line of at most 200 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
