"""Weights that are not finite, told when a folder is made of them; casts that make finite ones infinite, refused."""

from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from eve_jax.checkpoint.vision_copies import ParamSource
from eve_jax.errors import UserError, warn


class Watched:
    """The parameters of `source`, whose values that are NaN or infinite are counted as they are read."""

    def __init__(self, source: ParamSource):
        self.cfg, self.shapes = source.cfg, source.shapes
        self._source = source
        self._counts: dict[str, int] = {}

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Parameter `name`: its layers in order when it is stacked, else the one array."""
        for piece in self._source.pieces(name):
            self._counts[name] = self._counts.get(name, 0) + count(piece)
            yield piece

    def tell(self, folder: Path) -> None:
        """Warn of what was counted; `folder` is where the parameters are from."""
        bad = {name: number for name, number in self._counts.items() if number}
        if not bad:
            return
        first = next(iter(bad))
        more = f" (the first of {len(bad)} such parameters)" if len(bad) > 1 else ""
        warn(
            f"{folder}: {first}{more} is NaN or infinite in {bad[first]:,} of its {self.shapes[first].size:,} weights, "
            "which were kept: nothing can be answered, scored or trained with them; use another checkpoint"
        )


def cast(piece: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """Return `piece` of the tensor `name` in `dtype`. Raises UserError where finite values become infinite."""
    if piece.dtype == dtype:
        return piece
    with np.errstate(over="ignore"):
        other = piece.astype(dtype)
    if count(other) > count(piece):
        largest = np.abs(piece, where=np.isfinite(piece), out=np.zeros_like(piece)).max()
        most = float(jnp.finfo(dtype).max)
        raise UserError(
            f"{name} has a weight of {float(largest):.4g}, but the largest of {dtype.name} is {most:.4g}: choose "
            "another --dtype"
        )
    return other


def count(piece: np.ndarray) -> int:
    """Return how many values of `piece` are NaN or infinite."""
    return piece.size - int(np.count_nonzero(np.isfinite(piece)))
