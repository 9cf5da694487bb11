"""The menu of row shapes: how many slots of each kind rows have, chosen from a sample of the records' lengths.

sample -> rows packed by total length alone -> groups of rows of like composition -> a shape per group
       -> shapes added for records that fit none -> budgets moved as long as the fill grows
"""

from itertools import permutations, product
from typing import NamedTuple

import numpy as np

from eve_jax.batch import ROW_MULTIPLE
from eve_jax.data.plan.packing import WINDOW, pack

PATCHES, SPECIALS, TEXT = 0, 1, 2  # columns of counts and shapes
SPECIALS_SLACK = 1.03  # specials vary most between rows of like composition
SAMPLE = 4096  # records that the menu is fitted to
TRIES = 64  # packings of the sample spent on refining the menu
ENOUGH = 1.002  # a menu of fewer shapes is taken when it needs at most so many times the slots
LEFT_OVER = 0.05  # rows lost to the rest of a shape's rows that makes no micro-batch, in micro-batches
LONE = 0.5  # least vision share of a shape that makes steps alone, in those of the mixture
SHORTER = 1.02  # shorter rows are taken when the longest ones need more than so many times the slots


class Run(NamedTuple):
    """What rows are made for: micro-batches of `rows`, steps of `micro_batches`, about `records` in all.

    padded: whether the last step is completed by padding rows (else a given number of steps cuts the run).
    """

    rows: int
    micro_batches: int
    records: int
    padded: bool


def choose_menu(sample: np.ndarray, largest: np.ndarray, row_tokens: int, max_shapes: int, run: Run) -> np.ndarray:
    """The menu int32 [K, 3] of at most `max_shapes` shapes for records like `sample` int32 [n, 3], in random order.

    Every record of `largest` int32 [m, 3] fits one of the shapes, if that many shapes can do it. All shapes have the
    same length: `row_tokens`, or less where the slots of the whole run become clearly fewer. A step of a single
    micro-batch has but one shape, so that none may then be far from the mixture, but for the largest records' sake.
    """
    tokens = sample.sum(0)
    least_vision = 0.0 if run.micro_batches > 1 else LONE * float(1 - tokens[TEXT] / tokens.sum())
    by_length: dict[int, np.ndarray] = {}

    def fitted(length: int, n_shapes: int) -> tuple[float, np.ndarray]:
        if length not in by_length:
            by_length[length] = _compositions(sample, length)
        menu = _fit(by_length[length], largest, length, n_shapes, least_vision)
        return _rows(sample, menu, run), menu

    options = [fitted(row_tokens, n) for n in range(1, max_shapes + 1)]
    least = min(n_rows for n_rows, _ in options)
    if least == float("inf"):  # some records will have to be left out
        return options[-1][1]
    n_shapes = next(n for n, (n_rows, _) in enumerate(options, 1) if n_rows <= ENOUGH * least)
    n_rows, menu = options[n_shapes - 1]
    slots = _whole_steps(n_rows, run) * row_tokens
    for length in _shorter(sample, largest, row_tokens, run):
        n_rows, shorter = fitted(length, n_shapes)
        if _whole_steps(n_rows, run) * length * SHORTER < slots:
            slots, menu = _whole_steps(n_rows, run) * length, shorter
    return _refine(sample, largest, menu, run)


def covered(counts: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Which records (bool [n]) fit at least one of the shapes."""
    fits = np.zeros(len(counts), bool)
    for shape in shapes:
        fits |= (counts <= shape).all(1)
    return fits


def _whole_steps(n_rows: float, run: Run) -> float:
    """`n_rows` and the padding rows that complete the last step."""
    step = run.rows * run.micro_batches
    return float(np.ceil(n_rows / step)) * step if run.padded and n_rows < float("inf") else n_rows


def _shorter(sample: np.ndarray, largest: np.ndarray, row_tokens: int, run: Run) -> list[int]:
    """Row lengths worth trying, longest first: down to 3/4 of `row_tokens`, and those that make one step of all."""
    least = -(-int(largest.sum(1).max()) // ROW_MULTIPLE) * ROW_MULTIPLE
    tokens = int(sample.sum() * max(run.records / len(sample), 1))
    step = -(-tokens // (run.rows * run.micro_batches * ROW_MULTIPLE)) * ROW_MULTIPLE
    near = np.linspace(row_tokens * 3 // 4, row_tokens, 5).astype(int) // ROW_MULTIPLE * ROW_MULTIPLE
    single = [max(step, least) + more * ROW_MULTIPLE for more in range(3)]
    return sorted({int(n) for n in (*near, *single) if least <= n < row_tokens}, reverse=True)


def _rows(sample: np.ndarray, menu: np.ndarray, run: Run) -> float:
    """About how many rows the run has, whole steps or not; infinite if a record fits no shape."""
    packed = pack(sample, np.arange(len(sample)), menu)
    if len(packed.left_out):
        return float("inf")
    n_rows, left_over = float(len(packed)), LEFT_OVER * (len(menu) - 1) * run.rows
    steady = int(np.searchsorted(packed.first, len(sample) - 2 * WINDOW)) - 1  # rows packed with the window full
    if len(sample) < run.records and steady > 0:
        n_rows = steady * float(sample.sum()) / float(packed.tokens[:steady].sum())
    return n_rows * max(run.records / len(sample), 1) + left_over


def _shape_of(tokens: np.ndarray, length: int, least: np.ndarray | None = None) -> np.ndarray:
    """A shape of `length` slots in proportion to `tokens` [3], each budget at least `least`."""
    share = tokens * np.array([1.0, SPECIALS_SLACK, 1.0])
    low = np.zeros(3, np.int64) if least is None else least.astype(np.int64)
    shape = np.maximum(np.ceil(share * (length / share.sum())).astype(np.int64), low)
    while shape.sum() > length:  # take from what is furthest above its least
        room = shape - low
        shape[room.argmax()] -= min(int(shape.sum() - length), max(int(room.max()) // 2, 1))
    shape[TEXT] += length - shape.sum()
    return shape.astype(np.int32)


def _compositions(sample: np.ndarray, length: int) -> np.ndarray:
    """Tokens int64 [rows, 3] of the rows that packing by total length gives, from the fewest patches to the most."""
    total = np.zeros_like(sample)
    total[:, TEXT] = sample.sum(1)
    rows = pack(total, np.arange(len(sample)), np.array([[0, 0, length]], np.int32))
    tokens = np.add.reduceat(sample[rows.entries], rows.first[:-1], axis=0, dtype=np.int64)
    return tokens[np.argsort(tokens[:, PATCHES] / tokens.sum(1), kind="stable")]


def _fit(rows: np.ndarray, largest: np.ndarray, length: int, n_shapes: int, least_vision: float) -> np.ndarray:
    """At most `n_shapes` different shapes int32 [K, 3] of `length` slots, one for each of some groups of `rows`.

    `rows` are the tokens int64 [m, 3] of rows of like length, sorted by composition; `least_vision` is the share of
    vision tokens that each group has at least.
    """
    tokens = rows.sum(0)
    for n_groups in range(n_shapes, 0, -1):
        groups = [group.sum(0) for group in np.array_split(rows, n_groups) if len(group)]
        if n_groups > 1 and min(1 - group[TEXT] / group.sum() for group in groups) < least_vision:
            continue
        grouped = np.array([_shape_of(group, length) for group in groups], np.int32)
        shapes = np.concatenate([grouped, _cover(largest, grouped, tokens, length)])
        if len(shapes) <= n_shapes:
            return np.unique(shapes, axis=0)
    return np.unique(_cover(largest, np.zeros((0, 3), np.int32), tokens, length)[:n_shapes], axis=0)


def _cover(largest: np.ndarray, shapes: np.ndarray, tokens: np.ndarray, length: int) -> np.ndarray:
    """Shapes for those of the `largest` records that `shapes` do not hold, few, by merging from patches to text."""
    missing = largest[~covered(largest, shapes)]
    missing = missing[np.argsort(-missing[:, PATCHES] / missing.sum(1), kind="stable")]
    found = []
    least = np.zeros(3, np.int64)
    for record in missing:
        both = np.maximum(least, record)
        if both.sum() > length:
            found.append(_shape_of(tokens, length, least))
            both = record.astype(np.int64)
        least = both
    if len(missing):
        found.append(_shape_of(tokens, length, least))
    return np.array(found, np.int32).reshape(-1, 3)


def _refine(sample: np.ndarray, largest: np.ndarray, shapes: np.ndarray, run: Run) -> np.ndarray:
    """Moves slots between the budgets of a shape as long as that saves rows; coverage never shrinks."""
    length = int(shapes[0].sum())
    n_covered = int(covered(largest, shapes).sum())
    best = _rows(sample, shapes, run)
    step = max(length // 32, 1)
    tries = TRIES
    while tries > 0 and step > 0 and step >= length // 256:
        improved = False
        for k, (source, target) in product(range(len(shapes)), permutations((PATCHES, SPECIALS, TEXT), 2)):
            moved = shapes.copy()
            moved[k, source] -= step
            moved[k, target] += step
            useless = shapes[k, target] == 0 or moved[k, source] < 0
            if tries <= 0 or useless or covered(largest, moved).sum() < n_covered:
                continue
            tries -= 1
            n_rows = _rows(sample, moved, run)
            if n_rows < best:
                shapes, best, improved = moved, n_rows, True
        if not improved:
            step //= 2
    return shapes
