"""Near-copies of an image: pHashes that differ in few bits, found without comparing each with each."""

from collections.abc import Iterator
from itertools import combinations, pairwise
from math import comb

import numpy as np

from eve_jax.curate.groups import collapsed, spare_rows
from eve_jax.curate.minhash import equal_pairs
from eve_jax.curate.rows import Rows
from eve_jax.curate.verdicts import Verdicts

RULE = "near_copy"
BITS = 64
FULL = 8  # hashes of a bucket, on average, from which on the lookup takes finer buckets
MOST_LOOKUPS = 500


def near_copies(rows: Rows, most: int) -> Verdicts:
    """Return what is left of `rows` without near-copies: of a group, whose pHashes differ in up to `most` bits from one
    to the next (union-find), the largest image stays.
    """
    heads, equal = collapsed(rows.phash)
    found = rows.phash[heads]

    def pairs() -> Iterator[np.ndarray]:
        yield equal
        for pair in close_pairs(found, most):
            yield heads[pair]

    return Verdicts.of_spare(rows, spare_rows(len(rows), pairs(), rows.by_size()), RULE)


def close_pairs(hashes: np.ndarray, most: int, extra: int = 0) -> Iterator[np.ndarray]:
    """Yield all pairs, int64 [m, 2], of the different hashes uint64 [n] that differ in up to `most` bits.

    The bits are cut into `most + extra` bands, of which `most` different bits leave `extra` alone: two such hashes
    agree in some `extra` bands, so each choice of them is a lookup by equal keys. extra: 0 chooses by n, as more bands
    make more lookups with fewer chance hits. A pair may come several times.
    """
    if not most or len(hashes) < 2:
        return
    extra = extra or _extra(len(hashes), most)
    bands = most + extra
    edges = [BITS * band // bands for band in range(bands + 1)]
    masks = [((1 << stop) - (1 << start)) for start, stop in pairwise(edges)]
    for chosen in combinations(masks, extra):
        keys = hashes & np.uint64(sum(chosen))
        for pairs in equal_pairs(keys):
            different = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
            yield pairs[different <= most]


def _extra(count: int, most: int) -> int:
    """Return how many bands the keys of a lookup have: the fewest with few hashes a bucket, in MOST_LOOKUPS at most."""
    extra = 1
    while count > FULL << (BITS * extra // (most + extra)) and comb(most + extra + 1, extra + 1) <= MOST_LOOKUPS:
        extra += 1
    return extra
