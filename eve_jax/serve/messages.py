"""Messages of a chat as turns of a conversation and references to images."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from eve_jax.data.markers import MARKER, escape_markers
from eve_jax.data.record import Role, Turn
from eve_jax.serve.problem import Problem

ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "human", "assistant": "gpt"}
DETAILS = (None, "auto", "low", "high", "original")
UNREAD = {  # keys of messages that change their meaning
    "tool_calls": "tools are not supported",
    "function_call": "functions are not supported",
    "audio": "audio is not supported",
}
TEXT_PARTS = ("text", "input_text", "output_text")
MEDIA = {"input_audio": "audio", "audio_url": "audio", "video_url": "video", "file": "files"}


class ImageRef(NamedTuple):
    """A URL of an image, and the field that it stands in."""

    url: str
    param: str


class Conversation(NamedTuple):
    """Turns whose human texts hold a place for each of `images`, in order; `begun`: the last turn is an answer to
    continue."""

    turns: list[Turn]
    images: list[ImageRef]
    begun: bool = False


def read_messages(messages: Any, continues: bool = False) -> Conversation:
    """Return the conversation of a chat's messages; `continues`: it ends with the beginning of the answer.

    `<image>` in a text is text: images are parts. Raises Problem naming the message that cannot be used.
    """
    if not isinstance(messages, list) or not messages:
        raise Problem("messages: expected a list with at least one message", "messages")
    turns, images = [], []
    for number, message in enumerate(messages):
        turn, own = _turn(message, f"messages[{number}]")
        turns.append(turn)
        images += own
    _check_order(turns, "gpt" if continues else "human")
    last = turns[-1]
    if not last.text.strip():
        raise Problem("the last message is empty", "messages")
    return Conversation(turns, images, continues)


def _check_order(turns: list[Turn], last: Role) -> None:
    start = int(turns[0].role == "system")
    for number, turn in enumerate(turns[start:], start):
        expected = ("human", "gpt")[(number - start) % 2]
        if turn.role != expected:
            raise Problem(
                f"messages[{number}]: after at most one system message, turns of user and assistant alternate, the "
                "user's first",
                "messages",
            )
    if turns[-1].role != last:
        need = "the assistant's, which the answer continues" if last == "gpt" else "the user's, which the answer is to"
        raise Problem(f"messages[{len(turns) - 1}]: the last message must be {need}", "messages")


def _turn(message: Any, name: str) -> tuple[Turn, list[ImageRef]]:
    if not isinstance(message, Mapping):
        raise Problem(f"{name}: expected an object with role and content", "messages")
    said = message.get("role")
    role = ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise Problem(f"{name}: role must be one of {', '.join(ROLES)}", "messages")
    for key, why in UNREAD.items():
        if message.get(key):
            raise Problem(f"{name}.{key}: {why}", "messages")
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise Problem(f"{name}.content: expected a text or a list of parts", "messages")
    return _joined(role, content, f"{name}.content")


def _joined(role: Role, parts: list[Any], name: str) -> tuple[Turn, list[ImageRef]]:
    """One turn of a message's parts, images on lines of their own."""
    text, images, after_image = "", list[ImageRef](), False
    for number, part in enumerate(parts):
        own = _part(part, f"{name}[{number}]")
        if isinstance(own, ImageRef):
            if role != "human":
                raise Problem(f"{own.param}: only the user's messages have images", "messages")
            images.append(own)
            text += ("" if not text or text.endswith("\n") else "\n") + MARKER
            after_image = True
        elif own:
            text += "\n" if after_image and not own.startswith("\n") else ""
            text += escape_markers(own) if role == "human" else own
            after_image = False
    return Turn(role, text), images


def _part(part: Any, name: str) -> str | ImageRef:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise Problem(f"{name}: expected an object with a type", "messages")
    kind = part.get("type")
    if kind in TEXT_PARTS:
        text = part.get("text")
        if not isinstance(text, str):
            raise Problem(f"{name}.text: expected a text", "messages")
        return text
    if kind == "image_url":
        found = part.get("image_url")
        if not isinstance(found, Mapping):
            raise Problem(f'{name}.image_url: expected an object {{"url": ...}}', "messages")
        return _image(found.get("url"), found.get("detail"), f"{name}.image_url")
    if kind == "input_image":
        return _image(part.get("image_url"), part.get("detail"), f"{name}.image_url")
    if isinstance(kind, str) and kind in MEDIA:
        raise Problem(f"{name}: at most 0 {MEDIA[kind]} may be given: text and images are read", "messages")
    raise Problem(f"{name}.type: expected text or image_url", "messages")


def _image(url: Any, detail: Any, name: str) -> ImageRef:
    if not isinstance(url, str) or not url:
        raise Problem(f"{name}.url: expected a data URI", "messages")
    if detail not in DETAILS:
        raise Problem(f"{name}.detail: expected auto, low, high or original", "messages")
    return ImageRef(url, name)
