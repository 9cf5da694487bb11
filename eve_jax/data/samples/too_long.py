"""Samples that are too long: left out, their text cut, or their images made smaller; counted, never silent."""

from collections.abc import Iterable, Sequence

import numpy as np

from eve_jax.batch import EVE_LAYOUT, Layout
from eve_jax.data.image.rule import CANVASES, SQUARE
from eve_jax.data.record import BadRecord
from eve_jax.data.text.encode import IGNORE, IMAGE_ID, Encoded
from eve_jax.errors import Field, FieldError

LONG = ("drop", "truncate_text", "shrink_image")
Grids = Sequence[tuple[int, int]]


def grid_tokens(grids: Iterable[tuple[int, int]], layout: Layout = EVE_LAYOUT) -> tuple[int, int]:
    """Patches and special tokens of images of `grids` (h, w): h * w and 1 + h each (EVEv2 paper, section 3.2)."""
    patches = specials = 0
    for h, w in grids:
        patches += h * w
        specials += layout.specials_of(h)
    return patches, specials


def check_long(long: str, image_mode: str = "") -> None:
    """Raise FieldError unless `long` is one of LONG and goes with the `image_mode`."""
    if long not in LONG:
        raise FieldError(Field("data.long"), f": {long!r} is not one of {', '.join(LONG)}")
    if long == "shrink_image" and image_mode in (SQUARE, *CANVASES):
        raise FieldError(
            Field("data.long"),
            "=shrink_image does not go with ",
            Field("data.image_mode"),
            f"={image_mode}: use drop or truncate_text",
        )


def fitted(
    encoded: Encoded, grids: Grids, max_tokens: int, long: str = "drop", layout: Layout = EVE_LAYOUT
) -> tuple[Encoded, Grids]:
    """The sample with at most `max_tokens` tokens, text and images of `grids` (rows, columns of patches) together.

    One that fits is given back as it is. Else, by `long`: `truncate_text` cuts text from its end, and keeps the
    images; `shrink_image` makes all images smaller by the same factor. Raises `BadRecord` when that does not help,
    when nothing is left to learn, and always for `drop`.
    """
    n_text = len(encoded.ids) - len(grids)
    n_image = sum(grid_tokens(grids, layout))
    if n_text + n_image <= max_tokens:
        return encoded, grids
    reason = f"too long: {n_text + n_image} tokens, more than {max_tokens}"
    if long == "truncate_text":
        short = _truncated(encoded, max_tokens - n_image)
        if not (short.labels[1:] != IGNORE).any():
            raise BadRecord(f"{reason}; nothing to learn within them")
        return short, grids
    if long == "shrink_image":
        smaller = shrunk(grids, max_tokens - n_text, layout)
        if smaller is None:
            raise BadRecord(f"{reason}, even with the smallest images")
        return encoded, smaller
    raise BadRecord(reason)


def shrunk(grids: Grids, max_tokens: int, layout: Layout = EVE_LAYOUT) -> Grids | None:
    """`grids` made smaller by a common factor until the images have at most `max_tokens` tokens; None if they cannot.

    The longest side of all goes down in steps of one patch; the other sides keep their ratio to it, half rounded up.
    """
    if sum(grid_tokens(grids, layout)) <= max_tokens:
        return grids
    longest = max((side for grid in grids for side in grid), default=0)
    for side in range(longest - 1, 0, -1):
        smaller = [(_scaled(h, side, longest), _scaled(w, side, longest)) for h, w in grids]
        if sum(grid_tokens(smaller, layout)) <= max_tokens:
            return smaller
    return None


def _scaled(n: int, part: int, whole: int) -> int:
    return max((2 * n * part + whole) // (2 * whole), 1)


def _truncated(encoded: Encoded, n_text: int) -> Encoded:
    """The sample with the first `n_text` tokens of its text."""
    text = np.flatnonzero(encoded.ids != IMAGE_ID)
    keep = np.ones(len(encoded.ids), bool)
    keep[text[max(n_text, 0) :]] = False
    return Encoded(encoded.ids[keep], encoded.labels[keep])
