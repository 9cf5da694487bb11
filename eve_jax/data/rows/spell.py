"""A sample's tokens in causal order, images spelt out: what each is, how it counts and what it sees."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eve_jax.batch import CLASS, EVE_LAYOUT, SPLIT, Layout
from eve_jax.data.text.encode import IGNORE, IMAGE_ID

PATCH, SPECIAL, TEXT = 0, 1, 2  # kinds of slots, in memory order


class Sample(NamedTuple):
    """ids int32 [n] with IMAGE_ID per image, labels int32 [n], the grid (h, w) of each image, weight of its loss."""

    ids: np.ndarray
    labels: np.ndarray
    grids: Sequence[tuple[int, int]]
    weight: float = 1.0


class Tokens(NamedTuple):
    """The tokens of a sample in causal order, images spelt out; arrays [n].

    number: what rotary positions count. end: which of these tokens is the last that each sees. place: row and column of
    a patch in its image, zeros for others, [n, 2]. after: the number of a token that would follow.
    """

    kind: np.ndarray  # PATCH, SPECIAL or TEXT
    value: np.ndarray  # CLASS or SPLIT, a text id, 0 for a patch
    label: np.ndarray  # IGNORE where nothing is learned
    number: np.ndarray
    end: np.ndarray
    place: np.ndarray
    after: int

    def cut(self, start: int, stop: int) -> "Tokens":
        """Return the tokens from `start` to before `stop`, which count on; between them no token sees a later one."""
        kind, value, label, number, end, place = (part[start:stop] for part in self[:-1])
        after = self.after if stop == len(self.kind) else int(self.number[stop])
        return Tokens(kind, value, label, number, end - np.int32(start), place, after)

    def counted_from(self, number: int) -> "Tokens":
        """Return the tokens as they are behind others, of which the next one would count as `number`."""
        return self._replace(number=self.number + np.int32(number), after=self.after + number)


def joined(tokens: Sequence[Tokens]) -> Tokens:
    """Return the tokens of all samples one after the other, each counted for itself."""
    if not tokens:
        none = np.zeros(0, np.int32)
        return Tokens(none.astype(np.int8), none, none, none, none, none.reshape(0, 2), 0)
    kind, value, label, number, end, place = (
        np.concatenate(parts) for parts in zip(*(t[:-1] for t in tokens), strict=True)
    )
    return Tokens(kind, value, label, number, end, place, tokens[-1].after)


def image_tokens(h: int, w: int, layout: Layout = EVE_LAYOUT) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kinds, values and places of an image's tokens: class, then h times w patches and a split; or patches alone."""
    places = np.stack(np.divmod(np.arange(h * w, dtype=np.int32), np.int32(w)), axis=1)
    if not layout.specials:
        return np.full(h * w, PATCH, np.int8), np.zeros(h * w, np.int32), places
    kind = np.full(1 + h * (w + 1), PATCH, np.int8)
    value = np.zeros(len(kind), np.int32)
    kind[0], value[0] = SPECIAL, CLASS
    kind[w + 1 :: w + 1], value[w + 1 :: w + 1] = SPECIAL, SPLIT
    place = np.zeros((len(kind), 2), np.int32)
    place[kind == PATCH] = places
    return kind, value, place


def spell_out(sample: Sample, layout: Layout = EVE_LAYOUT) -> Tokens:
    """The tokens of `sample`. Raises ValueError when its ids have another number of images than there are grids."""
    places = np.flatnonzero(sample.ids == IMAGE_ID)
    if len(places) != len(sample.grids):
        raise ValueError(f"{len(places)} images in the ids, {len(sample.grids)} grids")
    kind, value, label, place = [], [], [], []
    spans: list[tuple[int, int]] = []  # first and last token of each image
    start = length = 0
    for at, (h, w) in zip([*places.tolist(), len(sample.ids)], [*sample.grids, (0, 0)], strict=True):
        text = slice(start, at)
        kind.append(np.full(at - start, TEXT, np.int8))
        value.append(sample.ids[text])
        label.append(sample.labels[text])
        place.append(np.zeros((at - start, 2), np.int32))
        length += at - start
        start = at + 1
        if at < len(sample.ids):
            image_kind, image_value, image_place = image_tokens(h, w, layout)
            kind.append(image_kind)
            value.append(image_value)
            label.append(np.full(len(image_kind), IGNORE, np.int32))
            place.append(image_place)
            spans.append((length, length + len(image_kind) - 1))
            length += len(image_kind)
    number, after = _numbered(length, spans, sample.grids, layout.index_rule)
    kinds, values, labels = (np.concatenate(parts) for parts in (kind, value, label))
    if layout.sees == "prefix" and spans:
        behind = spans[0][1] + 1
        closed = behind < length and kinds[behind] == TEXT and values[behind] == layout.close
        spans = [(0, spans[0][1] + int(closed))]
    end = _ends(length, [] if layout.sees == "causal" else spans)
    return Tokens(kinds, values, labels, number, end, np.concatenate(place), after)


def _numbered(
    length: int, spans: Sequence[tuple[int, int]], grids: Sequence[tuple[int, int]], rule: str
) -> tuple[np.ndarray, int]:
    """What rotary positions count of `length` tokens with images at `spans`, and of one that would follow."""
    steps = np.ones(length + 1, np.int32)
    if rule != "token":
        for (first, last), (h, w) in zip(spans, grids, strict=True):
            steps[first + 1 : last + 1] = 0
            if rule == "max+1":
                steps[last + 1] = max(h, w)
    numbers = np.cumsum(steps, dtype=np.int32) - steps[0]
    return numbers[:-1], int(numbers[-1])


def _ends(length: int, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """The number of the last token that each of `length` tokens sees, those of a span all of it."""
    end = np.arange(length, dtype=np.int32)
    for first, last in spans:
        end[first : last + 1] = last
    return end
