"""The normalization of answers and the accuracy over ten annotators of VQAv2, TextVQA and VizWiz."""

import re
from collections.abc import Sequence
from functools import lru_cache
from statistics import mean
from typing import Any

NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
ARTICLES = ("a", "an", "the")
PUNCTUATION = ';/[]"{}()=+\\_->@<`,?!'
MOST_DOTS = int(re.UNICODE)  # the reference passes this flag as the number of replacements
# The words with their apostrophes. A word without its apostrophes, or of two without one of them, is spelled so.
ONE_APOSTROPHE = """ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
how'll how's isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've
shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're
there's they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's
where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've"""
TWO_APOSTROPHES = """couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've you'd've y'all'll"""
CONTRACTIONS = (
    {word.replace("'", ""): word for word in ONE_APOSTROPHE.split()}
    | {word.replace("'", "", 1): word for word in TWO_APOSTROPHES.split()}
    | {word[: word.rindex("'")] + word[word.rindex("'") + 1 :]: word for word in TWO_APOSTROPHES.split()}
    | dict.fromkeys(("ow's'at", "'ows'at", "'ow'sat"), "'ow's'at")
    | dict.fromkeys(("yall'd've", "y'alld've", "y'all'dve"), "y'all'd've")
    | {"somebody'd": "somebodyd"}
)


def strip_punctuation(text: str) -> str:
    """Return `text` without punctuation, as EvalAI does it.

    A mark becomes a space, or nothing if it stands next to a space anywhere or `text` has a comma between digits.
    """
    thousands = re.search(r"\d,+\d", text) is not None
    result = text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if beside_space or thousands else " ")
    return re.sub(r"\.(?!\d)", "", result, count=MOST_DOTS)


def plain_words(text: str) -> str:
    """Return `text` in lower case with digits for numbers, without articles, with apostrophes in contractions."""
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def one_line(text: str) -> str:
    """Return `text` stripped, with spaces for newlines and tabs."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(4096)  # annotators repeat each other
def normalize(text: str) -> str:
    """Return `text` as EvalAI compares it, for TextVQA and VizWiz."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return plain_words(strip_punctuation(one_line(text)))


@lru_cache(4096)
def normalize_vqav2(text: str) -> str:
    """Return `text` as VQAv2's scorer compares it: without the first step of `normalize`."""
    return plain_words(strip_punctuation(one_line(text)))


def soft_accuracy(answer: str, golds: Sequence[Any]) -> float:
    """Return the mean over annotators of min(1, agreeing others / 3). `answer` and `golds`: normalized."""
    if not golds:
        return 0.0
    agreeing = sum(gold == answer for gold in golds)
    return float(mean(min(1, (agreeing - (gold == answer)) / 3) for gold in golds))
