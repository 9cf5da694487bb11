"""The menu of row shapes: how many slots of each kind rows have, chosen from the lengths of the records.

lengths -> rows packed by total length alone -> groups of rows of like composition -> a shape per group
        -> shapes added for records that fit none -> budgets moved as long as the fill grows
"""

from itertools import permutations, product
from typing import NamedTuple

import numpy as np

from eve_jax.data.packing import frontier, pack
from eve_jax.data.shapes import ROW_MULTIPLE

PATCHES, SPECIALS, TEXT = 0, 1, 2  # columns of counts and shapes
SPECIALS_SLACK = 1.03  # specials vary most between rows of like composition


SAMPLE = 8192  # records that the menu is fitted to
TRIES = 60  # packings of the sample spent on refining the menu
ENOUGH = 1.005  # a menu of fewer shapes is taken when it needs at most so many times the slots
LEFT_OVER = 0.05  # rows lost to the rest of a shape's rows that makes no micro-batch, in micro-batches
SHORTER = 1.02  # shorter rows are taken when the longest ones need more than so many times the slots


class Run(NamedTuple):
    """How rows are grouped: into micro-batches of `rows`, steps of `micro_batches`, `epochs` (or `steps` if not 0)."""

    rows: int
    micro_batches: int
    epochs: int
    steps: int


def choose_menu(counts: np.ndarray, row_tokens: int, max_shapes: int, run: Run, seed: int) -> np.ndarray:
    """The menu int32 [K, 3] of at most `max_shapes` shapes for records of `counts` int32 [n, 3] tokens.

    All shapes have the same length: `row_tokens`, or less where the slots of the whole run become clearly fewer.
    """
    rng = np.random.default_rng([seed, SAMPLE])
    sample = rng.permutation(len(counts))[:SAMPLE]
    sample = counts[np.union1d(sample, frontier(counts))]
    scale = len(counts) / len(sample)

    def fitted(length: int, n_shapes: int) -> tuple[float, np.ndarray]:
        menu = fit_menu(sample, length, n_shapes, rng)
        return _rows(sample, menu, run, scale, rng), menu

    options = [fitted(row_tokens, n) for n in range(1, max_shapes + 1)]
    least = min(n_rows for n_rows, _ in options)
    if least == float("inf"):  # some records will have to be left out
        return options[-1][1]
    n_shapes = next(n for n, (n_rows, _) in enumerate(options, 1) if n_rows <= ENOUGH * least)
    n_rows, menu = options[n_shapes - 1]
    slots = _whole_steps(n_rows, run) * row_tokens
    for length in _shorter(sample, row_tokens, run, scale):
        n_rows, shorter = fitted(length, n_shapes)
        if _whole_steps(n_rows, run) * length * SHORTER < slots:
            slots, menu = _whole_steps(n_rows, run) * length, shorter
    return _refine(sample, menu, rng, TRIES)


def _whole_steps(n_rows: float, run: Run) -> float:
    """`n_rows` and the padding rows that complete the last step."""
    step = run.rows * run.micro_batches
    return n_rows if run.steps or n_rows == float("inf") else float(np.ceil(n_rows / step)) * step


def _shorter(counts: np.ndarray, row_tokens: int, run: Run, scale: float) -> list[int]:
    """Row lengths worth trying, longest first: down to 3/4 of `row_tokens`, and those that make one step of all."""
    totals = counts.sum(1)
    least = -(-int(totals.max()) // ROW_MULTIPLE) * ROW_MULTIPLE
    step = (
        -(
            -int(totals.sum() * scale * (1 if run.steps else run.epochs))
            // (run.rows * run.micro_batches * ROW_MULTIPLE)
        )
        * ROW_MULTIPLE
    )
    near = np.linspace(row_tokens * 3 // 4, row_tokens, 5).astype(int) // ROW_MULTIPLE * ROW_MULTIPLE
    single = [max(step, least) + more * ROW_MULTIPLE for more in range(3)]
    return sorted({int(n) for n in (*near, *single) if least <= n < row_tokens}, reverse=True)


def _rows(counts: np.ndarray, menu: np.ndarray, run: Run, scale: float, rng: np.random.Generator) -> float:
    """About how many rows the run has, whole steps or not; infinite if a record fits no shape."""
    packed = pack(counts, rng.permutation(len(counts)), menu)
    if len(packed.left_out):
        return float("inf")
    return len(packed) * scale * (1 if run.steps else run.epochs) + LEFT_OVER * (len(menu) - 1) * run.rows


def fit_menu(counts: np.ndarray, length: int, n_shapes: int, rng: np.random.Generator) -> np.ndarray:
    """At most `n_shapes` different shapes int32 [K, 3] of `length` slots for `counts` int32 [n, 3].

    Every record fits one of them, if that many shapes can do it.
    """
    largest = counts[frontier(counts)]
    tokens = counts.sum(0)
    for n_groups in range(n_shapes, 0, -1):
        grouped = _grouped(counts, length, n_groups, rng)
        shapes = np.concatenate([grouped, _cover(largest, grouped, tokens, length)])
        if len(shapes) <= n_shapes:
            return np.unique(shapes, axis=0)
    return np.unique(_cover(largest, np.zeros((0, 3), np.int32), tokens, length)[:n_shapes], axis=0)


def covered(counts: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Which records (bool [n]) fit at least one of the shapes."""
    fits = np.zeros(len(counts), bool)
    for shape in shapes:
        fits |= (counts <= shape).all(1)
    return fits


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


def _grouped(counts: np.ndarray, length: int, n_groups: int, rng: np.random.Generator) -> np.ndarray:
    """Shapes of `n_groups` groups, by share of patches, of the rows that packing by total length gives."""
    total = np.zeros_like(counts)
    total[:, TEXT] = counts.sum(1)
    order = rng.permutation(len(counts))
    rows = pack(total, order, np.array([[0, 0, length]], np.int32))
    tokens = np.add.reduceat(counts[rows.entries], rows.first[:-1], axis=0)
    groups = np.array_split(np.argsort(tokens[:, PATCHES] / tokens.sum(1), kind="stable"), n_groups)
    return np.array([_shape_of(tokens[group].sum(0), length) for group in groups if len(group)], np.int32)


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


def _refine(counts: np.ndarray, shapes: np.ndarray, rng: np.random.Generator, tries: int) -> np.ndarray:
    """Moves slots between the budgets of a shape as long as that saves rows; coverage never shrinks."""
    largest = counts[frontier(counts)]
    order = rng.permutation(len(counts))
    length = int(shapes[0].sum())
    n_covered = int(covered(largest, shapes).sum())
    best = len(pack(counts, order, shapes))
    step = max(length // 32, 1)
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
            rows = len(pack(counts, order, moved))
            if rows < best:
                shapes, best, improved = moved, rows, True
        if not improved:
            step //= 2
    return shapes
