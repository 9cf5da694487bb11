"""Answers as plain words: case and punctuation, numbers, yes and no."""

import string
from collections.abc import Collection

PLAIN = str.maketrans("", "", string.punctuation)


def plain(text: str) -> str:
    """Return `text` in lower case without ASCII punctuation."""
    return text.lower().translate(PLAIN)


def number(text: str) -> float | None:
    """Return the number that all of `text` is, a final `%` divides by 100; None if it is none."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed_match(answer: str, gold: str, tolerance: float = 0.05) -> bool:
    """Return whether numbers are within `tolerance` of the gold (unless that is 0), or texts the same in any case."""
    given, expected = number(answer), number(gold)
    if given is not None and expected:
        return abs(given - expected) / abs(expected) <= tolerance
    return answer.lower() == gold.lower()


def yes_no_start(text: str) -> str:
    """Return `yes` or `no`, whichever is within the first four characters of `text`, else `other`."""
    start = text[:4]
    return next((word for word in ("yes", "no") if word in start), "other")


def no_among(text: str, words: Collection[str] = ("No", "no", "not")) -> bool:
    """Return whether one of `words` is among the words, split at single spaces, before the first full stop."""
    return not set(words).isdisjoint(text.partition(".")[0].replace(",", "").split(" "))
