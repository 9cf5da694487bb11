"""Option letters in answers: the rules of MMMU, of MMBench, and the tolerant ones of its judge-free variant."""

from collections.abc import Mapping, Sequence
from string import ascii_uppercase

FAILED_REQUEST = "Failed to obtain answer via API"
PUNCTUATION = (",", ".", "!", "?", ";", ":", "'")
# Before and after a letter, in order; a word of the answer has exactly one of the forms.
DRESSES = (
    *(("", after) for after in (".", ",", ":", ")", ").")),
    *(("(", after) for after in (")", ").")),
    *((":", after) for after in ("", ",", ".", ")", ").")),
)
PHRASES = (
    *(
        f"{which}{noun} is"
        for noun in ("answer", "choice")
        for which in ("", "the ", "my ", "correct ", "the correct ")
    ),
    *(f"{which}{noun} is" for noun in ("answer", "option") for which in ("best ", "the best ")),
    *("correct option is", "the correct option is"),
    *("i choose", "i select", "i pick"),
    *("옵션", "정답은", "답은", "답:"),
    *("答案是", "答案为", "选", "答えは"),
)


def lettered(options: Sequence[str]) -> dict[str, str]:
    """Return the options by their letters, from A."""
    return dict(zip(ascii_uppercase, options, strict=False))


def strip_marks(text: str, marks: Sequence[str] = PUNCTUATION) -> str:
    """Return `text` without each of `marks` at both ends, one mark after the other."""
    for mark in marks:
        text = text.strip(mark)
    return text


def mmmu_letter(text: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of `options` that MMMU's rules find in `text`; None where its scorer would guess."""
    padded = f" {strip_marks(text)} "
    low = padded.lower()
    for form, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        found = [letter for letter in options if form.format(letter) in padded]
        if found:
            return max(found, key=lambda letter: padded.rfind(place.format(letter)))
    if len(padded.split()) <= 5:
        return None
    found = [letter for letter, option in options.items() if option.lower() in low]
    return max(found, key=lambda letter: low.rfind(options[letter].lower())) if found else None


def word_letter(text: str, letters: str = "ABCDE") -> str | None:
    """Return the letter that stands as a word of its own in `text` by MMBench's rules; None if there is not one.

    An A among more than three words may be an article: then only forms such as `A.` and `(A)` count.
    """
    if FAILED_REQUEST in text:
        return None
    words = set(text.split())
    alone = [letter for letter in letters if letter in words]
    if len(alone) == 1 and not ("A" in words and len(text.split()) > 3):
        return alone[0]
    for before, after in DRESSES:
        dressed = [letter for letter in letters if f"{before}{letter}{after}" in words]
        if len(dressed) == 1:
            return dressed[0]
    return None


def option_in_text(text: str, options: Mapping[str, object]) -> str | None:
    """Return the letter of the only option whose text is in `text`, in any case; None if there is not one."""
    low = text.lower()
    found = [letter for letter, option in options.items() if str(option).lower() in low]
    return found[0] if len(found) == 1 else None


def tolerant_letter(text: str, letters: Sequence[str]) -> str | None:
    """Return the letter of `letters` that `text` most likely gives, None for none.

    Forms in the order of trust: at the start, at the end, after a phrase such as `the answer is`, `(X)`, `X.`, `X:`,
    `X)`, `X ` and anywhere; within a form, the last position counts.
    """
    if not text.strip():
        return None
    padded = f" {strip_marks(text.strip(), (*PUNCTUATION, chr(34)))} "
    for places in _places(padded, letters):
        if places:
            return max(places, key=lambda place: place[1])[0]
    return None


def _places(padded: str, letters: Sequence[str]) -> list[list[tuple[str, int]]]:
    """Return the letters with their positions, form by form, in the order of trust."""
    bare = padded.strip()
    starts = [x for x in letters if bare.startswith(x) and not bare[1:2].isalpha()]
    ends = [x for x in letters if bare.endswith(x) and not bare[-2:-1].isalpha()]
    low = padded.lower()
    after = [low.find(phrase) + len(phrase) for phrase in PHRASES if phrase in low]
    spoken = [(x, place) for begin in after for x in letters if (place := padded.find(x, begin)) >= 0]
    forms = [
        [(x, place) for x in letters if (place := padded.rfind(form.format(x))) >= 0]
        for form in ("({})", "{}.", "{}:", "{})", "{} ", "{}")
    ]
    return [[(x, 0) for x in starts], [(x, 0) for x in ends], spoken, *forms]
