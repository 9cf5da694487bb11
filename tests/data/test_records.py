"""Reading record files: every usable record, and a clear word about each that is not."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from eve_jax.data.record import BadRecord, Record, Turn
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError

GOOD = {"id": 7, "image": "a.jpg", "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}


def line(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def test_jsonl_and_array_alike(tmp_path: Path) -> None:
    two = {**GOOD, "image": ["b.jpg", f"{tmp_path}/images/c.jpg"]}
    text = {"id": "t", "conversations": [{"from": "user", "value": "é 😀"}, {"from": "assistant", "value": "A"}]}
    (tmp_path / "a.jsonl").write_bytes(b"\n\n".join([json.dumps(GOOD).encode(), json.dumps(two).encode()]) + b"\n  \n")
    (tmp_path / "b.json").write_text(json.dumps([text, GOOD], ensure_ascii=False, indent=2), encoding="utf-8")
    images = tmp_path / "images"
    images.mkdir()
    records = open_records(f"{tmp_path}/a.jsonl, {tmp_path}/b.json", images)
    turns = (Turn("human", "Q"), Turn("gpt", "A"))
    assert list(records) == [
        Record("7", (f"{images}/a.jpg",), turns, f"{tmp_path}/a.jsonl:1"),
        Record("7", (f"{images}/b.jpg", f"{images}/c.jpg"), turns, f"{tmp_path}/a.jsonl:3"),
        Record("t", (), (Turn("human", "é 😀"), Turn("gpt", "A")), f"{tmp_path}/b.json#1"),
        Record("7", (f"{images}/a.jpg",), turns, f"{tmp_path}/b.json#2"),
    ]
    assert len(records) == 4
    assert records[-1] == records[3]
    assert records[1:3] == [records[1], records[2]]
    with pytest.raises(IndexError):
        records[4]


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + line() + b"\r\n\r\n" + line(id="b"))
    assert [record.id for record in open_records(str(tmp_path / "a.jsonl"))] == ["7", "b"]
    (tmp_path / "b.json").write_bytes(b"\xef\xbb\xbf [" + line() + b"]")
    assert [record.id for record in open_records(str(tmp_path / "b.json"))] == ["7"]


def test_a_record_without_id_is_called_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(line() + b"\n" + line(id=None))
    assert open_records(str(tmp_path / "a.jsonl"))[1].id == "a.jsonl:2"


BAD: dict[str, tuple[bytes, str, str]] = {
    "not JSON": (b'{"id": "x1", "conversations": [', "x1", "not valid JSON"),
    "text": (b"what is this", "", "not valid JSON"),
    "number": (b"12", "a.jsonl:2", "not an object but int"),
    "list": (b"[1]", "a.jsonl:2", "not an object but list"),
    "not UTF-8": (line(id="u").replace(b'"A"', b'"\xff\xfe"'), "u", "value of turn 2 is not valid UTF-8"),
    "half a surrogate": (line(id="u").replace(b'"A"', b'"\\ud800"'), "u", "value of turn 2 is not valid UTF-8"),
    "no conversations": (line(conversations=None), "7", "no conversations"),
    "empty conversations": (line(conversations=[]), "7", "no conversations"),
    "conversations as text": (line(conversations="hello"), "7", "not a list"),
    "turn as text": (line(conversations=["hello"]), "7", "turn 1 is not an object"),
    "unknown role": (line(conversations=[{"from": "robot", "value": "x"}]), "7", "'robot', not one of human, gpt"),
    "no role": (
        line(conversations=[{"value": "x"}]),
        "7",
        "turn 1 has neither from nor role .*; its keys are .value.",
    ),
    "no value": (line(conversations=[{"from": "gpt"}]), "7", "the value of turn 1 is not a text but NoneType"),
    "number as value": (line(conversations=[{"from": "gpt", "value": 3}]), "7", "not a text but int"),
    "image as number": (line(image=3), "7", "image is neither a path nor a list"),
    "image list with a hole": (line(image=["a.jpg", None]), "7", "image is neither a path nor a list"),
    "deep": (b"[" * 100_000, "", "not valid JSON|not an object"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_leaves_the_others_alone(name: str, tmp_path: Path) -> None:
    content, id, reason = BAD[name]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([line(id="first"), content, line(id="last")]))
    records = open_records(str(tmp_path / "a.jsonl"))
    assert (records[0].id, records[2].id) == ("first", "last")
    with pytest.raises(BadRecord, match=reason) as error:
        records[1]
    assert error.value.where == records.where(1) == f"{tmp_path}/a.jsonl:2"
    assert error.value.id == id
    assert str(error.value).startswith(f"{tmp_path}/a.jsonl:2")
    assert "\n" not in str(error.value)


def test_a_bad_element_of_an_array_leaves_the_others_alone(tmp_path: Path) -> None:
    not_utf8 = line(id="u").replace(b'"A"', b'"\xff"')
    tricky = line(id="]},{[", image='\\"]')
    items = [line(), not_utf8, b"null", b'{"id": "x", "conversations": [1 2]}', b"", tricky]
    (tmp_path / "a.json").write_bytes(b" [" + b" ,\n ".join(items) + b"]\n")
    records = open_records(str(tmp_path / "a.json"))
    assert len(records) == 6
    assert (records[0].id, records[5].id, records[5].images) == ("7", "]},{[", ('\\"]',))
    for index, reason in [
        (1, r"a\.json#2 \(record u\): the value of turn 2 is not valid UTF-8"),
        (2, "not an object"),
        (3, r"a\.json#4 \(record x\): not valid JSON"),
        (4, r"a\.json#5: not valid JSON"),
    ]:
        with pytest.raises(BadRecord, match=reason) as error:
            records[index]
        assert records.where(index) == error.value.where


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_bytes(b"[" + line() + b",\n" + line()[:-9])
    (tmp_path / "two.json").write_bytes(b"[" + line() + b"]\n[]")
    (tmp_path / "none.json").write_bytes(b"[ ]")
    (tmp_path / "empty.jsonl").write_bytes(b" \n\n")
    (tmp_path / "one.json").write_bytes(b'{\n  "id": "1"\n}')
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.jsonl.gz").write_bytes(b"?")
    end = len(line()) + 3
    for records, message in [
        ("", "config.data.records is empty"),
        (str(tmp_path / "no.json"), r"no\.json: no such records file"),
        (str(tmp_path / "*.parquet"), "no file matches"),
        (str(tmp_path / "folder"), r"folder: no records in this folder"),
        (
            str(tmp_path / "cut.json"),
            rf"cut\.json: not valid JSON \(it ends within item 2, which begins at byte {end}\)",
        ),
        (str(tmp_path / "two.json"), rf"two\.json: .*something after the array's end, at byte {end}"),
        (str(tmp_path / "none.json"), "no records"),
        (str(tmp_path / "empty.jsonl"), "no records"),
        (str(tmp_path / "one.json"), r"one\.json: JSON objects over several lines"),
        (str(tmp_path / "a.jsonl.gz"), "unpack it first"),
        (f"{tmp_path}/a.json,{tmp_path}/a.json", "names a source twice"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            open_records(records)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_records_longer_than_a_block_of_the_scan(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eve_jax.data.sources.json_files.SCAN_BYTES", 64)
    items = [line(id=n, image="x" * n) for n in range(1, 200)]
    if kind == "jsonl":
        content = b"\n".join(item + b"\n" * (n % 7 == 0) for n, item in enumerate(items))
    else:
        content = b"[" + b" ,".join(items) + b" ]"
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    records = open_records(str(path))
    assert [record.id for record in records] == [str(n) for n in range(1, 200)]
    assert records[150].images == ("x" * 151,)
    numbers = [n + 1 for n, text in enumerate(content.split(b"\n")) if text] if kind == "jsonl" else range(1, 200)
    assert [int(record.where.removeprefix(str(path))[1:]) for record in records] == list(numbers)


@pytest.mark.usefixtures("collected_often")
def test_the_index_is_small_and_nothing_is_kept(tmp_path: Path) -> None:
    items = [line(id=n, image="x" * 200) for n in range(20_000)]
    for name, content in (("a.jsonl", b"\n".join(items)), ("a.json", b"[" + b",".join(items) + b"]")):
        (tmp_path / name).write_bytes(content)
        open_records(str(tmp_path / name))  # compiled and imported from here on
        tracemalloc.start()
        records = open_records(str(tmp_path / name))
        assert records[19_999].id == "19999"
        assert tracemalloc.get_traced_memory()[0] < 2 * len(items)
        tracemalloc.stop()


def test_a_file_that_was_cut_while_in_use(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([line(id="first"), line(id="second")]))
    records = open_records(str(path))
    path.write_bytes(line(id="first"))
    assert records[0].id == "first"
    with pytest.raises(BadRecord, match=r"a\.jsonl, record 2: the file was changed since it was opened"):
        records[1]


def test_captions_and_images_by_another_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"images": ["a.jpg"], "caption": "A bus."}\n{"text": "Hello."}\n{"caption": 3}')
    records = open_records(str(tmp_path / "a.jsonl"))
    assert records[0][1:3] == (("a.jpg",), (Turn("gpt", "A bus."),))
    assert records[1][1:3] == ((), (Turn("gpt", "Hello."),))
    with pytest.raises(BadRecord, match="caption is not a text but int"):
        records[2]


def test_names_and_where_each_source_starts(tmp_path: Path) -> None:
    for name, n in (("a.jsonl", 2), ("b1.json", 3), ("b2.json", 1)):
        separator, ends = (b"\n", (b"", b"")) if name == "a.jsonl" else (b",", (b"[", b"]"))
        (tmp_path / name).write_bytes(ends[0] + separator.join([line(id=f"{name}-{k}") for k in range(n)]) + ends[1])
    names = [str(tmp_path / "a.jsonl"), str(tmp_path / "b*.json")]
    records = open_records(", ".join(names))
    assert records.names == names
    assert records.starts.tolist() == [0, 2, 6]
    assert [record.id for record in records][4:] == ["b1.json-2", "b2.json-0"]
    before = records.fingerprint()
    (tmp_path / "b2.json").write_bytes(b"[" + line(id="another") + b"]")
    assert open_records(", ".join(names)).fingerprint() != before


def test_a_file_that_is_named_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("data", "links", "one"):
        (tmp_path / folder).mkdir()
    for name in ("data/a.jsonl", "data/b.jsonl", "one/a.jsonl"):
        (tmp_path / name).write_bytes(line())
    (tmp_path / "links" / "c.jsonl").symlink_to(tmp_path / "data" / "a.jsonl")
    (tmp_path / "folder").symlink_to("data")
    for names, first, other in (
        ("data/a.jsonl,./data/a.jsonl", "data/a.jsonl", r"\./data/a\.jsonl"),
        (f"data/a.jsonl,{tmp_path}/data/a.jsonl", "data/a.jsonl", ".*/data/a.jsonl"),
        ("data/a.jsonl,links/c.jsonl", "data/a.jsonl", "links/c.jsonl"),
        ("data/a.jsonl,folder/a.jsonl", "data/a.jsonl", "folder/a.jsonl"),
        ("data/*.jsonl,data/b.jsonl", "data/b.jsonl", "data/b.jsonl"),
        ("data,folder", "data/a.jsonl", "folder/a.jsonl"),
        ("*/*.jsonl", "data/a.jsonl", "folder/a.jsonl"),
    ):
        with pytest.raises(UserError, match=f"{first} and {other} are the same file; name it once, and set .*repeats"):
            open_records(names)
    assert len(open_records("data,one")) == 3  # the same records in another file are the user's business
