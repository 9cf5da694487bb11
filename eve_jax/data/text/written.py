"""A conversation as a template writes it, with the spans that are learned and those that somebody has typed."""

from itertools import pairwise

import numpy as np

from eve_jax.data.text.literal import Span
from eve_jax.data.text.tokenizer import Tokenizer

IMAGE_ID = -200  # stands for one image in ids
IGNORE = -100  # label of a token that is not learned


class Text:
    """A text with images: the spans of it to learn, and those in which special tokens are text, `quoted`.

    Spans are in characters, of which an image counts as one. cuts: where what follows is tokenized for itself.
    begins: where the bos token stands. special_text: nothing is quoted.
    """

    def __init__(self, special_text: bool) -> None:
        self.pieces = [""]
        self.spans: list[Span] = []
        self.quoted: list[Span] = []
        self.cuts: list[int] = []
        self.begins = 0
        self._special_text = special_text
        self._length = 0

    def add(self, *pieces: str) -> int:
        """Append `pieces` with an image between each two; returns the length of all."""
        self.pieces[-1] += pieces[0]
        self.pieces += pieces[1:]
        self._length += sum(map(len, pieces)) + len(pieces) - 1
        return self._length

    def begin(self) -> None:
        """Have the bos token stand here."""
        self.begins = self._length
        self.cuts.append(self.begins)

    def quote(self, *pieces: str) -> int:
        """`add` of what somebody has written, not the template."""
        start, end = self._length, self.add(*pieces)
        if start < end and not self._special_text:
            self.quoted.append((start, end))
        return end

    def learn(self, begin: str, words: str, end: str, apart: bool = False) -> None:
        """Append a target: `words` that somebody has written, between the template's `begin` and `end`.

        apart: tokenized for itself.
        """
        start = self._length
        if apart:
            self.cuts.append(start)
        self.add(begin)
        self.quote(words)
        self.spans.append((start, self.add(end)))

    def learn_all(self) -> None:
        """Have everything so far be a target."""
        self.spans = [(0, self._length)]


def tokenized(text: Text, tokenizer: Tokenizer, bos: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and labels of `text`, int32 [n], with IMAGE_ID per image and IGNORE where nothing is learned."""
    ids: list[int] = []
    starts: list[int] = []  # first character of each token in `text`
    position = 0
    for number, piece in enumerate(text.pieces):
        if number:
            ids.append(IMAGE_ID)
            starts.append(position - 1)
        borders = [0, *(cut - position for cut in text.cuts if 0 < cut - position < len(piece)), len(piece)]
        for first, last in pairwise(borders):
            at = position + first
            if bos is not None and at == text.begins:
                ids.append(bos)
                starts.append(at)
            own = [(start - at, end - at) for start, end in text.quoted]
            piece_ids, offsets = tokenizer.encode_with_offsets(piece[first:last], own)
            ids += piece_ids
            starts += [at + start for start, _ in offsets]
        position += len(piece) + 1
    tokens = np.array(ids, np.int32)
    edges = np.array(text.spans, np.int64).reshape(-1)
    inside = np.searchsorted(edges, np.array(starts, np.int64), side="right") % 2 == 1
    return tokens, np.where(inside & (tokens != IMAGE_ID), tokens, np.int32(IGNORE)).astype(np.int32)
