"""The names that captions of the demo's images consist of: what a text says of an image, and how it may be wrong."""

import re
from collections.abc import Iterable, Mapping
from random import Random
from typing import NamedTuple

from eve_jax.demo.questions import NUMBERS
from eve_jax.demo.settings import DemoSettings
from eve_jax.demo.split import Split

PLACES = ("left", "right", "top", "bottom", "middle")


class Agreement(NamedTuple):
    """How far texts say what is there: recall, the share of what is there that they name; precision, the share of
    what they name that is there; exact, the share of texts that name all that is there and nothing else."""

    recall: float
    precision: float
    exact: float


class Vocabulary:
    """Kinds, words on signs, colors, places and numbers of the settings."""

    def __init__(self, settings: DemoSettings) -> None:
        split = Split(settings)
        kinds = {kind.plural: kind.name for kind in split.kinds} | {kind.name: kind.name for kind in split.kinds}
        self._sorts: tuple[tuple[str, ...], ...] = (
            tuple(kind.name for kind in split.kinds),
            tuple(kind.plural for kind in split.kinds),
            split.words,
            split.colors,
            NUMBERS[1 : settings.max_count + 1],
        )
        plain = {name: name for name in (*split.words, *split.colors, *PLACES, *NUMBERS[1:])}
        first = {name.capitalize(): name for name in (*NUMBERS[1:], *kinds)}  # the first word of a sentence
        self._names = {**{name: kinds.get(own, own) for name, own in first.items()}, **plain, **kinds}
        longest_first = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b")

    def names_in(self, text: str) -> frozenset[str]:
        """Return the names that a text has; plurals as their singular."""
        return frozenset(self._names[found] for found in self._pattern.findall(text))

    def with_an_error(self, text: str, rng: Random) -> str:
        """Return a caption with one of its names, drawn at random, replaced by another one of its sort."""
        places = [(found, sort) for found in self._pattern.finditer(text) for sort in self._sorts if found[0] in sort]
        if not places:
            return text
        found, sort = rng.choice(places)
        other = rng.choice([name for name in sort if name != found[0]])
        return text[: found.start()] + other + text[found.end() :]

    def agreement(self, texts: Mapping[str, str], truths: Mapping[str, str], ids: Iterable[str]) -> Agreement:
        """Return how far `texts` agree with `truths` for the images `ids`, over all names; both are by id."""
        there = said = both = exact = count = 0
        for identity in ids:
            true, own = self.names_in(truths[identity]), self.names_in(texts[identity])
            there, said, both = there + len(true), said + len(own), both + len(true & own)
            exact, count = exact + (true == own), count + 1
        return Agreement(both / max(there, 1), both / max(said, 1), exact / max(count, 1))
