"""Paths that a file names, such as those of images in records, kept below the folder that they belong to."""

import os
from functools import lru_cache

LONGEST_NAME = 255  # bytes of a file's name


def is_inside(path: str, folder: str) -> bool:
    """Whether `path`, with its `..` and links followed, is `folder` or lies below it; there need be no such file.

    A folder "" has everything below it: it stands for paths that may lead anywhere.
    """
    if not folder:
        return True
    above, _, name = path.rpartition(os.sep)
    if above == folder and name not in ("", ".", "..") and not os.path.islink(path):
        return True  # most files of a records file
    real, root = _followed(path), _folder(folder)
    return real == root or real.startswith(root if root.endswith(os.sep) else root + os.sep)


def is_plain_name(name: str) -> bool:
    """Whether `name` can only be that of a file in the very folder that it is looked for in."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return 0 < size <= LONGEST_NAME and name not in (".", "..") and not set(name) & {"/", os.sep, "\\", "\0"}


def _followed(path: str) -> str:
    """Return what `os.path.realpath` does, with the links of the folder that it is in looked at once for many files."""
    above, name = os.path.split(path)
    if name in ("", ".", "..") or os.path.islink(path):
        return os.path.realpath(path)
    return os.path.join(_folder(above), name)


def _folder(path: str) -> str:
    return _real(path if os.path.isabs(path) else os.path.abspath(path))


@lru_cache(4096)
def _real(folder: str) -> str:
    return os.path.realpath(folder)
