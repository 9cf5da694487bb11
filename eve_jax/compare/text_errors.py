"""Character error rate of what a model read, and which of its words are wrong."""

import difflib
from typing import NamedTuple

import numpy as np


class Word(NamedTuple):
    """A word of an answer, or ("missing") of the true text where the answer lacks it."""

    text: str
    kind: str  # right | wrong | missing


def plain(text: str) -> str:
    """Return `text` with single spaces for all white space, which a layout decides."""
    return " ".join(text.split())


def edit_distance(one: str, other: str) -> int:
    """Return the fewest insertions, deletions and replacements of a character that make `other` of `one`."""
    if not one or not other:
        return len(one) + len(other)
    letters = np.frombuffer(other.encode("utf-32-le"), np.uint32)
    steps = np.arange(len(letters) + 1)
    row = steps.copy()
    for number, letter in enumerate(np.frombuffer(one.encode("utf-32-le"), np.uint32), 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (letters != letter))
        row = np.concatenate([[number], best])
        row = np.minimum.accumulate(row - steps) + steps  # insertions, from left to right
    return int(row[-1])


def character_error_rate(answer: str, text: str) -> float:
    """Return the edit distance between `answer` and the true `text`, over the length of the latter.

    White space counts as one space; case and punctuation count. It is above 1 for an answer that is much longer.
    """
    true = plain(text)
    if not true:
        raise ValueError("the true text is empty")
    return edit_distance(plain(answer), true) / len(true)


def marked_words(answer: str, text: str) -> list[Word]:
    """Return the words of `answer` in order, right or wrong, and the ones of `text` that it lacks, in their places.

    Words are aligned in order, so that a right word in the wrong place is wrong.
    """
    given, true = answer.split(), text.split()
    words: list[Word] = []
    for tag, i, j, start, end in difflib.SequenceMatcher(None, given, true, autojunk=False).get_opcodes():
        kind = "right" if tag == "equal" else "wrong"
        words += [Word(word, kind) for word in given[i:j]]
        words += [Word(word, "missing") for word in true[start:end]] if tag in ("insert", "replace") else []
    return words
