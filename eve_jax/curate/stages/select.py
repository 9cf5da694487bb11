"""Selection: which records are taken of the clusters, or at random."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eve_jax.curate.config import ALL, BALANCED, NEAREST, Selection
from eve_jax.curate.rows import Rows
from eve_jax.curate.verdicts import Verdicts


def select(rows: Rows, selection: Selection, seed: int, cluster: np.ndarray, similarity: np.ndarray) -> Verdicts:
    """Return which of `rows` the `selection` takes; cluster int32 [n], similarity float32 [n] to its center.

    nearest:N takes the N of each cluster that are most similar to its center, of equally similar ones the first ids
    (EVEv1 takes 300); random:N takes N of all; balanced:N takes N, as many of each cluster as is
    possible, at random.
    """
    if selection.rule == ALL:
        return Verdicts.all_kept(len(rows))
    if selection.rule == NEAREST:
        kept = ranks(cluster, by_similarity(rows, cluster, similarity)) < selection.number
        return Verdicts(kept, [NEAREST] * int((~kept).sum()), [f"{value:.4g}" for value in similarity[~kept].tolist()])
    order = np.random.default_rng(seed).permutation(len(rows))
    if selection.rule == BALANCED:
        order = order[np.argsort(ranks(cluster, order)[order], kind="stable")]  # the first of each cluster come first
    kept = np.zeros(len(rows), bool)
    kept[order[: selection.number]] = True
    left = np.flatnonzero(~kept)
    return Verdicts(kept, [selection.rule] * len(left), [str(one) for one in cluster[left]])


def by_similarity(rows: Rows, cluster: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """Return the numbers of `rows`, int64 [n]: by cluster, the most similar first, then the first id, the first row."""
    keys = {"cluster": cluster, "similarity": similarity, "id": rows.id, "index": rows.index}
    order = [("cluster", "ascending"), ("similarity", "descending"), ("id", "ascending"), ("index", "ascending")]
    return pc.sort_indices(pa.table(keys), order).to_numpy().astype(np.int64)


def ranks(cluster: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return int64 [n]: how many of its cluster come before each row in `order` (the rows [n], in any order)."""
    grouped = order[np.argsort(cluster[order], kind="stable")]
    own = cluster[grouped]
    rank = np.empty(len(order), np.int64)
    rank[grouped] = np.arange(len(order)) - np.searchsorted(own, own)
    return rank
