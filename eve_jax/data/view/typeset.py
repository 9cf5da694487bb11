"""Words on lines, some of them underlined: what `draw` needs of a text."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
from PIL import ImageDraw, ImageFont

SIZE, LEADING = 21, 30  # of the text, pixels


class Run(NamedTuple):
    """A word, or part of one, on a line: whether it is learned, its place and width in pixels."""

    text: str
    learnt: bool
    x: float
    width: float


@cache
def font(size: int = SIZE, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def shortened(text: str, width: float, own: ImageFont.FreeTypeFont) -> str:
    """As much of `text` as fits `width`, with dots where there is more."""
    if own.getlength(text) <= width:
        return text
    while text and own.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def wrapped(runs: Sequence[tuple[str, bool]], width: int, most: int) -> list[list[Run]]:
    """Lines of the words of `runs` (text, learned) that fit `width`; at most `most`, then one on how much is left."""
    lines: list[list[Run]] = [[]]
    x = 0.0
    words = [(part, learnt) for text, learnt in runs for word in _words(text) for part in _broken(word, width)]
    for number, (word, learnt) in enumerate(words):
        shown = word.rstrip("\n")
        if x and x + font().getlength(shown) > width:
            lines.append([])
            x, shown = 0.0, shown.lstrip(" ") if x <= width else shown
        if len(lines) > most:
            rest = f"… {len(words) - number:,} more words"
            return [*lines[:most], [Run(rest, False, 0.0, font().getlength(rest))]]
        lines[-1].append(Run(shown, learnt, x, font().getlength(shown)))
        x = width + 1.0 if word.endswith("\n") else x + lines[-1][-1].width
    return lines if lines[0] else []


def write(draw: ImageDraw.ImageDraw, lines: Sequence[Sequence[Run]], x: int, y: int, read: str, learnt: str) -> None:
    """Writes the lines, what is learned underlined; `read` and `learnt` are colors."""
    for number, line in enumerate(lines):
        top = y + LEADING * number
        for run in line:
            draw.text((x + run.x, top), run.text, learnt if run.learnt else read, font())
            if run.learnt:
                draw.line((x + run.x, top + 26, x + run.x + run.width, top + 26), learnt, 2)


def _words(text: str) -> list[str]:
    """Words with the blanks before them; a newline shows as ↵ and ends a line."""
    shown = re.sub(r"[^\S\n ]", " ", text).replace("\n", "↵\n")
    return re.findall(r" *[^ \n]+\n?| +", shown)


def _broken(word: str, width: int) -> Iterator[str]:
    """A word that is longer than a line in pieces that are not."""
    while font().getlength(word.rstrip("\n")) > width:
        n = max(next(k for k in range(len(word)) if font().getlength(word[: k + 1]) > width), 1)
        yield word[:n]
        word = word[n:]
    yield word
