"""Captions that many images have: what a model says when it did not look."""

import hashlib
from collections.abc import Iterable

import numpy as np

from eve_jax.caption.words import words_of

RULE = "same"


def caption_number(caption: str) -> int:
    """Return a number of 63 bits that captions with the same words in the same order share."""
    digest = hashlib.blake2b(" ".join(words_of(caption)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numbers_above(numbers: Iterable[int], most: int) -> dict[int, int]:
    """Return the numbers that are there more than `most` times, each with its count; 8 bytes of memory for each."""
    values, counts = np.unique(np.fromiter(numbers, np.int64), return_counts=True)
    return {int(values[at]): int(counts[at]) for at in np.flatnonzero(counts > most)}
