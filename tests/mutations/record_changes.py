"""Valid records with something changed in them: fields, turns, bytes, or only the way in which they are written."""

import json
from typing import Any, NamedTuple

from hypothesis import strategies as st

from eve_jax.data.record import ROLES
from tests.mutations.strategies import SAMPLES


class Change(NamedTuple):
    """What is done to the record `number`: its new bytes, and whether it still means the same."""

    number: int
    data: bytes
    same: bool = False


def deep(levels: int, key: str = "") -> str:
    """Return the JSON text of nested arrays, or of nested objects with one `key` each."""
    return (f'{{"{key}": ' if key else "[") * levels + "1" + ("}" if key else "]") * levels


# Values as they are written, none of which is the path of an image that exists.
JUNK = [
    *(
        "null",
        '""',
        "[]",
        "{}",
        "[null]",
        "[[]]",
        '{"x": null}',
        "true",
        "0",
        "-1.5",
        "1e999",
        "NaN",
        "[1]",
        '{"x": 1}',
    ),
    *(
        '"\\ud800"',
        '"\\udc41\\u0000"',
        '"a\\u0000b"',
        '"\\ufeffHello"',
        '"a\\r\\nb\\u2028c"',
        '"x.png"',
        '"http://e.org/1.png"',
    ),
    *('["1.png", null]', '["1.png", ""]', '{"path": null, "bytes": null}', '"data:image/png;base64,AA"', '"data:,"'),
    *(
        "9" * 5000,
        "9" * 400,
        json.dumps("long " * 5000),
        json.dumps("a/" * 3000),
        '"%00"',
        '"file:///%00"',
        '"\\\\\\\\h\\\\1.png"',
    ),
    *(deep(20), deep(400), deep(600), deep(900), deep(3000), deep(600, "path"), deep(400, "image"), deep(600, "bytes")),
    *(
        '"gpt"',
        '"human"',
        '"system"',
        '"USER"',
        '"<image>"',
        '"\\\\<image>"',
        '"<|im_end|>"',
        '"1.png"',
        '["2.png", "1.png"]',
    ),
]
KEYS = [
    "id",
    "image",
    "conversations",
    "from",
    "value",
    "role",
    "content",
    "type",
    "text",
    "images",
    "caption",
    "system",
]
KEYS += ["meta", "video", "img", "url", "file_name", "Image", "query", "", "a\nb", "\ud800", "path", "bytes", "score"]
ALIASES = {
    "image": ["images", "img", "image_path", "img_path", "file_name", "image_file", "image_url", "url"],
    "conversations": ["messages"],
    "from": ["role"],
    "value": ["content"],
}
BYTES = [
    b"\0",
    b"\xff",
    b"\n",
    b"\r",
    b"\r\n",
    b"\xef\xbb\xbf",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\xed\xa0\x80",
    b"\xc3",
]


class Raw(str):
    """A JSON value as it is to be written."""


def written(value: Any) -> str:
    """Return the JSON text of `value`; an object is a list of pairs, so that a name can be there twice."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, tuple):
        return "{" + ", ".join(f"{json.dumps(name)}: {written(inner)}" for name, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


def paired(value: Any) -> Any:
    """Return `value` with objects as tuples of pairs, as `written` takes it."""
    if isinstance(value, dict):
        return tuple((name, paired(inner)) for name, inner in value.items())
    return [paired(inner) for inner in value] if isinstance(value, list) else value


def objects(value: Any, path: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """Return the paths of all objects in `value`, which `paired` gave."""
    if isinstance(value, tuple):
        return [path] + [one for n, (_, inner) in enumerate(value) for one in objects(inner, (*path, n))]
    if isinstance(value, list):
        return [one for n, inner in enumerate(value) for one in objects(inner, (*path, n))]
    return []


def at(value: Any, path: tuple[int, ...]) -> Any:
    """Return what stands at `path`."""
    for step in path:
        value = value[step][1] if isinstance(value, tuple) else value[step]
    return value


def replaced(value: Any, path: tuple[int, ...], new: Any) -> Any:
    """Return `value` with `new` at `path`."""
    if not path:
        return new
    step, rest = path[0], path[1:]
    if isinstance(value, tuple):
        return tuple((k, replaced(v, rest, new)) if n == step else (k, v) for n, (k, v) in enumerate(value))
    return [replaced(v, rest, new) if n == step else v for n, v in enumerate(value)]


@st.composite
def changed_fields(draw: st.DrawFn) -> Change:
    """A record in which an object lost, gained, renamed or changed a field, or has it twice."""
    number = draw(st.integers(0, len(SAMPLES) - 1))
    record = paired(SAMPLES[number].fields())
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(objects(record) or [()]))
        pairs = at(record, path)
        if not isinstance(pairs, tuple) or not pairs:
            break
        which = draw(st.integers(0, len(pairs) - 1))
        name, value = pairs[which]
        junk = Raw(draw(st.sampled_from(JUNK)))
        key = draw(st.sampled_from(KEYS))
        how = draw(st.sampled_from(["retype", "rename", "nest", "list", "drop", "twice", "add"]))
        before, after = pairs[:which], pairs[which + 1 :]
        new = {
            "retype": ((name, junk),),
            "rename": ((key, value),),
            "nest": ((name, ((key, value),)),),
            "list": ((name, [value, value]),),
            "drop": (),
            "twice": ((name, value), (name, junk)),
            "add": ((name, value), (key, junk)),
        }[how]
        record = replaced(record, path, (*before, *new, *after))
    return Change(number, written(record).encode("utf-8", "surrogatepass"))


@st.composite
def changed_turns(draw: st.DrawFn) -> Change:
    """A record whose turns are in another order, of another role, or have markers added or taken away."""
    number = draw(st.integers(0, len(SAMPLES) - 1))
    fields = SAMPLES[number].fields()
    turns = draw(st.permutations(fields["conversations"]))[: draw(st.integers(0, 5))]
    turns += turns[: draw(st.integers(0, 2))]
    for turn in turns:
        if draw(st.booleans()):
            turn["from"] = draw(st.sampled_from([*ROLES, "Human", "GPT", "tool", " user", "\u00adgpt", "function"]))
        if draw(st.booleans()):
            marked = draw(
                st.sampled_from(["<image>", "\\<image>", "\\\\<image>", "<Image>", "<image >", "", "<|im_end|>"])
            )
            turn["value"] = turn["value"].replace("<image>", marked) + draw(st.sampled_from(["", marked]))
    return Change(number, json.dumps({**fields, "conversations": turns}).encode())


@st.composite
def same_records(draw: st.DrawFn) -> Change:
    """A record that is written in another way and means the same."""
    number = draw(st.integers(0, len(SAMPLES) - 1))
    fields = SAMPLES[number].fields()
    for name, others in ALIASES.items():
        new = draw(st.sampled_from([name, *others]))
        if name in fields:
            fields[new] = fields.pop(name)
        for turns in (fields.get("conversations"), fields.get("messages")):
            for turn in turns or ():
                if name in turn:
                    turn[new] = turn.pop(name)
    fields |= draw(
        st.dictionaries(st.sampled_from(["score", "meta", "width"]), st.integers() | st.booleans() | st.none())
    )
    fields = dict(draw(st.permutations(list(fields.items()))))
    text = json.dumps(fields, ensure_ascii=draw(st.booleans())).encode()
    return Change(
        number,
        draw(st.sampled_from([b"", b"\xef\xbb\xbf", b" \t"])) + text + draw(st.sampled_from([b"", b" ", b"\r"])),
        True,
    )


@st.composite
def changed_bytes(draw: st.DrawFn) -> Change:
    """A record with bytes cut off, put in, or flipped."""
    number = draw(st.integers(0, len(SAMPLES) - 1))
    data = json.dumps(SAMPLES[number].fields(), ensure_ascii=draw(st.booleans())).encode()
    place = draw(st.integers(0, len(data) - 1))
    how = draw(st.sampled_from(["cut", "insert", "flip"]))
    if how == "cut":
        return Change(number, data[:place] + data[place + draw(st.integers(1, len(data))) :])
    if how == "insert":
        return Change(number, data[:place] + draw(st.sampled_from(BYTES)) + data[place:])
    return Change(number, data[:place] + bytes([data[place] ^ 1 << draw(st.integers(0, 7))]) + data[place + 1 :])


def example_of(old: str, new: str) -> Change:
    """Return the record 1 with `new` in place of `old`."""
    text = json.dumps(SAMPLES[1].fields())
    assert text.count(old) == 1
    return Change(1, text.replace(old, new).encode())
