r"""`<image>` in texts: the place of an image, or the tag itself, written `\<image>`.

Only human turns have markers. There, `<image>` is a place, `\<image>` is the text `<image>`, and `\\<image>` is a
backslash and a place. Backslashes elsewhere are text, and answers and system turns are text throughout: nothing in
them is escaped or unescaped.
"""

import re

MARKER = "<image>"
_ESCAPED = re.compile(rf"(\\*){MARKER}")


def escape_markers(text: str) -> str:
    """Return the text of a human turn that reads as `text` and has no places: `split_markers` gives back [`text`].

    For texts whose images are placed by other means, such as lists of text and image parts. Answers and system turns
    need no escape and must not be given one.
    """
    return _ESCAPED.sub(lambda found: 2 * found[1] + "\\" + MARKER, text)


def split_markers(text: str) -> list[str]:
    """Return the texts before, between and after the places of a human turn's `text`, unescaped; places + 1 in all."""
    pieces, end = [""], 0
    for found in _ESCAPED.finditer(text):
        slashes = len(found[1])
        pieces[-1] += text[end : found.start()] + "\\" * (slashes // 2)
        if slashes % 2:
            pieces[-1] += MARKER
        else:
            pieces.append("")
        end = found.end()
    pieces[-1] += text[end:]
    return pieces


def count_markers(text: str) -> int:
    """Return the number of places in a human turn's `text`."""
    return len(split_markers(text)) - 1
