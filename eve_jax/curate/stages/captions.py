"""The same caption under many images: a few of them are kept, the largest."""

from collections.abc import Iterator

import numpy as np
import pyarrow.compute as pc

from eve_jax.curate.config import FilterConfig
from eve_jax.curate.groups import collapsed, spare_rows
from eve_jax.curate.minhash import PERMUTATIONS, similar_pairs
from eve_jax.curate.rows import Rows
from eve_jax.curate.stage import Stage, key_of
from eve_jax.curate.stages.filter import Filter
from eve_jax.curate.verdicts import Verdicts

NAME, VERSION, RULE = "captions", 1, "same_caption"


def caption_stage(filtered: Filter, rules: FilterConfig) -> Stage:
    """Return the stage that leaves out all but `caption_copies` of the same caption."""
    settings = {"similarity": rules.caption_similarity, "copies": rules.caption_copies}
    return Stage(filtered.stage.out, NAME, key_of(NAME, VERSION, settings, filtered.stage.key))


def same_captions(rows: Rows, filtered: Filter, shards: int, rules: FilterConfig) -> Verdicts:
    """Return what is left of `rows`, those that the filter kept, and for which record each of the others is spare."""
    if not rules.caption_similarity:
        return Verdicts.all_kept(len(rows))
    found, with_words = _signatures(filtered, shards)
    heads, equal = collapsed(found)
    numbers = np.flatnonzero(with_words)
    pairs = _joined(numbers, heads, equal, similar_pairs(found[heads], rules.caption_similarity))
    spare = spare_rows(len(rows), pairs, rows.by_size(), rules.caption_copies)
    return Verdicts.of_spare(rows, spare, RULE)


def _signatures(filtered: Filter, shards: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the signatures uint32 [m, PERMUTATIONS] of the kept captions, and which kept rows (bool [n]) have one."""
    parts, has = [], []
    for table in filtered.stage.tables(range(shards), ["rule", "signature"]):
        kept = table.filter(pc.equal(table["rule"], ""))["signature"].to_pylist()
        parts.append(b"".join(kept))
        has += [bool(one) for one in kept]
    return np.frombuffer(b"".join(parts), "<u4").reshape(-1, PERMUTATIONS), np.array(has, bool)


def _joined(
    numbers: np.ndarray, heads: np.ndarray, equal: np.ndarray, similar: Iterator[np.ndarray]
) -> Iterator[np.ndarray]:
    """Yield all pairs as numbers of rows; `similar` are pairs of places in `heads`."""
    yield numbers[equal]
    for pairs in similar:
        yield numbers[heads[pairs]]
