"""Commas between sources and commas in their names."""

from pathlib import Path

import pytest

from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from eve_jax.process.paths import split_names

LINE = '{"text": "A dot."}'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.jsonl", "b.jsonl", "a, b/c.jsonl", "a, b/d,e.jsonl", "x,y,z.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(LINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.jsonl,b.jsonl", ["a.jsonl", "b.jsonl"]),
        (" a.jsonl , ,b.jsonl,", ["a.jsonl", "b.jsonl"]),
        ("a, b/c.jsonl", ["a, b/c.jsonl"]),
        ("a.jsonl, a, b/c.jsonl ,b.jsonl", ["a.jsonl", "a, b/c.jsonl", "b.jsonl"]),
        ("a, b/d,e.jsonl,x,y,z.jsonl", ["a, b/d,e.jsonl", "x,y,z.jsonl"]),
        ("a, b/*.jsonl,a.jsonl", ["a, b/*.jsonl", "a.jsonl"]),
        ("a, b", ["a, b"]),
        (r"a\, b/new.jsonl,a.jsonl", ["a, b/new.jsonl", "a.jsonl"]),
        (r"x\,y,z.jsonl", ["x,y,z.jsonl"]),
        ("new, file.jsonl", ["new", "file.jsonl"]),
        ("tfds:coco/2014:train,a.jsonl", ["tfds:coco/2014:train", "a.jsonl"]),
        ("a" * 5000 + ",b.jsonl", ["a" * 5000, "b.jsonl"]),
        ("", []),
    ],
)
def test_names(text: str, names: list[str], folder: Path) -> None:
    assert split_names(text) == names


def test_records_below_a_folder_with_a_comma(folder: Path) -> None:
    records = open_records(f"{folder}/a, b/c.jsonl,{folder}/a.jsonl")
    assert records.names == [f"{folder}/a, b/c.jsonl", f"{folder}/a.jsonl"]
    assert len(records) == 2
    with pytest.raises(UserError, match=r"a: no such records file.*commas separate sources: write \\, for one"):
        open_records(f"{folder}/a, c/c.jsonl")
