"""Groups of records that are the same, by pairs of them; the best of each group stays."""

from collections.abc import Iterable

import numpy as np


def spare_rows(rows: int, pairs: Iterable[np.ndarray], order: np.ndarray, copies: int = 1) -> np.ndarray:
    """Return int64 [rows]: the row that stays in place of each, -1 for those that stay themselves.

    pairs: int64 [m, 2] arrays of rows that are the same; what is the same as the same is in one group (union-find).
    order: the rows [rows], the best first; the first `copies` of a group stay, the others are spare for its first.
    """
    from scipy.sparse import coo_array  # takes long to import
    from scipy.sparse.csgraph import connected_components

    found = [pair for pair in pairs if len(pair)]
    if not found:
        return np.full(rows, -1, np.int64)
    edges = np.unique(np.concatenate(found), axis=0)
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), (rows, rows))
    _, group = connected_components(graph, directed=False)
    by_group = order[np.argsort(group[order], kind="stable")]  # groups together, the best first in each
    groups = group[by_group]
    first = np.searchsorted(groups, groups)
    spare = np.full(rows, -1, np.int64)
    late = np.arange(rows) - first >= copies
    spare[by_group[late]] = by_group[first[late]]
    return spare


def collapsed(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return one row of each different key, int64 [u], and pairs int64 [m, 2] that join it to its equals.

    keys: [n], or [n, k] of which rows are compared. A group of n equals has n - 1 pairs, not n (n - 1) / 2.
    """
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    heads = first[group.ravel()]
    others = np.flatnonzero(heads != np.arange(len(keys)))
    return first, np.stack([heads[others], others], axis=1)
