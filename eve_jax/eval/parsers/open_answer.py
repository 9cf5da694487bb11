"""Open answers of MMMU: the texts and numbers of which one must agree with the gold."""

import re
from collections.abc import Iterable

KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
TRIVIAL = tuple(":,.!?;'")
WITH_COMMAS = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
SCIENTIFIC = re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+")
SIMPLE = re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])")


def normal_forms(text: str) -> list[str | float]:
    """Return what `text` is compared as: a number rounded to two digits, or the text in lower case.

    A single character becomes two texts, with a space before and after it, so that it does not match inside words.
    """
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        low = text.lower()
        return [f" {low}", f"{low} "] if len(low) == 1 else [low]


def parse_open(text: str) -> list[str | float]:
    """Return the candidates that an open answer holds, without repeats, in the order in which they were found."""
    tails = _key_tails(text)
    numbers = [found for tail in tails for form in (WITH_COMMAS, SCIENTIFIC, SIMPLE) for found in form.findall(tail)]
    return list(dict.fromkeys(form for candidate in [*tails, *numbers] for form in normal_forms(candidate)))


def open_match(candidates: Iterable[str | float], golds: Iterable[str]) -> bool:
    """Return whether a gold is part of a text of `candidates`, or is a number among them."""
    expected = [form for gold in golds for form in normal_forms(gold)]
    texts = [form for form in expected if isinstance(form, str)]
    return any(
        any(gold in candidate for gold in texts) if isinstance(candidate, str) else candidate in expected
        for candidate in candidates
    )


def _key_tails(text: str) -> list[str]:
    """Return of each line the shortest text after a key word; all of `text` if no line has one."""
    low = text.strip().strip(".").lower()
    lines = low.split("\n")
    tails = []
    for number, line in enumerate(lines, 1):
        keys = (*KEYS, "=") if number == len(lines) else KEYS
        # An empty tail counts as none so far, as in the reference, so the order of the keys matters.
        shortest = ""
        for tail in (line.split(key)[-1].strip() for key in keys if key in line):
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in TRIVIAL:
            tails.append(shortest)
    return tails or [low]
