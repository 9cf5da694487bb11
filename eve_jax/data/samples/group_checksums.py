"""Checksums of a few groups of many items, small enough for every checkpoint: they tell where two lists first differ.

Up to `GROUPS` items are a group each; more are that many groups of consecutive ones.
"""

import base64
import zlib
from itertools import pairwise

import numpy as np

GROUPS = 1024
WIDTH = 4  # bytes of a checksum


def group_checksums(items: np.ndarray) -> str:
    """Return the CRC-32 of every group of the rows of `items`, in base64."""
    spans = pairwise(_bounds(len(items)))
    sums = [zlib.crc32(np.ascontiguousarray(items[start:stop]).data) for start, stop in spans]
    return base64.b64encode(np.array(sums, f"<u{WIDTH}").tobytes()).decode()


def first_difference(old: str, old_count: int, new: str, new_count: int) -> range:
    """Return which of `new_count` items are the first group that differs; empty where none does or it is unknown.

    Lists of different lengths are compared where every item of both is a group; behind the last is then `new_count`.
    """
    mine, theirs = (np.frombuffer(base64.b64decode(text), f"<u{WIDTH}") for text in (new, old))
    if old_count != new_count and max(old_count, new_count) > GROUPS:
        return range(0)
    shared = min(len(mine), len(theirs))
    different = np.flatnonzero(mine[:shared] != theirs[:shared])
    if not len(different) and len(mine) == len(theirs):
        return range(0)
    first = int(different[0]) if len(different) else shared
    bounds = _bounds(new_count)
    return range(bounds[first], bounds[first + 1]) if first + 1 < len(bounds) else range(new_count, new_count + 1)


def _bounds(count: int) -> list[int]:
    """Return the groups' first items, and `count`."""
    groups = min(count, GROUPS)
    return [count * number // groups for number in range(groups)] + [count] if groups else [0]
