"""What can be said of arms that were trained with several seeds and asked the same questions.

An arm has a table of values [S, Q]: of each seed (rows) on each question (columns), an accuracy or a loss. Two arms are
paired by both: seed s of each saw its data in the same order, and the questions are the same. The difference of two
arms is the mean of the table d of their differences, and its uncertainty comes from the seeds and from the questions:

    d[s, q] = effect + seed[s] + question[q] + rest[s, q]

`effects` draws seeds and questions with replacement, each on its own, as in the bootstrap for crossed factors (Owen,
"The pigeonhole bootstrap", 2007), and takes the percentiles of the means. That bootstrap has faults with few seeds,
which are corrected. It counts `rest` about three times and the seeds' variance (S - 1) / S times: the draws are scaled
to the two-way estimate of the variance (Cameron, Gelbach and Miller, 2011). Few seeds say little about their own
variance, and draws of them take few values: the interval is widened as Student's t is over the normal distribution, at
the degrees of freedom of Satterthwaite's formula, and its ends are no nearer than the normal distribution's.
`tests/experiments/test_statistics.py` measures how often intervals hold the truth.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import norm, t

DRAWS, SEED, LEVEL = 2_000, 0, 0.95
MOST_DRAWN = 2_000_000  # counts in memory at once
FEWEST = 10  # questions from which on there is an interval

Table = Float[np.ndarray, "S Q"]


class Spread(NamedTuple):
    """The values of one arm by seed. sd, error: standard deviation and standard error of the mean; None of one seed."""

    mean: float
    sd: float | None
    error: float | None
    seeds: tuple[float, ...]


class Effect(NamedTuple):
    """How far one arm is above another.

    interval: at LEVEL for this difference alone. wide: at LEVEL for all differences that are looked at together
    (Bonferroni); what is said of a difference follows from it. Both are None with fewer than two seeds or FEWEST
    questions. seeds: the difference of each.
    """

    value: float
    interval: tuple[float, float] | None
    wide: tuple[float, float] | None
    seeds: tuple[float, ...]

    @property
    def is_clear(self) -> bool:
        """Whether the difference is told from 0 next to all others."""
        return self.wide is not None and (self.wide[0] > 0 or self.wide[1] < 0)


def spread(table: Table) -> Spread:
    """Return mean, standard deviation and standard error over the seeds of an arm."""
    seeds = table.mean(axis=1)
    if len(seeds) < 2:
        return Spread(float(seeds.mean()), None, None, tuple(seeds.tolist()))
    sd = float(seeds.std(ddof=1))
    return Spread(float(seeds.mean()), sd, sd / len(seeds) ** 0.5, tuple(seeds.tolist()))


def effects(tables: Mapping[str, Table]) -> dict[tuple[str, str], Effect]:
    """Return the difference of every two arms: (later, earlier) of their order -> how far the later one is above.

    The rows of all tables are the same seeds, their columns the same questions. The same tables give the same
    intervals.
    """
    shapes = {table.shape for table in tables.values()}
    if len(shapes) > 1:
        raise ValueError(f"tables of shapes {shapes} are not paired")
    pairs = [(later, earlier) for earlier, later in combinations(tables, 2)]
    if not pairs:
        return {}
    seeds, questions = shapes.pop()
    enough = seeds > 1 and questions >= FEWEST
    drawn = dict(zip(tables, _drawn(list(tables.values())), strict=True)) if enough else {}
    found = {}
    for one, other in pairs:
        d = tables[one] - tables[other]
        value, by_seed = float(d.mean()), tuple(d.mean(axis=1).tolist())
        if not enough:
            found[one, other] = Effect(value, None, None, by_seed)
            continue
        variance, freedom = _variance(d)
        draws = drawn[one] - drawn[other] - value
        draws *= variance**0.5 / (draws.std() or 1.0)
        levels = (LEVEL, 1 - (1 - LEVEL) / len(pairs))
        narrow, wide = (_interval(value, draws, variance**0.5, freedom, level) for level in levels)
        found[one, other] = Effect(value, narrow, wide, by_seed)
    return found


def _variance(d: Table) -> tuple[float, float]:
    """The variance of the mean of `d`, estimated without bias but for parts below 0, and its degrees of freedom."""
    seeds, questions = d.shape
    rows, columns = d.mean(axis=1), d.mean(axis=0)
    rest = d - rows[:, None] - columns[None] + d.mean()
    of_rest = float((rest**2).sum()) / ((seeds - 1) * (questions - 1)) / d.size
    of_seeds = float(rows.var(ddof=1)) / seeds  # with that of the rest
    of_questions = float(columns.var(ddof=1)) / questions  # the same
    variance = max(of_seeds + of_questions - of_rest, of_seeds, of_questions)
    parts = of_seeds**2 / (seeds - 1) + of_questions**2 / (questions - 1)
    return variance, variance**2 / parts if parts else questions - 1.0


def _drawn(tables: Sequence[Table]) -> Float[np.ndarray, "A {DRAWS}"]:
    """Means of each of A tables over seeds and questions that are drawn with replacement, for all tables the same."""
    random, (seeds, questions) = np.random.default_rng(SEED), tables[0].shape
    step = max(1, MOST_DRAWN // questions)
    parts = []
    for start in range(0, DRAWS, step):
        count = min(step, DRAWS - start)
        of_seeds, of_questions = (random.multinomial(n, np.full(n, 1 / n), count) / n for n in (seeds, questions))
        parts.append(np.stack([((of_seeds @ table) * of_questions).sum(axis=1) for table in tables]))
    return np.concatenate(parts, axis=1)


def _interval(value: float, draws: np.ndarray, error: float, freedom: float, level: float) -> tuple[float, float]:
    """The percentiles of the draws around 0, no nearer than those of a normal distribution, widened as Student's t."""
    tail = (1 - level) / 2
    normal = float(norm.ppf(1 - tail))
    wider = float(t.ppf(1 - tail, freedom)) / normal
    low, high = np.quantile(draws, [tail, 1 - tail])
    return value + wider * min(float(low), -normal * error), value + wider * max(float(high), normal * error)


def words(pair: tuple[str, str], effect: Effect, unit: str, scale: float = 1.0, digits: int = 1) -> str:
    """Return a sentence about the difference of two arms that says no more than its intervals do.

    pair: the arms, the one that `effect` is above first. unit: of the values times `scale`, such as "points".
    """
    first, second = pair
    value = f"{abs(effect.value) * scale:.{digits}f} {unit}"
    if effect.interval is None or effect.wide is None:
        few = "one seed" if len(effect.seeds) < 2 else f"fewer than {FEWEST} questions"
        return f"{first} and {second} differ by {value}; with {few} nothing can be said of it."
    low, high = (f"{end * scale:+.{digits}f}" for end in effect.interval)
    inside = f"95% interval {low} to {high}"
    side = "above" if effect.value > 0 else "below"
    if effect.is_clear:
        return f"{first} is {side} {second} by {value} ({inside})."
    if effect.interval[0] > 0 or effect.interval[1] < 0:
        many = "clear on its own, but not among as many differences as are looked at here"
        return f"{first} is {side} {second} by {value} ({inside}): {many}."
    return f"{first} and {second} are not told apart: {effect.value * scale:+.{digits}f} {unit} ({inside})."


def over_questions(values: Sequence[float], weights: Sequence[float]) -> np.ndarray:
    """Return values [Q] whose mean is the mean of `values` weighted by `weights`: of passages by their tokens."""
    given = np.asarray(weights, np.float64)
    return np.asarray(values, np.float64) * given * (len(given) / given.sum())
