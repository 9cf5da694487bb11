"""What is shown in training and what is held out: compositions, never kinds, words or colors.

Two kinds of a held-out pair never meet in a training image, in a training pair of images or in a word map,
and a word is never seen in its held-out color. Every held-out question is about at least one such composition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from random import Random
from typing import Generic, TypeVar

from eve_jax.demo.assets import COLORS, WORDS, Kind, all_kinds
from eve_jax.demo.scenes import Scene
from eve_jax.demo.settings import DemoSettings

T = TypeVar("T")


class Split:
    """The kinds, words and colors of the settings, and which of their combinations are held out."""

    def __init__(self, settings: DemoSettings) -> None:
        self.kinds = all_kinds()[: settings.kinds]
        self.words = WORDS[: settings.words]
        self.colors = tuple(list(COLORS)[: settings.colors])
        self._index = {kind: i for i, kind in enumerate(self.kinds)}
        self._strides = {d % settings.kinds for stride in settings.held_pairs for d in (stride, -stride)} - {0}

    def held_pair(self, first: Kind, second: Kind) -> bool:
        """True if the two kinds meet in held-out images only."""
        return (self._index[first] - self._index[second]) % len(self.kinds) in self._strides

    def any_held(self, kinds: Iterable[Kind]) -> bool:
        """True if some two of the kinds are a held-out pair."""
        return any(self.held_pair(x, y) for x, y in combinations(kinds, 2))

    def partners(self, kind: Kind) -> list[Kind]:
        """The kinds that meet this one in held-out images only."""
        return [other for other in self.kinds if self.held_pair(kind, other)]

    def held_color(self, word: str) -> str:
        """The color in which the word is seen in held-out images only."""
        return self.colors[self.words.index(word) % len(self.colors)]

    def held(self, scenes: Sequence[Scene]) -> bool:
        """True if the image, or the images taken together, show a held-out composition."""
        kinds = {kind for scene in scenes for kind in scene.counts}
        signs = [scene.sign for scene in scenes if scene.sign is not None]
        return self.any_held(kinds) or any(sign.color == self.held_color(sign.word) for sign in signs)


class Deck(Generic[T]):
    """Deals every card once before any comes again: as balanced as can be."""

    def __init__(self, cards: Sequence[T], rng: Random) -> None:
        self._cards, self._rng = list(cards), rng
        self._left: list[T] = []

    def deal(self) -> T:
        """The next card."""
        if not self._left:
            self._left = self._rng.sample(self._cards, len(self._cards))
        return self._left.pop()
