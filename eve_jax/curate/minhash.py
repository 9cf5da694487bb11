"""MinHash of captions: which captions are nearly the same, without comparing each with each.

A signature has PERMUTATIONS values, of which two captions share about as many as the Jaccard similarity of their sets
of three-word shingles (Broder, "On the resemblance and containment of documents", 1997). Libraries for it keep an
index of Python objects, a few kB a caption; this takes the 256 bytes of the signature.
"""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np

PERMUTATIONS, BANDS = 64, 16
ROWS = PERMUTATIONS // BANDS  # values of a band; captions that agree in one band are compared
SHINGLE = 3  # words


def signatures(captions: Sequence[str]) -> list[bytes]:
    """Return the signature of each caption, 256 bytes; b"" of one without a word."""
    return [_signature(caption) for caption in captions]


def _signature(caption: str) -> bytes:
    words = caption.lower().split()
    if not words:
        return b""
    shingles = {" ".join(words[start : start + SHINGLE]) for start in range(max(len(words) - SHINGLE + 1, 1))}
    hashes = np.array([zlib.crc32(shingle.encode()) for shingle in sorted(shingles)], np.uint64)
    mixed = (_FACTORS[:, None] * hashes + _OFFSETS[:, None]) >> np.uint64(32)
    return mixed.min(axis=1).astype("<u4").tobytes()


# Multiply-add-shift modulo 2^64: pairwise independent hashes of 32 bits (Dietzfelbinger, 1996).
_FACTORS, _OFFSETS = np.random.default_rng(0).integers(0, 1 << 64, (2, PERMUTATIONS), np.uint64)


def similar_pairs(found: np.ndarray, similarity: float) -> Iterator[np.ndarray]:
    """Yield pairs (a < b), int64 [m, 2], of rows of the signatures uint32 [n, PERMUTATIONS] that are this similar.

    Rows that agree in no band are not compared: of captions with similarity 0.8, 0.02 % go unnoticed; 0.7: 1 %.
    A pair may come several times.
    """
    for band in range(BANDS):
        part = np.ascontiguousarray(found[:, band * ROWS : (band + 1) * ROWS])
        keys = part.view(f"V{part.itemsize * ROWS}").ravel()
        for pairs in equal_pairs(keys):
            shared = (found[pairs[:, 0]] == found[pairs[:, 1]]).mean(axis=1)
            yield pairs[shared >= similarity]


def equal_pairs(keys: np.ndarray, most: int = 1 << 20) -> Iterator[np.ndarray]:
    """Yield pairs (a < b), int64 [m, 2], of places of equal `keys` [n]: all of them, about `most` at a time."""
    _, group = np.unique(keys, return_inverse=True)
    order = np.argsort(group, kind="stable")
    group = group[order]
    ends = np.searchsorted(group, group, side="right")
    alive = np.flatnonzero(ends - np.arange(len(group)) > 1)  # those with a later one of the same key
    for step in range(1, len(group)):
        alive = alive[alive + step < ends[alive]]
        if not len(alive):
            return
        for start in range(0, len(alive), most):
            first = alive[start : start + most]
            pairs = np.stack([order[first], order[first + step]], axis=1)
            yield pairs
