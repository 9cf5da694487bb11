"""Mutated records in JSONL files and JSON arrays: what is untouched stays, and what changed is read right or named."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eve_jax.data.record import ROLES, Turn, is_empty
from tests.mutations.record_changes import (
    JUNK,
    Change,
    Raw,
    changed_bytes,
    changed_fields,
    changed_turns,
    deep,
    example_of,
    paired,
    replaced,
    same_records,
    written,
)
from tests.mutations.strategies import (
    QUICK,
    SAMPLES,
    Meaning,
    many,
    meaning,
    outcome,
    strict_json,
    write_images,
)


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


def with_other_markers(turns: list[Turn], n_images: int) -> list[Turn]:
    """Return turns with `<image>` for the other markers that `changed_turns` writes, if nothing else places images."""
    human = "\n".join(turn.text for turn in turns if turn.role == "human")
    other = r"(?<!\\)<(?:Image|image )>"
    if not n_images or re.search(r"(?<!\\)(?:\\\\)*<image>", human) or not re.search(other, human):
        return turns
    if len(re.findall(other, human)) != n_images:
        raise ValueError(human)
    return [Turn(t.role, re.sub(other, "<image>", t.text)) if t.role == "human" else t for t in turns]


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
        return meaning(with_other_markers(turns, len(several)), [image_of(one, images) for one in several])
    except (ValueError, KeyError, TypeError, AttributeError, OSError, StopIteration, RecursionError):
        return None


def check(folder: Path, changes: Sequence[Change], array: bool) -> None:
    """Write SAMPLES with `changes` to a file, and compare what comes of it with what each record means."""
    images = folder / "images"
    plain = [json.dumps(sample.fields()).encode() for sample in SAMPLES]
    expected = {
        data: meaning(s.turns, [(images / name).read_bytes() for name in s.images])
        for data, s in zip(plain, SAMPLES, strict=True)
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
        untouched = line in plain or any(change.same and change.data == line for change in changes)
        if untouched or number in found.usable:
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
