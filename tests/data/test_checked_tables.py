"""A lengths table that was checked is not read for it again while it is the same file."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from eve_jax.data.image.rule import ImageRule
from eve_jax.data.plan import table_check
from eve_jax.data.plan.lengths import Lengths, kept_table, made_table
from eve_jax.data.plan.mapped_arrays import ArrayFile
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from eve_jax.process import marks
from tests.data.synthetic import byte_tokenizer, write_records

RULE = SampleRule(byte_tokenizer(), ImageRule("anyratio_ld", max_size=96), "qwen2", max_tokens=1000)
N = 6


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of marks, which tables of any size and age have."""
    monkeypatch.setenv("EVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(marks, "LEAST", 1)
    monkeypatch.setattr(marks, "SETTLED", 0.0)
    return tmp_path / "cache" / marks.FOLDER


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arrays that were read, one after the other."""
    found: list[str] = []
    read = ArrayFile.read

    def noted(self: ArrayFile, name: str, start: int, stop: int) -> np.ndarray:
        found.append(name)
        return read(self, name, start, stop)

    monkeypatch.setattr(ArrayFile, "read", noted)
    return found


def made(folder: Path) -> Lengths:
    """The table of N records, made or kept in `folder`."""
    records = open_records(str(folder / "records.jsonl"), folder / "images")
    return measure(records, RULE, folder / "plan")


def table_of(folder: Path) -> Path:
    write_records(folder, N)
    file = made(folder).file
    assert file is not None
    return file.path


def change(path: Path, name: str, value: int) -> None:
    """Write over the first number of an array in its file, whose size and modification time stay."""
    before, array = path.stat(), ArrayFile(path)._arrays[name]
    with path.open("r+b") as file:
        file.seek(array.offset)
        file.write(np.array([value], array.dtype).tobytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_second_opening_reads_none_of_the_counts(tmp_path: Path, own: Path, reads: list[str]) -> None:
    path = table_of(tmp_path)
    assert set(reads) == set(table_check.ARRAYS)
    assert [mark.suffix for mark in own.iterdir()] == [".json"]
    assert own.stat().st_mode & 0o777 == 0o700
    reads.clear()
    again = made(tmp_path)
    assert not reads
    assert again.digest == table_check.counts_digest(ArrayFile(path))
    reads.clear()
    assert kept_table(path, N + 1, 1000) is not None  # another question
    assert reads
    reads.clear()
    path.rename(tmp_path / "other.npz")
    assert kept_table(tmp_path / "other.npz", N, 1000) is not None
    assert reads


def test_a_table_that_changed_is_checked_again(
    tmp_path: Path, own: Path, reads: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = table_of(tmp_path)
    change(path, "text", -5)
    reads.clear()
    assert kept_table(path, N, 1000) is None
    assert reads
    assert "entry 0 has a negative number of text tokens" in capsys.readouterr().err
    assert kept_table(path, N, 1000) is None  # what is refused has no mark
    change(path, "text", int(Lengths.load(path).text[1]))
    capsys.readouterr()
    assert kept_table(path, N, 1000) is None
    assert "its digest is not that of its arrays" in capsys.readouterr().err


def test_marks_of_another_version_of_the_check_do_not_count(
    tmp_path: Path, own: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table_of(tmp_path)
    monkeypatch.setattr(table_check, "VERSION", table_check.VERSION + 1)
    reads.clear()
    assert kept_table(path, N, 1000) is not None
    assert reads


@pytest.mark.parametrize("damage", ["cut", "nonsense", "list", "deep", "digest", "pipe", "link", "folder", "large"])
def test_a_damaged_mark_is_as_none(damage: str, tmp_path: Path, own: Path, reads: list[str]) -> None:
    path = table_of(tmp_path)
    (mark,) = own.iterdir()
    text = mark.read_text()
    mark.unlink()
    if damage == "pipe":
        os.mkfifo(mark)
    elif damage == "folder":
        mark.mkdir()
    elif damage == "link":
        (tmp_path / "mark.json").write_text(text)
        mark.symlink_to(tmp_path / "mark.json")
    else:
        of_another = json.dumps(json.loads(text) | {"kept": "0" * 32})
        texts = {"cut": text[:-9], "nonsense": "\0\xff", "list": "[]", "deep": "[" * 9999, "digest": of_another}
        mark.write_text(texts.get(damage, text + " " * marks.LARGEST))
    reads.clear()
    assert kept_table(path, N, 1000) is not None
    assert reads
    reads.clear()
    assert kept_table(path, N, 1000) is not None
    assert bool(reads) == (damage in ("pipe", "folder"))  # nothing takes their place; other marks are made again


@pytest.mark.parametrize("place", ["nowhere", "open", "link"])
def test_marks_lie_in_a_folder_of_ones_own(
    place: str, tmp_path: Path, own: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table_of(tmp_path)
    if place == "nowhere":
        monkeypatch.setattr("eve_jax.process.caches.cache_folder", lambda: None)
    elif place == "open":
        own.chmod(0o777)
    else:
        own.rename(tmp_path / "theirs")
        own.symlink_to(tmp_path / "theirs")
    for _ in range(2):
        reads.clear()
        assert kept_table(path, N, 1000) is not None
        assert reads


def test_a_table_written_just_now_is_not_marked_but_where_it_is_made(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table_of(tmp_path)
    slept: list[float] = []
    monkeypatch.setattr(marks, "SETTLED", 3600.0)
    monkeypatch.setattr(marks.time, "sleep", slept.append)
    (mark,) = own.iterdir()
    mark.unlink()
    assert kept_table(path, N, 1000) is not None
    assert not slept
    assert not list(own.iterdir())
    made_table(path, N, 1000)
    assert len(slept) == 1
    assert not list(own.iterdir())  # since no time went by here
    monkeypatch.setattr(marks, "SETTLED", 0.0)
    file = ArrayFile(path)
    taken = marks.Mark.of_file(file.number, path, ["lengths"])
    change(path, "text", 1)
    taken.keep(file.number, "x")  # it was written while it was read
    assert not list(own.iterdir())


def test_what_was_just_joined_is_checked(tmp_path: Path, own: Path) -> None:
    path = table_of(tmp_path)
    change(path, "text", -5)
    with pytest.raises(UserError, match=r"just written, entry 0 has a negative number of text tokens; start again"):
        made_table(path, N, 1000)


def test_the_newest_marks_are_kept(tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "MOST", 2)
    for number in range(4):
        path = tmp_path / f"{number}"
        path.write_text(str(number))
        with path.open() as file:
            mark = marks.Mark.of_file(file.fileno(), path, [])
            mark.keep(file.fileno(), "seen")
            assert mark.kept() == "seen"
        os.utime(own / mark.name, (number, number))
    assert len(list(own.iterdir())) == 2
