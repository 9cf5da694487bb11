"""What a headline is made of: units that are drawn again for its interval.

A unit is the smallest thing whose numbers enter the headline together: a question, an image of MME with its two
questions, a question of MMBench with its rotations. A headline is a function of sums over the units.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


def percentage(sums: np.ndarray) -> np.ndarray:
    """Return 100 x the first sum / the second, [B] of `sums` [B, 2]; NaN where the second is not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums[:, 1] > 0, 100 * sums[:, 0] / sums[:, 1], np.nan)


def quotient(sums: np.ndarray) -> np.ndarray:
    """Return the first sum / the second, [B] of `sums` [B, 2]."""
    return percentage(sums) / 100


def count(sums: np.ndarray) -> np.ndarray:
    """Return the sum, [B] of `sums` [B, 1]."""
    return sums[:, 0]


def f1(sums: np.ndarray) -> np.ndarray:
    """Return F1 in percent, [B] of `sums` [B, 2]: of hits, and of misses and false alarms; 0 without a hit."""
    hits, wrong = sums[:, 0], sums[:, 1]
    return 100 * 2 * hits / np.maximum(2 * hits + wrong, 1)


@dataclass(frozen=True)
class Units:
    """The units of a headline.

    Attributes:
        numbers: of each unit, float64 [units, k].
        categories: of each unit, or "".
        value: sums of numbers [B, k] -> headlines [B].
        over_categories: how the headline is made of the values of the categories; "" where it is the value of all
            units. Then units are drawn within each category, for the sizes of the categories are the benchmark's.
        kind: what a unit is, in the plural.
    """

    numbers: np.ndarray
    categories: Sequence[str]
    value: Callable[[np.ndarray], np.ndarray] = percentage
    over_categories: Literal["", "sum", "mean"] = ""
    kind: str = "questions"


def score_units(scores: Sequence[float], categories: Sequence[str], kind: str = "questions") -> Units:
    """Return the units of a headline that is 100 x the mean of `scores`."""
    return Units(np.stack([np.array(scores, float), np.ones(len(scores))], axis=1), categories, kind=kind)


def yes_no_units(
    pairs: Sequence[tuple[Any, Any]], categories: Sequence[str], over_categories: Literal["", "mean"] = ""
) -> Units:
    """Return the units of a headline that is F1 in percent; `pairs` of answer and gold, with yes as the positive."""
    hits = [pair == ("yes", "yes") for pair in pairs]
    wrong = [pair in (("yes", "no"), ("no", "yes")) for pair in pairs]
    return Units(np.array([hits, wrong], float).T, categories, f1, over_categories)
