"""From what a record writes for an image to the image: a path, a `file:` or `data:` URI, bytes, or `{bytes, path}`.

A path is tried as it is written first; only where that is no file, and only for texts that give a reason to, are the
other spellings tried: percent-encoding decoded, `\\` as `/`, and both Unicode normal forms (NFC, NFD). Where a folder
of images is named, no path leads out of it, be it absolute, by `..` or through a link.
"""

import base64
import binascii
import io
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from eve_jax.data.image_file import ImageFile, StoredImage, is_there, open_binary
from eve_jax.data.record import BadRecord, is_empty, text_of
from eve_jax.data.sources.image_objects import KEYS, check_object
from eve_jax.data.sources.media import as_bytes, basename
from eve_jax.errors import shorten
from eve_jax.process.inside import is_inside

URL = re.compile(r"(?!file:|data:)[a-z][a-z0-9+.-]+://", re.IGNORECASE)
ODD = re.compile(r"[%\\]|[^\x00-\x7f]|^file:", re.IGNORECASE)  # what gives a reason to try other spellings
HOST = re.compile(r"file:[/\\]{2}(?!localhost[/\\])([^/\\]+)", re.IGNORECASE)  # of a `file:` URI, another computer's
LONGEST = 4096  # characters of a path


def image_values(value: Any) -> list[Any]:
    """Return the images that the value of a field stands for, [] where it is empty; holes in a list are kept.

    A list of numbers is the bytes of one image.
    """
    if is_empty(value):
        return []
    return list(value) if isinstance(value, list | tuple) and as_bytes(value) is None else [value]


def reference(value: Any) -> Any:
    """Return what `value`, one image, comes to: a path or URI (str), bytes, a `StoredImage`, or None for none of them.

    Bytes may be a list of numbers, too; of `{bytes, path}` they are taken where there are any.
    """
    if isinstance(value, list):
        return as_bytes(value)
    if isinstance(value, dict):
        data = as_bytes(value.get("bytes"))
        if data:
            return data
        if not is_empty(value.get("bytes")):  # of a kind that is not read: its path is not taken instead
            return None
        return next((reference(value[key]) for key in KEYS if not is_empty(value.get(key))), None)
    return value if isinstance(value, StoredImage | bytes) or (isinstance(value, str) and value) else None


def is_stored(value: Any) -> bool:
    """Whether one image is given by its bytes, perhaps in a `data:` URI, not by a path."""
    found = reference(value)
    return isinstance(found, StoredImage | bytes) or (isinstance(found, str) and _is_data(found))


def file_name(value: Any) -> str:
    """Return the last part of the path of one image, also of one given by its bytes; "" where it has none."""
    found = reference(value)
    if isinstance(found, StoredImage):
        found = found.file_name
    elif isinstance(found, bytes):
        found = value.get("path") if isinstance(value, dict) else ""
    return basename(found) if isinstance(found, str) and not _is_data(found) else ""


def _is_data(text: str) -> bool:
    return text[:5].lower() == "data:"


def to_image(value: Any, name: str, folders: Sequence[str] | None, field: str = "image") -> ImageFile:
    """Return the image that `value` stands for; `name` is what a stored one is called in messages, `field` where it is.

    Paths are relative to the first of `folders` that has them; without folders (None) there can be none. Raises
    `BadRecord` for a URL, a broken data URI, or anything else.
    """
    check_object(value, field)
    found = reference(value)
    if isinstance(found, StoredImage):
        return found
    if isinstance(found, bytes):
        check_file_of(found, value.get("path") if isinstance(value, dict) else None, folders, field)
        return StoredImage(name, partial(io.BytesIO, found))
    if found is None:
        raise BadRecord(f"{field} is neither a path nor a list of paths")
    if "\0" in found:
        raise BadRecord("an image path has a NUL character, which no file name can have", image=found)
    text = text_of(found, "an image path")
    if _is_data(text):
        return StoredImage(name, partial(io.BytesIO, _decoded(text)))
    check_path(text)
    if folders is None:
        raise BadRecord(f"names an image that is not stored with it ({shorten(text, 100)})", image=text)
    return find_file(text, folders)


def check_path(text: str) -> None:
    """Raise `BadRecord` for a text that cannot be the path of an image file: a URL, another host, or far too long."""
    if URL.match(text):
        reason = f"an image is a URL ({shorten(text, 100)}); images are read from files: download them first"
        raise BadRecord(reason, image=text)
    if host := HOST.match(text):
        reason = f"an image is a file of another computer ({shorten(host[1], 100)}); copy it to this one"
        raise BadRecord(f"{reason}, or write a file of this one as file:///PATH", image=text)
    if len(text) > LONGEST:
        reason = f"an image path cannot be read ({len(text):,} characters are too many for a file name)"
        raise BadRecord(f"{reason}; an encoded image begins with data:image/png;base64,", image=text)


def check_file_of(data: bytes, path: Any, folders: Sequence[str] | None, field: str) -> None:
    """Raise `BadRecord` where the `path` that stands next to the bytes of an image is that of a file with others."""
    try:
        file = find_file(path, folders) if folders and isinstance(path, str) and path and "\0" not in path else ""
    except BadRecord:  # a file that is none of these images is not looked at
        return
    try:
        same = not os.path.isfile(file) or (os.path.getsize(file) == len(data) and Path(file).read_bytes() == data)
    except OSError:
        return
    if not same:
        reason = f"the bytes of {field} and the file at their path are different images; keep one of them"
        raise BadRecord(reason, image=str(path))


def open_path(text: str, folder: str) -> BinaryIO:
    """Open the image file at the path `text`, found as `to_image` finds it. Raises `BadRecord`, `BadImage`."""
    check_path(text)
    return open_binary(find_file(text, [folder]))


def find_file(text: str, folders: Sequence[str]) -> str:
    """Return the path of the image `text` below the first of `folders` that has it, in the first spelling that exists.

    Where there is no such file it is the path as written below the first folder. A path of plain ASCII below a single
    folder is not looked up. Raises `BadRecord` for one that leads out of the folder; a folder "" has everything below.
    """
    written = os.path.join(folders[0], text)
    outside = not is_inside(written, folders[0])
    if len(folders) > 1 or ODD.search(text):
        for spelling in _spellings(text):
            for folder in folders:
                path = os.path.join(folder, spelling)
                if not is_there(path):
                    continue
                if is_inside(path, folder):
                    return path
                outside = True
    if outside:
        reason = f"an image path leads out of the folder of images, {folders[0]} ({shorten(text, 100)})"
        remedy = "name a folder that all images are in (config.data.images; empty: paths may lead anywhere)"
        raise BadRecord(f"{reason}; {remedy}", image=text)
    return written


def _spellings(text: str) -> Iterator[str]:
    seen = set()
    whole = [text]
    if text[:5].lower() == "file:":
        path = urlsplit(text).path
        whole = [text, path, unquote(path)]
    elif "%" in text:
        whole = [text, unquote(text)]
    for one in whole:
        for slashed in (one, one.replace("\\", "/")):
            for form in (slashed, unicodedata.normalize("NFC", slashed), unicodedata.normalize("NFD", slashed)):
                if form not in seen and "\0" not in form:
                    seen.add(form)
                    yield form


def _decoded(text: str) -> bytes:
    """Return the image file in a data URI. Raises `BadRecord`."""
    head, comma, payload = text[5:].partition(",")
    kind, *options = [part.strip().lower() for part in head.split(";")]
    if not comma:
        raise BadRecord("an image is a data URI without a comma before its data", image=text)
    if kind and not kind.startswith("image/") and kind != "application/octet-stream":
        raise BadRecord(f"an image is a data URI of another type ({shorten(kind, 60)})", image=text)
    if "base64" not in options:
        return unquote_to_bytes(payload)
    try:
        return base64.b64decode("".join(unquote(payload).split()), validate=True)
    except (binascii.Error, ValueError) as e:
        raise BadRecord(f"an image is a data URI that is not valid base64 ({e})", image=text) from None
