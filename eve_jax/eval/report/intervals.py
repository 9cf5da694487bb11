"""Bootstrap intervals of headlines, exact for any number of questions.

Drawing n of n units with replacement gives units with equal numbers the counts of a multinomial distribution, so these
counts are drawn, not the units: 200,000 questions that are right or wrong cost as much as ten. Where a headline is made
of categories, the units of each category are drawn on their own.
"""

import numpy as np

from eve_jax.eval.units import Units

REPEATS, SEED, LEVEL = 10_000, 0, 0.95
FEWEST = 10  # units from which on an interval is given
MOST_DRAWN = 4_000_000  # counts in memory at once

Interval = tuple[float, float]


def value_of(units: Units) -> float | None:
    """Return the headline of all units; None where it is undefined."""
    value = _combined(units, [units.value(part.sum(axis=0, keepdims=True)) for part in _parts(units)])
    return float(value[0]) if len(value) and np.isfinite(value[0]) else None


def interval_of(units: Units) -> Interval | None:
    """Return the 95% interval of the headline by the percentiles of REPEATS draws, the same ones for the same units.

    None for fewer than FEWEST units, for a category with one unit where the headline is made of categories, where the
    draws show no spread (all answers are right, for one), and where some draw leaves the headline undefined.
    """
    parts = _parts(units)
    lone = bool(units.over_categories) and any(len(part) < 2 for part in parts)
    if len(units.numbers) < FEWEST or lone:
        return None
    random = np.random.default_rng(SEED)
    drawn = _combined(units, [units.value(_draw(part, random)) for part in parts])
    if not np.isfinite(drawn).all():
        return None
    low, high = (float(end) for end in np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return (low, high) if low < high else None


def by_category(units: Units) -> dict[str, Units]:
    """Return the units of each category that has a name, in order of appearance."""
    names = np.array(units.categories, object)
    groups = {name: names == name for name in dict.fromkeys(units.categories) if name}
    return {
        name: Units(units.numbers[chosen], [name] * int(chosen.sum()), units.value, kind=units.kind)
        for name, chosen in groups.items()
    }


def _parts(units: Units) -> list[np.ndarray]:
    if not units.over_categories:
        return [units.numbers]
    names = np.array(units.categories, object)
    return [units.numbers[names == name] for name in dict.fromkeys(units.categories)]


def _combined(units: Units, values: list[np.ndarray]) -> np.ndarray:
    return np.mean(values, axis=0) if units.over_categories == "mean" else np.sum(values, axis=0)


def _draw(numbers: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the sums of REPEATS draws of n units from `numbers` [n, k], float64 [REPEATS, k]."""
    different, counts = np.unique(numbers, axis=0, return_counts=True)
    shares = counts / counts.sum()
    step = max(1, MOST_DRAWN // len(different))
    sizes = [min(step, REPEATS - start) for start in range(0, REPEATS, step)]
    return np.concatenate([random.multinomial(len(numbers), shares, size) @ different for size in sizes])
