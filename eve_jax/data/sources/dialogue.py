"""The turns of a record, in any of the forms that data sets are written in.

    conversations: [{from, value} ...]                             LLaVA, ShareGPT
    messages: [{role, content} ...]                                OpenAI, transformers, ms-swift
    texts: [{user, assistant} ...]                                 FineVision, The Cauldron (`pairs`)
    query, response, perhaps history: [[query, response] ...]      ms-swift
    question, and answer or answers                                VQAv2 (`pairs`)
    caption, text or txt                                           a single answer

`content` may be a list of parts, `{"type": "text", "text": ...}` and `{"type": "image", ...}`; an image part becomes
an `<image>` marker in the text, and may hold the image itself or stand for one of the record's images.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from eve_jax.data.markers import MARKER, escape_markers, split_markers
from eve_jax.data.record import ROLES, BadRecord, Fields, Role, Turn, UnknownForm, is_empty, text_of
from eve_jax.data.sources.forms import CAPTIONS, PAIRS, QUERY, TALKS, TEXT_FIELDS, nearest
from eve_jax.data.sources.image_objects import check_edits, check_object, unread_keys
from eve_jax.data.sources.learned import check_turn
from eve_jax.data.sources.pairs import has_question, is_pairs, of_pairs, of_question
from eve_jax.errors import shorten

TEXT_PARTS = ("text", "input_text", "output_text")
IMAGE_PARTS = ("image", "image_url", "input_image")
IMAGE_KEYS = ("image", "image_url", "url", "path", "bytes")  # of a part: where its image is
TURN_KEYS = {"role", "from", "content", "value"}
NUMBERS = ("index", "idx", "image_index", "image_idx")  # of an image part: which of the record's images it is
PART_KEYS = {"type", "text", *IMAGE_KEYS}
OBSERVATION = "observation"  # ShareGPT's role of what answers an answer, read as a question
TOOLS = ("tool", "tools", "function", "function_call", "tool_call", "tool_response", "ipython")  # roles
CALLS = ("tool_calls", "function_call", "tool_call")  # keys of a message
ABOUT_TOOLS = "calls of tools and their results are not trained: remove such records, or write them as text"
IMAGE_PART_KEYS = PART_KEYS | {*NUMBERS}


class Part(NamedTuple):
    """The image of a part of a message: its `value`, or None where it is the record's next; `number`, from 0: which."""

    value: Any
    number: int | None = None


class Dialogue(NamedTuple):
    """The turns of a record, the image parts among them in order, and the fields that hold texts."""

    turns: tuple[Turn, ...]
    parts: tuple[Part, ...]
    fields: Fields


def dialogue_of(given: Mapping[str, Any]) -> Dialogue:
    """Return the turns of the record with the fields `given`, none of them empty.

    Raises `BadRecord` where there are none, or two different ones.
    """
    if "system" in given:
        text_of(given["system"], "system")
    talks = [field for field in TALKS if field in given]
    if is_pairs(given.get(PAIRS)):
        talks.append(PAIRS)
    captions = [field for field in CAPTIONS if field in given]
    if not talks and "query" in given:
        return _with_system(given, _of_query(given), captions)
    if talks:
        first, *others = (_of_talk(given[field], field) for field in talks)
        _check_same(talks, [first.turns, *(other.turns for other in others)])
        _check_query(given, talks[0], first.turns)
        return _with_system(given, first._replace(fields=first.fields._replace(used=tuple(talks))), captions)
    if has_question(given):
        turns, fields = of_question(given)
        return _with_system(given, Dialogue(turns, (), fields), captions)
    if not captions:
        names = ", ".join(map(repr, given))
        known = any(field in given for field in TEXT_FIELDS)
        remedy = _nested(given) or ("" if known or not names else f"; {nearest(given)}")
        raise UnknownForm(
            "no conversations, messages or caption" + (f", but the fields {names}" if names else "") + remedy
        )
    texts = [text_of(given[field], field) for field in captions]
    _check_same(captions, [text.strip() for text in texts])
    return Dialogue((Turn("gpt", texts[0]),), (), Fields(tuple(captions)))


def _nested(given: Mapping[str, Any]) -> str:
    """Return what to do about a record whose fields hold records: an array that was wrapped in an object."""
    for name, value in given.items():
        inner = value[0] if isinstance(value, list) else value
        if isinstance(inner, dict) and any(
            not is_empty(inner.get(field)) for field in (*TALKS, "query", "question", *CAPTIONS)
        ):
            what = "a list of records" if isinstance(value, list) else "a record"
            return f"; {name!r} holds {what}: write an array of the records alone, or one a line"
    return ""


def _check_same(fields: list[str], texts: list[Any]) -> None:
    other = next((field for field, text in zip(fields, texts, strict=True) if text != texts[0]), None)
    if other is not None:
        raise BadRecord(f"{fields[0]} and {other} hold different texts; keep one of them")


def _of_query(given: Mapping[str, Any]) -> Dialogue:
    used = [field for field in QUERY if field in given]
    history = given.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise BadRecord("history is not a list of [query, response]")
    turns = []
    for number, (query, response) in enumerate([*history, [given["query"], given.get("response")]], 1):
        turns.append(Turn("human", text_of(query, f"query {number}")))
        turns.append(Turn("gpt", text_of(response, f"response {number}")))
    return Dialogue(tuple(turns), (), Fields(tuple(used)))


def _check_query(given: Mapping[str, Any], field: str, turns: Sequence[Turn]) -> None:
    """Raise `BadRecord` where a query, a response or a history next to the dialogue in `field` has texts of its own."""
    said = {_bare(turn.text) for turn in turns}
    history = given.get("history") or []
    pairs = [text for pair in (history if isinstance(history, list) else [history]) for text in _texts(pair)]
    for name, texts in {**{name: [given.get(name)] for name in QUERY[:2]}, "history": pairs}.items():
        if any(not is_empty(text) and (not isinstance(text, str) or _bare(text) not in said) for text in texts):
            raise BadRecord(f"{field} and {name} hold different texts; keep one of them")


def _texts(pair: Any) -> list[Any]:
    return pair if isinstance(pair, list) else [pair]


def _bare(text: str) -> str:
    return " ".join(text.replace(MARKER, " ").split())


def _of_talk(talk: Any, field: str) -> Dialogue:
    if field == PAIRS:
        turns, fields = of_pairs(talk)
        return Dialogue(turns, (), fields)
    return _of_messages(talk, field)


def _of_messages(messages: Any, field: str) -> Dialogue:
    if not isinstance(messages, list):
        raise BadRecord(f"{field} is not a list")
    turns, parts = [], []
    unused: dict[str, None] = {}
    doubts: dict[str, None] = {}
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict):
            raise BadRecord(f"turn {number} is not an object")
        call = next((key for key in CALLS if not is_empty(message.get(key))), "")
        if call:
            raise BadRecord(f"turn {number} has {call}; {ABOUT_TOOLS}")
        key = next((key for key in ("role", "from") if message.get(key) == OBSERVATION), "")
        if key:
            message, doubts[f"a turn from {OBSERVATION} is read as a question"] = {**message, key: "human"}, None
        turn, own = parse_message(message, f"turn {number}")
        turns.append(turn)
        parts += own
        if len(message) > 2:
            check_turn(message, turn.role, f"turn {number}")
            check_edits(message, f"turn {number}")
            unused.update((f"{field}[].{key}", None) for key in message if _is_more(message, key, TURN_KEYS))
        for place, item in _objects(message):
            check_turn(item, turn.role, f"a part of turn {number}")
            keys = [key for key in item if _is_more(item, key, PART_KEYS if item.get("text") else IMAGE_PART_KEYS)]
            unused.update((f"{field}[].{place}[].{key}", None) for key in [*keys, *_of_image(item)])
    return Dialogue(tuple(turns), tuple(parts), Fields((field,), tuple(unused), tuple(doubts)))


def _is_more(holder: Mapping[str, Any], key: str, known: Collection[str]) -> bool:
    return key not in known and not is_empty(holder[key])


def _objects(message: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the parts of a message that are objects, each with the key that they are under."""
    for place in ("content", "value"):
        if isinstance(message.get(place), list):
            yield from ((place, item) for item in message[place] if isinstance(item, dict))


def _of_image(part: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys that are not read of the objects that hold the image of a part."""
    for key in IMAGE_KEYS:
        yield from (f"{key}[].{name}" for name in unread_keys(part.get(key)))


def _with_system(given: Mapping[str, Any], found: Dialogue, captions: list[str]) -> Dialogue:
    used, unused, doubts = found.fields
    turns = found.turns
    if "system" in given and not any(turn.role == "system" for turn in turns):
        turns, used = (Turn("system", given["system"]), *turns), (*used, "system")
    return Dialogue(turns, found.parts, Fields(used, (*unused, *captions), doubts))


def parse_message(message: Mapping[str, Any], name: str) -> tuple[Turn, list[Part]]:
    """Return the turn of one message, {role, content} or {from, value}, and the images of its parts.

    `name` is what it is called in a `BadRecord`, which is raised for an unknown role and for content that is not text.
    """
    said = _either(message, "role", "from", name)
    role = role_of(said)
    if role is None:
        if said is None:
            keys = ", ".join(map(repr, message)) or "none"
            raise BadRecord(f"{name} has neither from nor role to say who speaks; its keys are {shorten(keys, 100)}")
        why = ABOUT_TOOLS if str(said).lower() in TOOLS else "not one of human, gpt, system"
        raise BadRecord(f"{name} is from {said!r}, {why}")
    content = _either(message, "content", "value", name)
    if not isinstance(content, list):
        return Turn(role, text_of(content, f"the value of {name}")), []
    return _of_parts(role, content, name)


def _either(message: Mapping[str, Any], key: str, other: str, name: str) -> Any:
    """Return what a message has under one of two keys that mean the same, or under both."""
    given = [message[one] for one in (key, other) if message.get(one) is not None]
    filled = [value for value in given if not is_empty(value)]
    if len(filled) == 2 and filled[0] != filled[1]:
        raise BadRecord(f"{key} and {other} of {name} differ; keep one of them")
    return next(iter(filled or given), None)


def role_of(said: object) -> Role | None:
    """Return the role that a message's `role` or `from` means, None for one that is unknown; case does not matter."""
    return ROLES.get(said.lower()) if isinstance(said, str) else None


def _of_parts(role: Role, content: list[Any], name: str) -> tuple[Turn, list[Part]]:
    text = ""
    parts: list[Part] = []
    after_image = False
    items = [_part(item, f"part {number} of {name}") for number, item in enumerate(content, 1)]
    if role == "human" and any(isinstance(own, Part) for own in items):  # then images are parts, and `<image>` is text
        items = [_without_places(own) if isinstance(own, str) else own for own in items]
    for own in items:
        if isinstance(own, Part):
            parts.append(own)
            text += ("" if not text or text.endswith("\n") else "\n") + MARKER
        elif own:
            text += ("\n" if after_image and not own.startswith("\n") else "") + own
        after_image = isinstance(own, Part) or (after_image and not own)
    if parts and role == "gpt":
        raise BadRecord(f"{name} is an answer with an image; answers are text")
    return Turn(role, text), parts


def _without_places(text: str) -> str:
    r"""Return the text of a part whose images are other parts: `<image>` and `\<image>` are both the text `<image>`."""
    return escape_markers(MARKER.join(split_markers(text)))


def _part(item: Any, name: str) -> str | Part:
    """Return the text of a part, or its image."""
    if isinstance(item, str):
        return text_of(item, name)
    if not isinstance(item, dict):
        raise BadRecord(f"{name} is neither a text nor an object")
    kind = item.get("type")
    image = next((item[key] for key in IMAGE_KEYS if not is_empty(item.get(key))), None)
    if kind in TEXT_PARTS or (kind is None and image is None and "text" in item):
        if image is not None:
            raise BadRecord(f"{name} is a text with an image; make the image a part of its own")
        if is_empty(item.get("text")) and (
            other := [key for key in ("content", "value") if not is_empty(item.get(key))]
        ):
            raise BadRecord(f"{name} has its text under {other[0]}; name it text")
        return "" if item.get("text") is None else text_of(item["text"], name)
    if kind not in IMAGE_PARTS and not (kind is None and image is not None):
        raise BadRecord(f"{name} is of type {kind!r}, not text or image")
    others = [key for key in item if key not in ("type", "text", *NUMBERS)]
    rest = [key for key in others if isinstance(item[key], str | bytes | dict | list)]
    if image is None and any(not is_empty(item[key]) for key in rest):
        raise BadRecord(f"{name} is an image without any of {', '.join(IMAGE_KEYS)}, but with {', '.join(rest)}")
    if not is_empty(item.get("text")):
        raise BadRecord(f"{name} is an image with a text; make the text a part of its own")
    check_object(item, name)
    return Part({"bytes": image} if isinstance(image, bytes) else image, _number(item, name))


def _number(item: Mapping[str, Any], name: str) -> int | None:
    given = {key: item[key] for key in NUMBERS if not is_empty(item.get(key))}
    for key, value in given.items():
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and value % 1 == 0
        if not whole or value != next(iter(given.values())):
            raise BadRecord(f"{key} of {name} is {shorten(repr(value))}, not the number of its image, from 0")
    return int(next(iter(given.values()))) if given else None
