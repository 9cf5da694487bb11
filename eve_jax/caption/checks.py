"""What is wrong with a caption: the rules by which one is rejected, in the order in which they are asked.

Every rule returns what it found, for people, or None. What a caption quotes ("...") is what the image shows: rules
about the model's own words do not look there.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from eve_jax.caption.config import CheckConfig
from eve_jax.caption.words import repetition, words_of
from eve_jax.curate.experts.block import HEADINGS
from eve_jax.errors import shorten

APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'"})
QUOTED = re.compile(r"\"[^\"\n]{0,300}\"|\u201c[^\u201d\n]{0,300}\u201d|\u00ab[^\u00bb\n]{0,300}\u00bb")
ENDS = re.compile(r"[.!?\u2026\u3002\uff01\uff1f\u0964\u061f]['\"\u201d\u2019\u00bb)\]*_`\u300d\u300f\uff09]*$")
LIST_NUMBER = re.compile(r"(?:^|[.!?:\n]\s*)\(?\d{1,2}[.)]$")
OPEN_END = re.compile(
    r"(?:\b(?:[Mm]rs?|[Mm]s|[Dd]r|[Pp]rof|e\.g|i\.e|vs|cf)\.|\b(?:the|an|and|or|its|their)\s*[.\u2026]+)$"
)
ABLE = "help|assist|provide|describe|identify|see|view|access|process|generate|comply|fulfill|analyze|discuss|recognize"
REFUSALS = re.compile(
    rf"""
    (?:^|[.!?\n])\W*(?:i'?m\ |i\ am\ )?(?:(?:so|very)\ )?sorry\b
    | \b(?:apologize|apologies)\b
    | \bas\ an?\ (?:ai|artificial|large\ language|language|vision|text-based|multimodal)\b
    | \b(?:text-based|language|ai)\ (?:assistant|model)\b
    | \b(?:unable|not\ able|not\ possible|impossible)\ (?:for\ me\ )?to\ (?:{ABLE})
    | \bno\ (?:image|photo|attachment)s?\ (?:was|were|is|has\ been|have\ been|seems|appears)?\ ?(?:\w+\ )?
        (?:provided|attached|uploaded|shared|included|received)
    | \b(?:image|photo|file)\ (?:\w+\ ){{0,2}}(?:not|n't|failed\ to)\ (?:be\ )?(?:load|open|display|available)
    | \b(?:please|could\ you|can\ you|you\ can|feel\ free\ to)\ (?:\w+\ )?(?:upload|attach|re-?send|share|provide)\b
    | \byou(?:'ve|\ have)?\ (?:shared|provided|uploaded|attached|sent|posted)\b
    | \b(?:against|violat\w+|under)\ (?:\w+\ ){{0,2}}(?:guidelines|polic(?:y|ies)|terms\ of\ (?:use|service))\b
    | \b(?:openai|anthropic|my\ (?:training|programming|guidelines|instructions|capabilities))\b
    | \b(?:would\ not\ be|wouldn't\ be|is\ not|isn't|not)\ appropriate\b
    | (?:^|[.!?\n])\W*(?:lo\ siento|je\ suis\ d\u00e9sol\u00e9e?|es\ tut\ mir\ leid|mi\ dispiace|desculpe|lamento)\b
    | (?:\u62b1\u6b49|\u5bf9\u4e0d\u8d77).{{0,12}}(?:\u65e0\u6cd5|\u4e0d\u80fd)
    | \u4f5c\u4e3a.{{0,8}}(?:AI|\u4eba\u5de5\u667a\u80fd|\u8bed\u8a00\u6a21\u578b)
    """,
    re.IGNORECASE | re.VERBOSE,
)
# The model speaks of itself: not the I of Charles I, which follows a name.
MYSELF = re.compile(r"(?:^|[^\w\s]\s*|\b[a-z]+\s)I(?:'(?:m|ve|d|ll))?\s+[a-z]")
MINE = re.compile(r"\b(?:my|me|myself|[Tt]he assistant)\b")
SEES = re.compile(
    r"\bI (?:can )?(?:also )?(?:clearly )?(?:see|notice|observe|spot)\b(?!.*(?:n't\b|\bnot?\b|\bunable\b))"
)
SENTENCES = re.compile(r"(?<=[.!?\n])\s+")
MARKUP = re.compile(
    r"<\|[^|>]{1,40}\|>|</?(?:image|img|s|box|ref|think|im_start|im_end)>|\[/?INST\]|<<SYS>>|(?:^|\s)#{2,}\s"
)
SPOKEN = re.compile(
    r"""
    \b(?:the|this|your|my|user'?s?|system)\ (?:system\ |user\ )?(?:prompt|instructions?)\b
    | \b(?:as|per)\ (?:instructed|requested|the\ instructions)\b
    | \b(?:alt[ -]text|world\ knowledge|bounding\ box(?:es)?|ocr(?:\ (?:text|result|output|line)s?)?|box\ coordinates)\b
    | \b(?:provided|given|additional|outside|external)\ (?:information|metadata|context|caption|tags|block|hints?)\b
    | \baccording\ to\ (?:the\ )?(?:tags|labels|boxes|detector|detections?|metadata|caption|experts?)\b
    | \bdetect(?:ed|or)\ (?:objects?|boxes|tags|labels|list)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
SPAN = 7  # words in a row of the prompt that no caption has by chance
COORDINATES = re.compile(
    r"[\[(]\s*-?\d*\.?\d+(?:\s*[,;]\s*-?\d*\.?\d+){3}\s*[\])]"  # [x1, y1, x2, y2]
    r"|[\[(]\s*[01]?\.\d+\s*[,;]\s*[01]?\.\d+\s*[\])]"  # (x, y) in 0..1
    r"|\b0\.\d{2,}\s*,\s*0\.\d{2,}\s*,"
    r"|\b[xy](?:_?(?:min|max)|[12])\s*[=:]\s*-?\d",
    re.IGNORECASE,
)
SYNONYMS = {
    "person": "people persons man men woman women child children boy boys girl girls baby adult someone player rider "
    "figure crowd lady gentleman individual individuals pedestrian worker he she",
    "tv": "television screen monitor display",
    "couch": "sofa",
    "cell phone": "phone smartphone mobile",
    "motorcycle": "motorbike bike scooter moped",
    "bicycle": "bike cycle",
    "airplane": "plane aircraft jet airliner",
    "dining table": "table desk",
    "potted plant": "plant pot houseplant",
    "car": "vehicle sedan automobile suv",
    "truck": "lorry van pickup vehicle",
    "sports ball": "ball football basketball",
    "laptop": "computer notebook",
}


class Fault(NamedTuple):
    """Why a caption is rejected: the rule's name, and what it found."""

    rule: str
    value: str


@dataclass(frozen=True)
class Facts:
    """What is known about an image next to its caption: words read in it by OCR, and classes detected in it."""

    ocr: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, experts: dict[str, list[dict[str, Any]]], config: CheckConfig) -> "Facts":
        """Return the facts in what `experts` found, those that are certain enough by `config`."""
        lines = [one["text"] for one in experts.get("ocr", ()) if one["score"] >= config.ocr_score]
        words = dict.fromkeys(word for line in lines for word in words_of(line) if len(word) >= 3 and word.isalpha())
        names = (one["name"].casefold() for one in experts.get("boxes", ()) if one["score"] >= config.classes_score)
        return cls(tuple(words)[:MOST_WORDS], tuple(dict.fromkeys(names)))


MOST_WORDS = 12  # of an image that are looked for: no caption has all those of a page


class Checker:
    """The rules of a config, with the prompt whose words no caption may have."""

    def __init__(self, config: CheckConfig, prompt: str = "") -> None:
        self.config = config
        words = words_of(prompt)
        self._spans = {tuple(words[at : at + SPAN]) for at in range(len(words) - SPAN + 1)}
        self._rules: dict[str, Callable[[str, str, Facts], str | None]] = {
            "empty": lambda text, own, facts: "no text" if not words_of(text) else None,
            **({"refusal": _refusal} if config.refusals else {}),
            **({"leak": self._leak} if config.leaks else {}),
            **({"coordinates": _coordinates} if config.coordinates else {}),
            "repetition": self._repetition,
            "length": self._length,
            **({"unfinished": _unfinished} if config.finished else {}),
            **({"ocr": self._ocr} if config.ocr else {}),
            **({"classes": self._classes} if config.classes else {}),
        }

    def fault(self, caption: str, facts: Facts | None = None) -> Fault | None:
        """Return the first rule that `caption` breaks, None for a good one."""
        text = caption.translate(APOSTROPHES)
        own = QUOTED.sub(" \u2026 ", text)
        for rule, check in self._rules.items():
            if (found := check(text, own, facts or Facts())) is not None:
                return Fault(rule, shorten(found, 200))
        return None

    def _leak(self, text: str, own: str, facts: Facts) -> str | None:
        heading = next((one for one in HEADINGS.values() if one.casefold() in text.casefold()), "")
        found = MARKUP.search(text) or SPOKEN.search(own)
        if heading or found:
            return heading or (found[0].strip() if found else "")
        words = words_of(text)
        spans = (tuple(words[at : at + SPAN]) for at in range(len(words) - SPAN + 1))
        leaked = next((span for span in spans if span in self._spans), None)
        return None if leaked is None else " ".join(leaked)

    def _repetition(self, text: str, own: str, facts: Facts) -> str | None:
        found = repetition(text, self.config.repetition)
        return None if found is None else f"{found[0]}: {found[1]:.2f} of the words"

    def _length(self, text: str, own: str, facts: Facts) -> str | None:
        count = len(words_of(text))
        return None if self.config.min_words <= count <= self.config.max_words else f"{count} words"

    def _ocr(self, text: str, own: str, facts: Facts) -> str | None:
        said = {*words_of(text)}
        return _too_few(facts.ocr, [word in said for word in facts.ocr], self.config.ocr)

    def _classes(self, text: str, own: str, facts: Facts) -> str | None:
        said = {form for word in words_of(text) for form in _forms(word)}
        return _too_few(facts.classes, [_is_said(name, said) for name in facts.classes], self.config.classes)


def _refusal(text: str, own: str, facts: Facts) -> str | None:
    found = REFUSALS.search(own)
    if found is not None:
        return found[0].strip(".!? \n")
    sentences = SENTENCES.split(own)
    return next((one for one in sentences if MINE.search(one) or (MYSELF.search(one) and not SEES.search(one))), None)


def _coordinates(text: str, own: str, facts: Facts) -> str | None:
    found = COORDINATES.search(own)
    return None if found is None else found[0]


def _unfinished(text: str, own: str, facts: Facts) -> str | None:
    end = text.rstrip()
    if not ENDS.search(end) or LIST_NUMBER.search(end) or OPEN_END.search(end):
        return f"ends in {end[-30:]!r}"
    if _open_quote(end) or end.count("(") > end.count(")"):
        return f"an open quote or parenthesis, ends in {end[-30:]!r}"
    return None


def _open_quote(text: str) -> bool:
    """Whether a quotation is not closed; a straight quote after a digit, outside of one, stands for inches."""
    is_open = False
    for found in re.finditer('"', text):
        at = found.start()
        is_open = not is_open and not (at and text[at - 1].isdigit())
    return is_open or text.count("\u201c") > text.count("\u201d")


def _too_few(names: Sequence[str], said: Sequence[bool], least: float) -> str | None:
    if not names or sum(said) >= least * len(names):
        return None
    missing = ", ".join(name for name, there in zip(names, said, strict=True) if not there)
    return f"{sum(said)} of {len(names)} mentioned, not {missing}"


def _forms(word: str) -> set[str]:
    """Return a word and what it may be the plural of."""
    endings = {"ies": "y", "es": "", "s": "", "'s": ""}
    return {word} | {word.removesuffix(end) + new for end, new in endings.items() if word.endswith(end)}


def _is_said(name: str, said: set[str]) -> bool:
    words = words_of(name)
    return all(word in said for word in words) or any(word in said for word in SYNONYMS.get(name, "").split())
