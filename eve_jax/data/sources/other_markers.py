"""Places of images as others write them: `<image_1>`, `<|image_pad|>`, `[IMG]`, `<img>a.png</img>` and the like.

A record that has images, and no `<image>` in a human turn, has its images where these stand, if there is one for each;
numbers or paths in them say which. They are text where `<image>` places the images, behind a backslash, and in answers
and system turns.

LIKELY markers may as well be prose, as `[image]`, `{image}` and `![](a.png)`: they are places where they fit the
images, and else text, which `unplaced` tells. `<image>a.png</image>`, with a path, a number or nothing inside, is
`<image>`.
"""

import re
from collections.abc import Collection, Iterable, Sequence

from eve_jax.data.markers import MARKER, count_markers
from eve_jax.data.record import BadRecord, Turn
from eve_jax.data.sources.media import IMAGE_SUFFIXES, basename
from eve_jax.errors import amount

WRAPPED = re.compile(
    rf"""(?<!\\)(?:\(<image>\./</image>\)
    | <image>\s*(?:(?P<path>(?:\./|[^<>\n]*\.(?:{"|".join(sorted(IMAGE_SUFFIXES))}))?)|(?P<number>\d+))\s*</image>)""",
    re.VERBOSE | re.IGNORECASE,
)
OTHER_MARKER = re.compile(
    r"""(?<!\\)(?:<img>(?:(?P<path>[^<>\n]*)|(?:<IMG_CONTEXT>)+)</img>
    | <\|vision_start\|>(?:<\|image_pad\|>)?<\|vision_end\|>
    | (?!<image>)(?i:<(?P<bar>\|?)(?:image|img)[ _-]?
        (?:(?P<number>\d+)|pad|patch|token|placeholder|here|soft_token)?\s?/?(?P=bar)>)
    | <im_patch> | <start_of_image>
    | \[(?:IMG|IMAGE)[ _]?(?P<number2>\d*)\])""",
    re.VERBOSE,
)
LIKELY = re.compile(
    r"""(?<!\\)(?:!\[[^\[\]\n]*\]\(\s*<?(?P<path>[^()<>"'\n]*?)>?\s*(?:"[^"\n]*"|'[^'\n]*')?\s*\)
    | <img\s(?:[^<>\n]*\s)?src\s*=\s*["']?(?P<path2>[^"'<>\n]*)["']?[^<>\n]*>
    | !\[\[(?P<path4>[^\[\]\n|]*)(?:\|[^\[\]\n]*)?\]\]
    | <\|(?:image|img)_(?:start|begin)\|>\s*<\|(?:image|img)_end\|>
    | \[img\](?P<path3>[^\[\]\n]*)\[/img\]
    | \[\[(?:image|img)[ _]?(?P<number4>\d*)\]\]
    | \[(?:image|img|pictur[e]|photo)[ _\#]*(?P<number>\d*)\]
    | <(?:pictur[e]|photo)[ _\#]*(?P<number5>\d*)> | <(?:image|img):(?P<number6>\d+)>
    | <\|media_pad\|> | <IMG_CONTEXT> | <vision_start>(?:<image_pad>)?<vision_end> | &lt;image&gt;
    | \{\{\s*(?:image|img)[ _]?(?P<number2>\d*)\s*\}\} | \{(?:image|img)[ _]?(?P<number3>\d*)\})""",
    re.VERBOSE | re.IGNORECASE,
)
OTHER_MEDIA = re.compile(
    r"""(?<!\\)(?:<\|?(?:video|audio|speech|sound)(?:[ _-]?(?:\d+|pad|token|placeholder))?\s?/?\|?>
    | (?-i:\[(?:VIDEO|AUDIO)\])
    | <\|(?:vision|audio)_(?:start|bos)\|><\|(?:video_pad|AUDIO)\|><\|(?:vision_end|audio_eos)\|>)""",
    re.VERBOSE | re.IGNORECASE,
)
FILLED_IN = {  # what stands for an entry of a field, as ms-swift writes it
    "<bbox>": ("objects", "bbox", "bboxes", "boxes", "box"),
    "<ref-object>": ("objects", "ref", "refs"),
    "<point>": ("objects", "points", "point"),
}
CLOSED = re.compile(r"(?<!\\)<image>[^<]*</image>", re.IGNORECASE)


def found_markers(turns: Iterable[Turn], pattern: re.Pattern[str] = OTHER_MARKER) -> list[re.Match[str]]:
    """Return the other markers in `turns`, in order."""
    return [
        found for turn in turns if any(map(turn.text.__contains__, "<[{&")) for found in pattern.finditer(turn.text)
    ]


def with_places(turns: Sequence[Turn], names: Sequence[str]) -> tuple[tuple[Turn, ...], list[int]]:
    """Return `turns` with `<image>` for the other markers that place the images, and which image stands at each place.

    names: the file name of each image, "" for one that has none. Raises `BadRecord` where there is another number of
    markers than of images, or where the numbers or paths in them do not fit.
    """
    same = list(range(len(names)))
    human = [turn for turn in turns if turn.role == "human"]
    if not names or not human:
        return tuple(turns), same
    about = f"write {MARKER} where an image belongs, and other markers are text (see docs/data.md)"
    pattern = WRAPPED
    found = found_markers(human, WRAPPED)
    places = sum(count_markers(turn.text) for turn in human)
    if found and places > len(found):
        raise BadRecord(f"both {MARKER} and {found[0][0]!r} in its texts; {about}")
    if not found and places:
        return tuple(turns), same
    if not found:
        pattern, found = OTHER_MARKER, found_markers(human)
    if not found:
        likely = found_markers(human, LIKELY)
        order = _order(likely, names)
        return (tuple(turns), same) if order is None else (_mapped(turns, LIKELY), order)
    if len(found) != len(names):
        raise BadRecord(
            f"{amount(len(found), 'marker')} {found[0][0]!r} or the like for {amount(len(names), 'image')}; {about}"
        )
    order = _order(found, names)
    if order is None:
        raise BadRecord(f"the markers of its {len(names)} images are {', '.join(one[0] for one in found)}; {about}")
    return _mapped(turns, pattern), order


def check_places(turns: Iterable[Turn], given: Collection[str]) -> None:
    """Raise `BadRecord` for texts with the place of something that is not put there.

    That is a video or audio on a line of its own in a question, and what a field of the record, `given`, would fill in.
    """
    for turn in turns:
        if "<" not in turn.text and "[" not in turn.text:
            continue
        for tag, fields in FILLED_IN.items():
            if tag in turn.text and (name := next((field for field in fields if field in given), "")):
                raise BadRecord(
                    f"a {turn.role} turn has {tag}, which stands for an entry of {name} and is not filled in; write "
                    "what is meant there"
                )
        for found in OTHER_MEDIA.finditer(turn.text) if turn.role == "human" else ():
            tag, line = found[0], _line_of(turn.text, found)
            if line == tag and f"</{tag[1:]}" not in turn.text:
                raise BadRecord(f"a human turn has {tag} on a line of its own, which is not read; remove it")


def _line_of(text: str, found: re.Match[str]) -> str:
    start = text.rfind("\n", 0, found.start()) + 1
    end = text.find("\n", found.end())
    return text[start : end if end >= 0 else None].strip()


def unplaced(given: Iterable[Turn], placed: Iterable[Turn]) -> list[str]:
    """Return the markers left in human turns that have images, once `with_places` made `placed` of `given`.

    What stands next to `<image>` is text on purpose, but for `<image>` that something closes.
    """
    before, after = ([turn for turn in turns if turn.role == "human"] for turns in (given, placed))
    if any(count_markers(turn.text) for turn in before):
        return ["</image>" for _ in found_markers(after, CLOSED)]
    return likely_markers(after)


def likely_markers(turns: Iterable[Turn]) -> list[str]:
    """Return the LIKELY markers in human turns, without the texts and paths in them."""
    return [_kind(found[0]) for found in found_markers((turn for turn in turns if turn.role == "human"), LIKELY)]


def _kind(marker: str) -> str:
    """Return a LIKELY marker without the texts and paths in it, which differ from record to record."""
    tag = "<img src=...>" if "=" in marker else marker
    kinds = {"!": "![](...)", "<": tag, "[": "[img]...[/img]" if "[/" in marker else marker}
    return kinds.get(marker[0], marker)


def _order(found: Sequence[re.Match[str]], names: Sequence[str]) -> list[int] | None:
    """Return which image stands at each marker, None where the markers do not fit the images."""
    if len(found) != len(names):
        return None
    same = list(range(len(names)))
    numbers = [int(number) for one in found if (number := _group(one, "number"))]
    paths = [name for one in found if (name := basename(_group(one, "path").strip()))] if list(names) != [""] else []
    order = [number - min(numbers) for number in numbers] or [[*names, path].index(path) for path in paths] or same
    if sorted(order) != same or min(numbers, default=0) > 1 or (numbers and paths):
        return None
    return order


def _group(found: re.Match[str], kind: str) -> str:
    """Return the group of a marker that holds its "number" or "path", "" for none."""
    return next((text for name, text in found.groupdict().items() if text and name.startswith(kind)), "")


def _mapped(turns: Iterable[Turn], pattern: re.Pattern[str]) -> tuple[Turn, ...]:
    """Return `turns` with a place for each marker of `pattern` in human turns."""
    return tuple(
        Turn(turn.role, pattern.sub(lambda _: MARKER, turn.text)) if turn.role == "human" else turn for turn in turns
    )
