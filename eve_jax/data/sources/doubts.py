"""What a record has that may stand for an image and does not: markers in texts, URLs and files in other fields."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eve_jax.data.record import Turn
from eve_jax.data.sources.media import DOUBTFUL, basename, is_url, suffix_of
from eve_jax.data.sources.other_markers import OTHER_MEDIA, found_markers, likely_markers
from eve_jax.errors import shorten


def doubts_of(
    given: Mapping[str, Any], unused: Iterable[str], turns: Sequence[Turn], left: Sequence[str] | None
) -> tuple[str, ...]:
    """Return what may stand for an image and does not.

    left: markers that place none of the record's images, None for a record without images.
    """
    seen = left is not None
    found = found_markers(turn for turn in turns if turn.role == "gpt" or (turn.role == "human" and not seen))
    names = [shorten(one[0], 60) for one in found]
    media = found_markers((turn for turn in turns if turn.role == "human"), OTHER_MEDIA)
    heard = [f"{shorten(one[0], 60)} in a question is text" for one in media]
    if not seen and not names:
        names = [shorten(name, 60) for name in likely_markers(turns)]
    if left is not None:
        texts = [f"{name} in an answer is text" for name in names]
        return tuple(dict.fromkeys([*heard, *texts, *(f"{shorten(one, 60)} in a question is text" for one in left)]))
    values = [(name, given.get(name)) for name in unused]
    urls = [f"a URL in {name}" for name, value in values if isinstance(value, str) and _may_be_image_url(value)]
    files = [
        f"a {suffix_of(value)} file in {name}"
        for name, value in values
        if isinstance(value, str) and _may_be_file(value)
    ]
    return tuple(dict.fromkeys([*heard, *(f"no image, but {what}" for what in (*names, *urls, *files))]))


def _may_be_file(text: str) -> bool:
    """Whether a text is the path of a file that an image may have been made from."""
    return " " not in text.strip() and not is_url(text) and suffix_of(text) in DOUBTFUL


def _may_be_image_url(text: str) -> bool:
    """Whether a text is a URL of something below a host, which does not say by a suffix what it is."""
    return (
        is_url(text)
        and basename(text.partition("://")[2]) not in ("", text.partition("://")[2])
        and not suffix_of(text)
    )
