"""How far training moved a model from the LLM that it started as (EVEv2 paper, Fig. 3)."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from eve_jax.checkpoint.adapters import without_adapters
from eve_jax.checkpoint.vision_copies import Folded, ParamSource, copied_from
from eve_jax.errors import UserError
from eve_jax.model.config import DELTA
from eve_jax.model.eve import declared

BLOCK = 1 << 22  # entries of a weight that are compared at a time
TABLES = ("embed", "head")  # whose rows are tokens, of which one model may have more


class Change(NamedTuple):
    """How a weight changed: sum of |after - before|, sum of |before|, and how many entries those are over."""

    moved: float
    before: float
    entries: int

    @property
    def mean(self) -> float:
        """Mean absolute change of an entry."""
        return self.moved / self.entries if self.entries else 0.0

    @property
    def relative(self) -> float:
        """Sum of absolute changes over that of absolute values before; NaN where those are zero."""
        return self.moved / self.before if self.before else float("nan")

    def __add__(self, other: object) -> "Change":
        if not isinstance(other, Change):
            return NotImplemented
        return Change(self.moved + other.moved, self.before + other.before, self.entries + other.entries)


NONE = Change(0.0, 0.0, 0)


def weight_changes(before: ParamSource, after: ParamSource) -> dict[str, list[float]]:
    """Mean absolute change of every weight of the decoder layers: name in `after` -> a value a layer.

    Text weights are compared with their own values in `before`, vision weights with the text weights they were copied
    from, both with gated deltas and adapters added in. Reads a layer of two weights at a time. Raises UserError when
    the two models do not have the same layers.
    """
    before, after = folded(before), folded(after)
    names = [n for n in after.shapes if declared(after.cfg)[n].stacked and n.startswith("layers.")]
    for name in names:
        origin, shape = copied_from(after.cfg, name), after.shapes[name].shape
        found = before.shapes.get(origin)
        if found is None or found.shape != shape:
            raise UserError(f"{name} has shape {shape}, {origin} of the model before {found and found.shape}")
    return {name: [one.mean for one in change_of(before, after, name)] for name in names}


def folded(source: ParamSource) -> ParamSource:
    """Return `source` with its adapters and gated deltas added into the weights."""
    source = without_adapters(source)
    return Folded(source) if DELTA in source.cfg.parts else source


def change_of(
    before: ParamSource, after: ParamSource, name: str, tick: Callable[[int], None] = lambda size: None
) -> list[Change]:
    """Return the change of the weight `name` of `after` from what it was copied from in `before`, a value a layer.

    Of the word embedding and the head, rows that only one of the models has are left out. `tick` is told the number of
    entries of each piece when it is done.
    """
    changes = []
    pairs = zip(before.pieces(copied_from(after.cfg, name)), after.pieces(name), strict=True)
    for old, new in pairs:
        changes.append(sum((_compared(*blocks) for blocks in _blocks(old, new, name in TABLES)), NONE))
        tick(new.size)
    return changes


def _blocks(old: np.ndarray, new: np.ndarray, rows_differ: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Parts of two arrays, so that float32 copies of them are small."""
    if old.ndim < 2:
        yield old, new
        return
    rows = min(len(old), len(new)) if rows_differ else len(new)
    step = max(BLOCK // max(old[0].size, 1), 1)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        yield old[start:stop], new[start:stop]


def _compared(old: np.ndarray, new: np.ndarray) -> Change:
    first = old.astype(np.float32)
    moved = np.abs(new.astype(np.float32) - first).sum(dtype=np.float64)
    return Change(float(moved), float(np.abs(first).sum(dtype=np.float64)), old.size)
