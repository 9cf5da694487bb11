"""Files that are complete or absent, and JSON objects read with one line of error."""

import json
import os
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from eve_jax.data.view.document import write_text
from eve_jax.errors import UserError
from eve_jax.infer import score_files
from eve_jax.process.files import (
    folder_in_place_of,
    in_place_of,
    read_bytes,
    read_json,
    read_text,
    write_atomically,
    write_json,
)


def fail(part: Path) -> NoReturn:
    part.write_text("half")
    raise KeyboardInterrupt


def test_text_bytes_and_functions(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, "ä\n")
    assert path.read_bytes() == b"\xc3\xa4\n"
    write_atomically(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    write_atomically(path, lambda part: part.write_text("by a function"))
    assert path.read_text() == "by a function"
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_text() == "by a function"
    assert os.listdir(tmp_path) == ["a"]


def test_writers_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
    path, texts = tmp_path / "x", [str(n) * 100_000 for n in range(4)]
    threads = [threading.Thread(target=write_atomically, args=(path, text)) for text in texts for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert os.listdir(tmp_path) == ["x"]


def test_names_permissions_and_errors(tmp_path: Path) -> None:
    long = tmp_path / ("ä" * 120 + ".json")  # 245 bytes of the 255 that a name may have
    write_json(long, {"b": 1, "a": [2]})
    assert long.read_text() == '{\n  "a": [\n    2\n  ],\n  "b": 1\n}\n'
    (tmp_path / "plain").write_text("")
    assert long.stat().st_mode == (tmp_path / "plain").stat().st_mode
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "x", "")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(OSError), in_place_of(tmp_path / "folder"):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "plain", long.name]


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero"])
def test_pipes_and_devices_are_neither_read_nor_replaced(kind: str, tmp_path: Path) -> None:
    """Reading one may never end, also by a link that has the name of a file, and a device was there for others."""
    path = tmp_path / "questions.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(kind)
    for read in (read_text, read_bytes):
        with pytest.raises(UserError, match=r"questions\.jsonl is a pipe or a device; name a file"):
            read(path)
    with pytest.raises(OSError, match="it is a pipe or a device; name a file"):
        write_atomically(path, "x")
    assert path.exists()
    assert not path.is_file()
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_written_at_a_link_that_a_person_names_is_written_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("there")
    write_text(tmp_path / "link", "page")
    with score_files._in_place_of(tmp_path / "link") as part:
        part.write_text("scores")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_text() == "scores"


def test_text_has_one_kind_of_line_ends(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(tmp_path / "text") == "a\nb\nc\n"
    with pytest.raises(UserError, match="is a folder; name a file"):
        read_text(tmp_path)


def test_folders(tmp_path: Path) -> None:
    target = tmp_path / "made"
    (tmp_path / ".made.part" / "old").mkdir(parents=True)  # of a process that was killed
    with folder_in_place_of(target) as part:
        (part / "x").write_text("1")
        assert not target.exists()
    assert [p.name for p in target.iterdir()] == ["x"]
    with pytest.raises(ZeroDivisionError), folder_in_place_of(tmp_path / "other") as part:
        raise ZeroDivisionError
    with pytest.raises(OSError), folder_in_place_of(target):  # it holds something: nothing of it is lost
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["made"]
    assert (target / "x").read_text() == "1"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"{", "is not valid JSON"),
        (b"\xff", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"a": 1, "a": 2}', "is not valid JSON: 'a' stands there twice"),
        (b"[1]", "does not hold a JSON object"),
    ],
)
def test_what_is_no_json_object(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.json:? {says}[^\n]*$"):
        read_json(path)


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": "ä"}).encode())
    assert read_json(tmp_path / "x.json") == {"a": "ä"}
