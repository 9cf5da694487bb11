"""Words of a caption in any script, and the share of a caption that repeats itself."""

import re
from collections import Counter
from collections.abc import Sequence

CJK = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")  # written without spaces: a word each
WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
TOP = {2: 0.20, 3: 0.18, 4: 0.16}  # words of an n-gram: largest share of a text's words in its most frequent one
DUPLICATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}  # and in those that are there more than once
LEAST = 3  # times that the most frequent n-gram has to be there to count
IN_A_ROW = 4  # times that a word follows itself
SENTENCE = re.compile(r"[^.!?\u3002\uff01\uff1f\n]+")
SHORTEST = 4  # words of a sentence that counts as said twice


def words_of(text: str) -> list[str]:
    """Return the words of a text, in lower case, in order; characters of CJK scripts are words."""
    return WORD.findall(CJK.sub(r" \1 ", text).casefold())


def repetition(text: str, factor: float = 1.0) -> tuple[str, float] | None:
    """Return what a text repeats, and the share of its words, where that is more than allowed; None for a good text.

    The most frequent 2- to 4-gram, and all 5- to 10-grams that are there more than once, may have the shares of
    Gopher's rules (arXiv 2112.11446, table A1), here of words and times `factor`; 0 allows everything. A sentence that
    is there twice, and a word that follows itself IN_A_ROW - 1 times, are repetitions in any case.
    """
    if not factor:
        return None
    words = words_of(text)
    row = _longest_row(words)
    if row >= IN_A_ROW:
        return "one word in a row", row / len(words)
    sentences = Counter(tuple(own) for part in SENTENCE.findall(text) if len(own := words_of(part)) >= SHORTEST)
    if sentences and (most := sentences.most_common(1)[0])[1] > 1:
        return "a sentence twice", most[1] * len(most[0]) / len(words)
    for n, allowed in TOP.items():
        share = _top_share(words, n)
        if share > allowed * factor:
            return f"one {n}-gram", share
    for n, allowed in DUPLICATED.items():
        share = _duplicated_share(words, n)
        if share > allowed * factor:
            return f"{n}-grams", share
    return None


def _longest_row(words: Sequence[str]) -> int:
    longest = row = 0
    before = ""
    for word in words:
        row = row + 1 if word == before else 1
        longest, before = max(longest, row), word
    return longest


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]


def _top_share(words: Sequence[str], n: int) -> float:
    counts = Counter(_grams(words, n))
    gram, count = counts.most_common(1)[0] if counts else ((), 0)
    return count * n / len(words) if count >= LEAST and gram else 0.0


def _duplicated_share(words: Sequence[str], n: int) -> float:
    """Return the share of words that are in an n-gram which was there before."""
    seen: set[tuple[str, ...]] = set()
    covered = [False] * len(words)
    for at, gram in enumerate(_grams(words, n)):
        if gram in seen:
            covered[at : at + n] = [True] * n
        seen.add(gram)
    return sum(covered) / len(words) if words else 0.0
