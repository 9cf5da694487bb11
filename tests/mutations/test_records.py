"""Mutated records in JSONL files and JSON arrays: what is untouched stays, and what changed is read right or named."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eve_jax.data.records import ROLES, Turn
from eve_jax.data.sources.base import is_empty
from tests.mutations.strategies import (
    QUICK,
    SAMPLES,
    TOKENIZER,
    Meaning,
    many,
    meaning,
    outcome,
    strict_json,
    write_images,
)


class Change(NamedTuple):
    """What is done to the record `number`: its new bytes, and whether it still means the same."""

    number: int
    data: bytes
    same: bool = False


def deep(levels: int, key: str = "") -> str:
    """Return the JSON text of nested arrays, or of nested objects with one `key` each."""
    return ('{"%s": ' % key if key else "[") * levels + "1" + ("}" if key else "]") * levels


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("records")
    write_images(target)
    return target


def one_of(given: dict[str, Any], names: Sequence[str]) -> Any:
    """Return what the fields `names` hold together, None for nothing. Raises ValueError where they differ."""
    values = [given[name] for name in names if not is_empty(given.get(name))]
    if any(value != values[0] for value in values):
        raise ValueError(names)
    return values[0] if values else None


def turn_of(given: dict[str, Any]) -> Turn:
    """Return a turn, its content a text or a list of texts."""
    content = one_of(given, ("value", "content"))
    if content is None:
        content = next(given[name] for name in ("content", "value") if given.get(name) in ("", []))
    if isinstance(content, list):
        content = "".join([part["text"] if isinstance(part, dict) else part for part in content])
    content.encode()
    return Turn(ROLES[one_of(given, ("from", "role")).lower()], content)


def image_of(value: Any, images: Path) -> bytes:
    """Return the image of a path, or of an object with one."""
    while isinstance(value, dict):
        value = next(value[name] for name in ("image", "image_url", "path", "url") if not is_empty(value.get(name)))
    return (images / value).read_bytes()


def read_strictly(data: bytes, images: Path) -> Meaning | None:
    """Return what a record means by the letter of docs/data.md, of the forms that the mutations make; None for others.

    An image, or what looks like one, in a field that is not read makes it None, too.
    """
    try:
        given = strict_json(data)
        turns = [turn_of(turn) for turn in one_of(given, ("conversations", "messages"))]
        system = given.get("system")
        if isinstance(system, str) and system and all(turn.role != "system" for turn in turns):
            turns = [Turn("system", system), *turns]
        names = ["image", "images", "img", "file_name"]
        names += ["url"] if str(given.get("url")).endswith((".png", "AA")) else []
        value = one_of(given, names)
        several = value if isinstance(value, list) else [] if value is None else [value]
        others = [str(given[name]) for name in given if name not in (*names, "id", "system")]
        if any(text.endswith(".png") and not (several and "://" in text) for text in others):
            return None
        return meaning(turns, [image_of(one, images) for one in several])
    except (ValueError, KeyError, TypeError, AttributeError, OSError, StopIteration, RecursionError):
        return None


def check(folder: Path, changes: Sequence[Change], array: bool) -> None:
    """Write SAMPLES with `changes` to a file, and compare what comes of it with what each record means."""
    images = folder / "images"
    plain = [json.dumps(sample.fields()).encode() for sample in SAMPLES]
    expected = {
        data: meaning(s.turns, [(images / name).read_bytes() for name in s.images]) for data, s in zip(plain, SAMPLES)
    }
    lines = list(plain)
    for change in changes:
        lines[change.number] = change.data
        if change.data not in plain:
            same = expected[plain[change.number]]
            expected[change.data] = same if change.same else read_strictly(change.data, images)
    path = folder / ("records.json" if array else "records.jsonl")
    path.write_bytes(b"[" + b",\n".join(lines) + b"]" if array else b"\n".join(lines) + b"\n")
    found = outcome(path, images)
    if found.refused:
        return
    broken = array and any(not is_json(data) for data in lines)  # where its items begin and end is then unknown
    if not array:
        lines = [line for data in lines for line in data.split(b"\n") if line.strip(b" \t\r")]
        for line in lines:
            if line not in expected:
                expected[line] = read_strictly(line, images)
    if broken:
        assert found.dropped
        assert set(found.usable.values()) <= set(expected.values())
        return
    for number, line in enumerate(lines):
        if line in plain or any(change.same and change.data == line for change in changes):
            assert found.usable[number] == expected[line]
        elif number in found.usable:
            assert found.usable[number] == expected[line]
    assert set(found.usable) <= set(range(len(lines)))


def is_json(data: bytes) -> bool:
    """Whether `data` is a JSON value by any reading, so that the brackets and quotes in it are paired."""
    try:
        json.loads(data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace"))
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


ONE_CHANGE = changed_fields() | changed_turns() | same_records() | changed_bytes()
CHANGES = st.lists(ONE_CHANGE, min_size=1, max_size=3)


def example_of(old: str, new: str) -> Change:
    """Return the record 1 with `new` in place of `old`."""
    text = json.dumps(SAMPLES[1].fields())
    assert text.count(old) == 1
    return Change(1, text.replace(old, new).encode())


@QUICK
@example(example_of('"image": "1.png"', '"image": "4.png", "image": "1.png"'), False)  # the last one was taken
@example(example_of('"value": "What', '"value": "Why?", "value": "What'), True)  # the same
@example(example_of('"from": "human"', '"from": "human", "role": "gpt"'), False)  # `role` was taken
@example(example_of('"value": "What', '"content": "Why?", "value": "What'), False)  # `content` was taken
@example(example_of('"1.png"', deep(600, "path")), False)  # RecursionError
@example(example_of('"id": "s1"', f'"meta": {deep(600)}'), True)  # the same
@given(changed_fields(), st.booleans())
def test_changed_fields(folder: Path, change: Change, array: bool) -> None:
    check(folder, [change], array)


@QUICK
@given(changed_turns())
def test_changed_turns(folder: Path, change: Change) -> None:
    check(folder, [change], array=False)


@QUICK
@given(same_records(), st.booleans())
def test_the_same_records(folder: Path, change: Change, array: bool) -> None:
    check(folder, [change], array)


@QUICK
@given(changed_bytes(), st.booleans())
def test_changed_bytes(folder: Path, change: Change, array: bool) -> None:
    check(folder, [change], array)


@pytest.mark.parametrize("path", ["id", "image", "score", "conversations", "from", "value"])
def test_every_junk_value(folder: Path, path: str) -> None:
    fields = paired(SAMPLES[2].fields())
    within = path in ("from", "value")
    holder = fields[2][1][0] if within else fields
    for value in JUNK:
        changed = (*((name, old) for name, old in holder if name != path), (path, Raw(value)))
        record = replaced(fields, (2, 0), changed) if within else changed
        check(folder, [Change(2, written(record).encode())], array=False)


@pytest.mark.slow
@many
@given(CHANGES, st.booleans())
def test_many_changed_records(folder: Path, changes: list[Change], array: bool) -> None:
    check(folder, changes, array)
