"""How many records of all are copies of others, by the copies in a random sample of them."""

import numpy as np


def copies_in_all(spare: np.ndarray, share: float) -> float:
    """Return how many records of all are spare, estimated from `spare` int64 [n] of a sample: `spare_rows` has it.

    share: of all records that the sample is, 0 to 1. Both of a pair are in the sample with probability share^2, so a
    pair that is seen stands for 1 / share^2 of them. Of more than two, the seen ones stand for 1 / share each.
    """
    if share >= 1:
        return float((spare >= 0).sum())
    _, sizes = np.unique(spare[spare >= 0], return_counts=True)  # of each group, those that are spare
    return float((sizes == 1).sum() / share**2 + sizes[sizes > 1].sum() / share)
