"""Places of images as others write them: `<image_1>`, `<|image_pad|>`, `[IMG]`, `<img>a.png</img>` and the like.

A record that has images, and no `<image>` in a human turn, has its images where these stand, if there is one for each;
numbers or paths in them say which. They are text where `<image>` places the images, behind a backslash, and in answers
and system turns.
"""

import re
from collections.abc import Iterable, Sequence

from eve_jax.data.markers import MARKER, count_markers
from eve_jax.data.record import BadRecord, Turn
from eve_jax.data.sources.media import basename

OTHER_MARKER = re.compile(
    r"""(?<!\\)(?:<img>(?P<path>[^<>\n]*)</img>
    | <\|vision_start\|>(?:<\|image_pad\|>)?<\|vision_end\|>
    | (?!<image>)(?i:<(?P<bar>\|?)(?:image|img)[ _-]?
        (?:(?P<number>\d+)|pad|patch|token|placeholder|here|soft_token)?\s?/?(?P=bar)>)
    | <im_patch> | <start_of_image>
    | \[(?:IMG|IMAGE)[ _]?(?P<other>\d*)\])""",
    re.VERBOSE,
)


def found_markers(turns: Iterable[Turn]) -> list[re.Match[str]]:
    """Return the other markers in `turns`, in order."""
    return [
        found for turn in turns if "<" in turn.text or "[" in turn.text for found in OTHER_MARKER.finditer(turn.text)
    ]


def with_places(turns: Sequence[Turn], names: Sequence[str]) -> tuple[tuple[Turn, ...], list[int]]:
    """Return `turns` with `<image>` for the other markers that place the images, and which image stands at each place.

    names: the file name of each image, "" for one that has none. Raises `BadRecord` where there is another number of
    markers than of images, or where the numbers or paths in them do not fit.
    """
    same = list(range(len(names)))
    human = [turn for turn in turns if turn.role == "human"]
    found = found_markers(human)
    if not names or not found or any(count_markers(turn.text) for turn in human):
        return tuple(turns), same
    about = f"write {MARKER} where an image belongs, and other markers are text (see docs/data.md)"
    if len(found) != len(names):
        raise BadRecord(f"{len(found)} markers {found[0][0]!r} or the like for {len(names)} images; {about}")
    numbers = [int(one["number"] or one["other"]) for one in found if one["number"] or one["other"]]
    paths = [basename(one["path"].strip()) for one in found if one["path"] and list(names) != [""]]
    order = [number - min(numbers) for number in numbers] or [[*names, path].index(path) for path in paths] or same
    if sorted(order) != same or min(numbers, default=0) > 1 or (numbers and paths):
        raise BadRecord(f"the markers of its {len(names)} images are {', '.join(one[0] for one in found)}; {about}")
    return tuple(_mapped(turn) if turn.role == "human" else turn for turn in turns), order


def _mapped(turn: Turn) -> Turn:
    """Return a human turn that has no places with one for each other marker."""
    pieces, end = [], 0
    for found in OTHER_MARKER.finditer(turn.text):
        pieces += [turn.text[end : found.start()], MARKER]
        end = found.end()
    return Turn(turn.role, "".join([*pieces, turn.text[end:]]))
