"""What stands between people and the engine's ids: messages and images in, text out."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from eve_jax.data.image.patches import open_image, shown
from eve_jax.data.image.rule import PILLOW_PIXELS
from eve_jax.data.image_file import BadImage
from eve_jax.data.markers import MARKER
from eve_jax.data.record import ROLES, BadRecord, Turn
from eve_jax.data.sources.dialogue import TURN_KEYS
from eve_jax.data.sources.image_refs import to_image
from eve_jax.data.sources.media import basename, is_image_name
from eve_jax.data.sources.other_markers import unplaced, with_places
from eve_jax.errors import UserError, warn
from eve_jax.infer.image_cache import Patches
from eve_jax.infer.stopping import before_stop
from eve_jax.process.checks import encodable
from eve_jax.process.paths import expand

Messages = str | Sequence[Mapping[str, Any]]
ImageLike = str | Path | Image.Image | Patches
Images = ImageLike | Sequence[ImageLike | None] | None
URI = re.compile(r"(data|file):|[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # holds no `~` or variables
HALF_CHARACTER = "\ufffd"  # how bytes are decoded that are not a whole character yet


@dataclass(frozen=True)
class Answer:
    """An answer: its text, and the tokens it was made of, without the one that ended it."""

    text: str
    new_ids: list[int]


def to_turns(messages: Messages) -> list[Turn]:
    """The turns of a question, or of messages {"role": user|assistant|system, "content": text} that end with the
    user's; LLaVA's {"from": human|gpt|system, "value": text} will do.

    Raises UserError naming the message that is none, and any other key of it that holds something.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    listed = isinstance(messages, Sequence) and not isinstance(messages, bytes | bytearray)
    if not listed or not all(isinstance(m, Mapping) for m in messages):
        raise UserError('messages: expected a question, or a list of {"role": ..., "content": ...}')
    turns = [_to_turn(message, number) for number, message in enumerate(messages)]
    if not turns or turns[-1].role != "human":
        raise UserError("messages: the last one must be the user's, which the answer is to")
    for number, (before, turn) in enumerate(pairwise(turns), 1):
        if turn.role in ("system", before.role):
            two = "of one role in a row" if turn.role == before.role else "in the wrong order: the system's comes first"
            raise UserError(f"messages[{number - 1}] and messages[{number}] are {two}; make one message of them")
    return turns


def _to_turn(message: Mapping[str, Any], number: int) -> Turn:
    for key, value in message.items():
        empty = value is None or (isinstance(value, str | list | tuple | dict) and not value)
        if key not in TURN_KEYS and not empty:
            remedy = "images go into `images`" if is_image_name(str(key)) else "remove it"
            raise UserError(f"messages[{number}]: the key {key!r} is not read, only role and content are; {remedy}")
    for key, other in (("role", "from"), ("content", "value")):
        if key in message and other in message and message[key] != message[other]:
            raise UserError(f"messages[{number}]: {key} and {other} differ; keep one of them")
    said = message.get("role", message.get("from"))
    role = ROLES.get(str(said))
    if role is None:
        raise UserError(f"messages[{number}]: role {said!r} is none of user, assistant, system")
    text = message.get("content", message.get("value"))
    if not isinstance(text, str):
        raise UserError(f"messages[{number}]: content is no text but {type(text).__name__}; images go into `images`")
    return Turn(role, encodable(f"messages[{number}]", text))


def to_images(images: Images) -> list[Any]:
    """Return RGB images, upright, of one or several references (`read_image`) and PIL images; none of None.

    `Patches`, which are cut already, stay what they are.

    Raises UserError naming the one that cannot be read.
    """
    return [_to_image(image, name) for name, image in _listed(images)]


def match_images(turns: Sequence[Turn], images: Images) -> tuple[tuple[Turn, ...], list[Any]]:
    """Return `turns` with `<image>` for the markers of others that place the images, and the images in that order.

    It is as in records (`eve_jax.data.sources.other_markers`). Warns of what may be meant as one and is text.
    """
    shown_images, names = to_images(images), [_file_name(image) for _, image in _listed(images)]
    found, order = with_places(turns, names)
    for marker in dict.fromkeys(unplaced(turns, found) if shown_images else ()):
        warn(f"{marker} in the question is text; write {MARKER} where an image belongs")
    return found, [shown_images[number] for number in order]


def _listed(images: Images) -> list[tuple[str, ImageLike]]:
    """Return the images that are not None, each with what it is called in messages."""
    if images is None:
        return []
    if isinstance(images, ImageLike):
        return [("images", images)]
    if not isinstance(images, Sequence) or isinstance(images, bytes | bytearray):
        raise _not_an_image(images, "images", " or a list of those")
    return [(f"images[{number}]", image) for number, image in enumerate(images) if image is not None]


def _file_name(image: ImageLike) -> str:
    """Return the last part of a path; Pillow keeps that of an image it opened as `filename`."""
    text = getattr(image, "filename", "") if isinstance(image, Image.Image) else image
    text = os.fspath(text) if isinstance(text, str | Path) else ""
    return "" if text[:5].lower() == "data:" else basename(text)


def read_image(reference: str | Path, name: str = "image") -> Image.Image:
    """Return the RGB image, upright, that a path, a `file:` or a `data:` URI stands for, as it does in a record.

    `~` and variables in a path are replaced. Raises UserError (`BadImage` for a file that is no image), with `name` for
    a URL, a broken URI, an empty path, and a variable that is not set. The image has the `filename` that Pillow gives.
    """
    text = os.fspath(reference)
    if not text.strip():
        raise UserError(f"{name}: the path is empty; name an image file, or leave it out")
    try:
        path = text if URI.match(text) else expand(text, name)
        image = open_image(to_image(path, "the data URI", [""]), PILLOW_PIXELS)
        vars(image)["filename"] = text  # which places it at a marker with its name
        return image
    except BadRecord as error:
        raise UserError(f"{name}: {error}") from error


def _to_image(image: ImageLike, name: str) -> Image.Image | Patches:
    if isinstance(image, Patches):
        return image
    if isinstance(image, Image.Image):
        return shown(image, name)
    if isinstance(image, str | Path):
        try:
            return read_image(image, name)
        except BadImage as error:
            raise UserError(f"{name}: {error}") from error
    raise _not_an_image(image, name)


def _not_an_image(image: Any, name: str, further: str = "") -> UserError:
    return UserError(f"{name}: expected a path or a PIL image{further}, not {type(image).__name__}")


def text_of(ids: list[int], decode: Callable[[list[int]], str], stops: Sequence[str] = ()) -> str:
    """The text of an answer: `decode` of its tokens up to the first of `stops`, without white space at its ends."""
    return before_stop(decode(ids), stops, last=True)[0].strip()


def answer_of(tokens: Iterable[int], decode: Callable[[list[int]], str], stops: Sequence[str]) -> Answer:
    """The answer of `tokens` up to the one that completes the first of `stops`; its text ends before that."""
    ids: list[int] = []

    def kept() -> Iterator[int]:
        for token in tokens:
            ids.append(token)
            yield token

    return Answer("".join(text_pieces(kept(), decode, stops)), ids)


def text_pieces(tokens: Iterable[int], decode: Callable[[list[int]], str], stops: Sequence[str] = ()) -> Iterator[str]:
    """The text of `tokens` as they come, in pieces that add up to `text_of` of all of them.

    What may still change is held back: half of a character, spaces, which the end of a text loses, and the beginning of
    a stop string. No more tokens are taken once there is one.
    """
    ids: list[int] = []
    shown, found = 0, None
    for token in tokens:
        ids.append(token)
        text, found = before_stop(decode(ids).rstrip(HALF_CHARACTER), stops)
        text = text.strip()
        if len(text) > shown:
            yield text[shown:]
            shown = len(text)
        if found is not None:
            return
    if rest := text_of(ids, decode, stops)[shown:]:
        yield rest
