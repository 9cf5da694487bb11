"""Changes to the files of a folder, as hypothesis draws and prints them, and what every refusal has in common."""

import json
import random
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st

from eve_jax.errors import UserError

VALUES = [None, True, False, 0, 1, -1, 2.5, 5, 256, 1e30, "", "x", "5", "<|im_end|>", "\ud800", [], [1], {}, {"a": 1}]


class JsonEdit(NamedTuple):
    """A change at the place that `walk` leads to: each number picks a child, modulo how many there are."""

    file: str
    walk: tuple[int, ...]
    action: str  # "set", "delete", "rename" or "wrap"
    value: Any


class ByteEdit(NamedTuple):
    """A change at the byte `at`, a fraction of the file's size.

    action: one of BYTE_ACTIONS; "added" adds a file, "other" puts another file's bytes there.
    """

    file: str
    at: float
    action: str
    value: int


Edit = JsonEdit | ByteEdit
BYTE_ACTIONS = ("flip", "cut", "insert", "drop", "bom", "empty", "remove", "move", "added", "other")


def json_edits(files: Sequence[str], values: Sequence[Any] = ()) -> st.SearchStrategy[JsonEdit]:
    """Changes to the values of JSON `files`, to what VALUES or `values` have."""
    walk = st.lists(st.integers(0, 40), min_size=1, max_size=4).map(tuple)
    action = st.sampled_from(["set", "set", "set", "delete", "rename", "wrap"])
    return st.builds(JsonEdit, st.sampled_from(files), walk, action, st.sampled_from([*VALUES, *values]))


def byte_edits(files: Sequence[str], actions: Sequence[str] = BYTE_ACTIONS) -> st.SearchStrategy[ByteEdit]:
    """Changes to the bytes of `files`."""
    at = st.floats(0, 1, exclude_max=True)
    return st.builds(ByteEdit, st.sampled_from(files), at, st.sampled_from(actions), st.integers(0, 255))


def lists_of(edits: st.SearchStrategy[Edit]) -> st.SearchStrategy[list[Edit]]:
    """One to three changes."""
    return st.lists(edits, min_size=1, max_size=3)


def profile(examples: int, slow: bool = False) -> settings:
    """Settings of a test: the same examples every time, or with `slow` ten times as many, of a random seed."""
    return settings(
        max_examples=examples * (10 if slow else 1),
        deadline=None,
        derandomize=not slow,
        database=None,
        print_blob=True,
    )


def copy(origin: Path, target: Path) -> Path:
    """Make `target` a fresh copy of the folder `origin`."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(origin, target)
    return target


def apply(folder: Path, edits: Sequence[Edit]) -> None:
    """Make the changes, as far as they can be made after those before them.

    The file of a change may be a pattern: the largest file is then changed.
    """
    for edit in edits:
        found = [path for path in folder.glob(edit.file) if path.is_file()]
        if not found:
            continue
        path = max(found, key=lambda path: (path.stat().st_size, path.name))
        if isinstance(edit, ByteEdit):
            _edit_bytes(path, edit)
        else:
            with suppress(ValueError):  # broken by an earlier change
                value = _edited(json.loads(path.read_bytes().decode("utf-8-sig")), edit)
                path.write_text(json.dumps(value))


def _edit_bytes(path: Path, edit: ByteEdit) -> None:
    raw = path.read_bytes()
    n = int(edit.at * len(raw))
    if edit.action == "remove":
        path.unlink()
        return
    if edit.action == "move":
        path.rename(path.with_name(f"{path.name}x"))
        return
    if edit.action == "added":
        path.with_name(f"{path.name}x").write_bytes(raw)
        return
    others = sorted(p for p in path.parent.iterdir() if p.is_file() and p != path)
    changed = {
        "flip": raw[:n] + bytes([raw[n] ^ (edit.value or 1)]) + raw[n + 1 :] if raw else raw,
        "cut": raw[:n],
        "insert": raw[:n] + random.Random(edit.value).randbytes(1 + edit.value // 16) + raw[n:],
        "drop": raw[:n] + raw[n + 1 + edit.value // 16 :],
        "bom": b"\xef\xbb\xbf" + raw,
        "empty": b"",
        "other": others[edit.value % len(others)].read_bytes() if others else b"",
    }
    path.write_bytes(changed[edit.action])


def _edited(root: Any, edit: JsonEdit) -> Any:
    """Return the JSON value `root` with the change made in it."""
    parent: Any = None
    key: Any = None
    node = root
    for step in edit.walk:
        if not isinstance(node, dict | list) or not node:
            break
        parent, key = node, (list(node)[step % len(node)] if isinstance(node, dict) else step % len(node))
        node = node[key]
    if parent is None:
        return edit.value
    if edit.action == "set":
        parent[key] = edit.value
    elif edit.action == "wrap":
        parent[key] = [node]
    elif edit.action == "delete" or isinstance(parent, list):
        del parent[key]
    else:
        value = parent.pop(key)
        parent[f"{key}x"] = value
    return root


def check_refusal(error: UserError) -> None:
    """Assert that a refusal is one short line."""
    line = str(error)
    assert line
    assert len(line.splitlines()) == 1, line
    assert len(line.encode("utf-8", "replace")) < 2000, line[:200]
