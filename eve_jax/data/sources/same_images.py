"""Whether two fields of a record, or a field and the parts of its texts, hold the same images.

bytes and bytes    the same content
bytes and a path   the same content where the file is there; else the same last part, and a path is the name of
                   bytes that have none
two paths          the same path; of fields that hold names (`file_name`) the same last part, and the same content
                   where both files are there
a URL              another name of any image given by its bytes
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from eve_jax.data.image_file import BadImage, image_bytes
from eve_jax.data.record import BadRecord
from eve_jax.data.sources.image_refs import file_name, find_file, is_stored, reference, to_image
from eve_jax.data.sources.media import basename, is_url


class Images(NamedTuple):
    """The images that a field holds, before they are opened, and the folders that paths start from (None: no files)."""

    field: str
    values: list[Any]
    folders: Sequence[str] | None = None

    def is_elsewhere(self) -> bool:
        """Whether one of them is a URL."""
        return any(isinstance(text, str) and is_url(text) for text in map(reference, self.values))

    def are_stored(self) -> bool:
        """Whether all are given by their bytes."""
        return all(map(is_stored, self.values))


def all_same(mine: Images, other: Images) -> bool:
    """Whether two fields hold the same images in the same order. Raises `BadRecord` where one cannot be read."""
    return len(mine.values) == len(other.values) and all(
        _is_same(mine, one, other, two) for one, two in zip(mine.values, other.values, strict=True)
    )


def are_names(mine: Images, names: Images) -> bool:
    """Whether every path in `names` is a name of one of the images of `mine`, of as many in the same order.

    Raises `BadRecord` where an image cannot be read.
    """
    one_each = len(mine.values) == len(names.values)
    for number, name in enumerate(names.values):
        text = reference(name)
        if isinstance(text, str) and is_url(text):
            continue
        wanted = mine.values[number : number + 1] if one_each else mine.values
        if not any(_is_same(mine, value, names, name, names=True) for value in wanted):
            return False
    return True


def is_name(images: Images, text: str) -> bool:
    """Whether a path in a field that is not read may be another name of one of `images`.

    Any path may be, of images that a source without files of its own stores, and of bytes without a path. Raises
    `BadRecord` where an image cannot be read.
    """
    field = Images("", [text], images.folders)
    return any(
        (images.folders is None and is_stored(value)) or _is_same(images, value, field, text, names=True)
        for value in images.values
    )


def _is_same(mine: Images, one: Any, other: Images, two: Any, names: bool = False) -> bool:
    if one is two or reference(one) == reference(two):
        return True
    if reference(one) is None or reference(two) is None:
        return False
    paths = [str(reference(value)) for value in (one, two) if not is_stored(value)]
    if any(map(is_url, paths)):
        return len(paths) == 1
    if not paths:
        return _content(mine, one) == _content(other, two)
    if len(paths) == 2 and (not names or basename(paths[0]) != basename(paths[1])):
        return False
    if all(_is_there(field, value) for field, value in ((mine, one), (other, two))):
        return _content(mine, one) == _content(other, two)
    return len({file_name(one), file_name(two)} - {""}) < 2


def _is_there(field: Images, value: Any) -> bool:
    if is_stored(value):
        return True
    try:
        return bool(field.folders) and os.path.isfile(find_file(str(reference(value)), field.folders or ()))
    except BadRecord:  # a path of somewhere else
        return False


def _content(field: Images, value: Any) -> bytes:
    try:
        return image_bytes(to_image(value, field.field, field.folders))
    except BadImage as e:
        raise BadRecord(e.reason, image=e.path) from None
