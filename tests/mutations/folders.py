"""Damage to folders of small files: one change of one file, of its bytes or of the JSON in it."""

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from eve_jax.errors import UserError

MOST = 2000  # characters of a message
JUNK = st.sampled_from([None, 0, -1, 3, 1e30, "x", "", [], [1], {}, {"a": 1}, True])


def one_line(error: UserError) -> None:
    """Assert that an error is one line that a person can read."""
    text = str(error)
    assert text and "\n" not in text.strip() and len(text) < MOST, text[:MOST]


def files_of(folder: Path) -> list[str]:
    """Return the names of all files below `folder`, in an order that is always the same."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@st.composite
def byte_changes(draw: st.DrawFn) -> tuple[str, float, int]:
    """Draw what happens to a file's bytes: the kind, where (a share of its length), and a byte."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "append", "empty", "remove", "rename"]))
    return kind, draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(1, 255))


def change_bytes(path: Path, change: tuple[str, float, int]) -> None:
    """Do to a file what `byte_changes` has drawn."""
    kind, share, byte = change
    data = path.read_bytes()
    at = int(share * len(data))
    if kind == "remove":
        path.unlink()
    elif kind == "rename":
        path.rename(path.with_name(f"{path.name}.x"))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "append":
        path.write_bytes(data + bytes([byte]))
    elif kind == "cut":
        path.write_bytes(data[:at])
    elif kind == "insert":
        path.write_bytes(data[:at] + bytes([byte]) + data[at:])
    elif data:
        path.write_bytes(data[:at] + bytes([data[at] ^ byte]) + data[at + 1 :])


@st.composite
def json_changes(draw: st.DrawFn) -> tuple[str, int, Any]:
    """Draw what happens to a JSON object: drop, rename or replace the value of one of its fields, by number."""
    return draw(st.sampled_from(["drop", "rename", "replace"])), draw(st.integers(0, 1000)), draw(JUNK)


def change_json(path: Path, change: tuple[str, int, Any], within: tuple[str, ...] = ()) -> str:
    """Do to the object in a file what `json_changes` has drawn; return the name of the field. within: a path to it."""
    kind, number, junk = change
    value = json.loads(path.read_text())
    node = value
    for key in within:
        node = node[key]
    field = sorted(node)[number % len(node)]
    old = node.pop(field)
    if kind == "rename":
        node[f"{field}_x"] = old
    elif kind == "replace":
        node[field] = junk
    path.write_text(json.dumps(value))
    return field
