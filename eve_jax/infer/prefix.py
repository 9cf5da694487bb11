"""What prompts share: their items (text ids and whole images), and a store of cache rows of earlier prompts.

An image is one item, by the hash of its resized pixels and its grid, so a prefix ends before or after it.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eve_jax.data.text.encode import IMAGE_ID
from eve_jax.infer.prompt import Prompt
from eve_jax.model.eve import Cache


@dataclass(frozen=True)
class Items:
    """Items int64 [n, 2], the first of them the salt; `ends` int64 [n]: tokens up to and including each."""

    values: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, prompt: Prompt, salt: str = "") -> "Items":
        """The items of `prompt`; those of other salts have none in common with them."""
        values = np.zeros((len(prompt.ids) + 1, 2), np.int64)
        widths = np.ones(len(values), np.int64)
        values[1:, 0] = prompt.ids
        values[0], widths[0] = _number(salt.encode()), 0
        places = np.flatnonzero(prompt.ids == IMAGE_ID) + 1
        for place, patches, (h, w) in zip(places, prompt.patches, prompt.grids, strict=True):
            values[place] = _number(f"{h},{w};".encode(), np.ascontiguousarray(patches).data)
            widths[place] = prompt.layout.tokens_of(h, w)
        if len(places) and prompt.layout.sees == "prefix":  # up to the first image, all see it and what closes it
            first = places[0]
            if prompt.ids[first : first + 1].tolist() == [prompt.layout.close]:
                values[first] = _number(values[first].tobytes(), b"closed")
            values[:first, 1] = values[first, 1]
        return cls(values, np.cumsum(widths))

    @property
    def tokens(self) -> int:
        """Tokens of all items."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def followed_by(self, ids: Sequence[int]) -> "Items":
        """These items and text tokens `ids`."""
        more = np.zeros((len(ids), 2), np.int64)
        more[:, 0] = ids
        ends = self.tokens + 1 + np.arange(len(ids))
        return Items(np.concatenate([self.values, more]), np.concatenate([self.ends, ends]))

    def upto(self, tokens: int) -> "Items":
        """The items that lie within the first `tokens` tokens."""
        count = int(np.searchsorted(self.ends, tokens, side="right"))
        return Items(self.values[:count], self.ends[:count])

    def common(self, other: "Items", most: int) -> int:
        """Tokens, at most `most`, of the items that both begin with."""
        count = min(len(self.values), len(other.values))
        differ = (self.values[:count] != other.values[:count]).any(axis=1)
        same = int(np.argmax(np.append(differ, True)))
        ends = self.ends[:same]
        within = ends[ends <= most]
        return int(within[-1]) if len(within) else 0

    def begins_with(self, other: "Items") -> bool:
        """Whether these are all of `other`'s items and perhaps more."""
        return self.common(other, other.tokens) == other.tokens


NOTHING = Items(np.zeros((0, 2), np.int64), np.zeros(0, np.int64))


def _number(*parts: Any) -> np.ndarray:
    """Two negative numbers, which no text id is, from a hash of 126 bits."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return np.frombuffer(found.digest()[:16], np.int64) | np.int64(-(2**63))


@dataclass(frozen=True)
class Kept:
    """The blocks of a row of the cache that were copied out, and what they hold."""

    items: Items
    blocks: Sequence[Cache]
    bytes: int


class PrefixStore:
    """Rows of earlier prompts up to a number of bytes; those that were not used for longest go first."""

    def __init__(self, most_bytes: int):
        self.most_bytes, self.bytes = most_bytes, 0
        self._kept: OrderedDict[int, Kept] = OrderedDict()
        self._next = 0

    def __len__(self) -> int:
        return len(self._kept)

    def best(self, items: Items, most: int) -> tuple[Kept | None, int]:
        """The row that begins most like `items`, and how many tokens, at most `most`, they share."""
        found = [(items.common(kept.items, most), key) for key, kept in self._kept.items()]
        tokens, key = max(found, default=(0, -1))
        return (self._kept[key], tokens) if tokens else (None, 0)

    def covers(self, items: Items) -> bool:
        """Whether a row begins with all of `items`."""
        return any(kept.items.begins_with(items) for kept in self._kept.values())

    def takes(self, size: int) -> bool:
        """Whether a row of `size` bytes is small enough to be kept."""
        return size <= self.most_bytes

    def used(self, kept: Kept) -> None:
        """Note that `kept` was of use just now."""
        key = next((key for key, other in self._kept.items() if other is kept), None)
        if key is not None:
            self._kept.move_to_end(key)

    def add(self, kept: Kept) -> None:
        """Keep a row; what it holds itself and what there is no more room for goes."""
        self._drop([key for key, old in self._kept.items() if kept.items.begins_with(old.items)])
        self._kept[self._next] = kept
        self._next += 1
        self.bytes += kept.bytes
        while self.bytes > self.most_bytes:
            self._drop([next(iter(self._kept))])

    def clear(self) -> None:
        """Keep nothing."""
        self._drop(self._kept)

    def _drop(self, keys: Iterable[int]) -> None:
        for key in list(keys):
            self.bytes -= self._kept.pop(key).bytes
