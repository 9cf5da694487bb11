"""SemDeDup (Abbas et al., 2023, arXiv 2303.09540): records of a cluster whose features nearly agree."""

import numpy as np

from eve_jax.curate.features import Features
from eve_jax.curate.rows import Rows
from eve_jax.curate.stages.select import by_similarity
from eve_jax.curate.verdicts import Verdicts

RULE = "semantic"
BLOCK = 1024  # rows that are compared with a cluster at a time


def semantic_copies(
    rows: Rows, features: Features, cluster: np.ndarray, similarity: np.ndarray, epsilon: float
) -> Verdicts:
    """Return what is left of `rows` (of which `features` has those of the same number) without semantic duplicates.

    Within a cluster, the records are taken in order, the least similar to the center first; one whose cosine distance
    to any before it is below `epsilon` is left out (SemDeDup keeps the hard examples). The value is
    the largest similarity to one before it.
    """
    closest = np.full(len(rows), -1, np.float32)
    order = by_similarity(rows, cluster, similarity)
    starts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        members = order[start:stop][::-1]
        closest[members] = _closest_before(features.rows(members))
    kept = closest <= 1 - epsilon
    return Verdicts(kept, [RULE] * int((~kept).sum()), [f"{value:.4g}" for value in closest[~kept].tolist()])


def _closest_before(unit: np.ndarray) -> np.ndarray:
    """Return float32 [n]: the largest cosine of each row of `unit`, float32 [n, D], with one before it; first: -1."""
    closest = np.full(len(unit), -1, np.float32)
    for start in range(0, len(unit), BLOCK):
        block = unit[start : start + BLOCK]
        cosine = block @ unit[: start + len(block)].T
        before = np.arange(cosine.shape[1])[None, :] < (start + np.arange(len(block)))[:, None]
        closest[start : start + BLOCK] = np.where(before, cosine, -1).max(axis=1)
    return closest
