"""The index of a large JSONL or JSON file: made once, and never taken for that of other content."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs.base import get_config
from eve_jax.data.prepare import convert as convert_module
from eve_jax.data.prepare.convert import Conversion, convert
from eve_jax.data.rows.pipeline import open_stage_data
from eve_jax.data.sources import json_files, kept_index
from eve_jax.data.sources.records import Records, open_records
from eve_jax.process import cores
from eve_jax.train.shared_data import open_data_together
from tests.data.synthetic import byte_tokenizer

N = 6000


def items(n: int = N) -> list[str]:
    return [json.dumps({"id": f"r{k}", "caption": f"words of {k}", "note": "x" * 4000}) for k in range(n)]


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written just now are taken as if they had been written a while ago."""
    monkeypatch.setattr(kept_index, "SETTLED", 0.0)
    monkeypatch.setattr(cores, "_sharing", 1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes of small files are kept, too."""
    monkeypatch.setattr(kept_index, "LEAST", 600)
    monkeypatch.setattr(json_files, "LEAST", 600)


def bytes_read(work: Callable[[], object]) -> int:
    """What this process reads in `work`, as the kernel counts it."""

    def count() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = count()
    work()
    return count() - before


def opened(path: Path, folder: Path) -> Records:
    records = open_records(str(path), "", folder)
    records.keep_index()
    return records


def stage(folder: Path, path: Path) -> ConfigDict:
    byte_tokenizer().save(folder / "tokenizer")
    config = get_config("tiny")
    data = {"records": str(path), "tokenizer": str(folder / "tokenizer"), "template": "plain"}
    config.data.update(data | {"max_tokens": 128, "row_tokens": 128, "rows": 2})
    return config


class Second:
    """Stands for the peers of process 1 of 2, which all say the same as it."""

    index, count = 1, 2

    def __init__(self) -> None:
        self.gathered: list[str] = []

    def gather(self, name: str, value: str = "") -> list[str]:
        self.gathered.append(name)
        return [value] * 2


def test_a_file_is_read_once_for_all_starts_and_processes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(items()))
    size, config = path.stat().st_size, stage(tmp_path, path)
    (tmp_path / "few.jsonl").write_text("\n".join(items(50)))
    open_stage_data(stage(tmp_path, tmp_path / "few.jsonl"), tmp_path / "before")  # reads what is imported and compiled
    first = bytes_read(lambda: open_records(str(path), "", tmp_path / "stage" / "plan"))
    assert size < first < 1.1 * size
    made = open_stage_data(config, tmp_path / "stage")
    assert bytes_read(lambda: open_records(str(path), "", tmp_path / "stage" / "plan")) < size / 200
    tables = sum(table.stat().st_size for table in (tmp_path / "stage" / "plan").glob("*.npz"))
    # Tables are read twice: their digest and their numbers are checked.
    for saved in (None, made.fingerprint):
        found = bytes_read(partial(open_stage_data, config, tmp_path / "stage", saved=saved))
        assert found - 2 * tables < size / 100
    peers: Any = Second()
    assert bytes_read(lambda: open_data_together(config, tmp_path / "stage", peers)) - 2 * tables < size / 100
    assert peers.gathered[:2] == ["machine", "indexed"]  # the latter waits until process 0 has made it


def test_a_conversion_reads_its_source_once(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(items(200)))
    conversion = Conversion(str(path), "", str(tmp_path / "made"), 50, "headers")
    scans: list[int] = []
    scanned = json_files.JsonFile._scanned

    def counted(file: json_files.JsonFile) -> kept_index.Index:
        scans.append(1)
        return scanned(file)

    monkeypatch.setattr(json_files.JsonFile, "_scanned", counted)
    write = convert_module._write_shard
    monkeypatch.setattr(convert_module, "_write_shard", lambda *_, **__: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception):
        convert(conversion)
    monkeypatch.setattr(convert_module, "_write_shard", write)
    assert convert(conversion)["kept"] == 200
    assert scans == [1]
    assert not list((tmp_path / "made").glob("*.index"))


KINDS = {
    "lines": lambda: "\n".join(items(500)),
    "lines with blank ones": lambda: "\n".join(line + "\n" * (k % 7 == 0) for k, line in enumerate(items(500))),
    "an array": lambda: "\ufeff [" + " ,\n".join(items(500)) + "]\n",
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_that_of_the_file(kind: str, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text(KINDS[kind](), encoding="utf-8")
    alone = open_records(str(path))
    opened(path, tmp_path / "plan")
    scans: list[int] = []
    monkeypatch.setattr(json_files.JsonFile, "_scanned", lambda self: scans.append(1))
    again = opened(path, tmp_path / "plan")
    assert scans == []
    assert again.fingerprint() == alone.fingerprint()
    assert list(again) == list(alone)
    with pytest.raises(AttributeError):  # nothing but the scan knows another folder's
        open_records(str(path), tmp_path, tmp_path / "plan")
    assert scans == [1]


def test_one_character_at_equal_size_and_time_is_found(tmp_path: Path, small: None) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(items(500)))
    before, status = opened(path, tmp_path / "plan"), path.stat()
    place = path.read_bytes().index(b"words of 77") + 9
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"8")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = opened(path, tmp_path / "plan")
    assert after.fingerprint() != before.fingerprint()
    assert after[77].turns[-1].text == "words of 87"
    assert opened(path, tmp_path / "plan").fingerprint() == after.fingerprint()


@pytest.mark.parametrize("damage", ["cut", "byte", "head", "empty", "folder"])
def test_a_damaged_index_is_made_anew(damage: str, tmp_path: Path, small: None) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(items(500)))
    whole = list(opened(path, tmp_path / "plan"))
    (index,) = (tmp_path / "plan").iterdir()
    content = index.read_bytes()
    if damage == "folder":
        index.unlink()
        index.mkdir()
    elif damage == "head":
        index.write_bytes(content.replace(b'"count": 500', b'"count": 400'))
    else:
        index.write_bytes({"cut": content[:-4], "byte": content[:-1] + b"\x7f", "empty": b""}[damage])
    assert list(open_records(str(path), "", tmp_path / "plan")) == whole


def test_what_was_written_meanwhile_is_not_kept(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(items(500)))
    records = open_records(str(path), "", tmp_path / "plan")
    path.write_text("\n".join(items(499)))
    records.keep_index()
    assert not (tmp_path / "plan").exists()
    monkeypatch.setattr(kept_index, "SETTLED", 2.0)
    waited: list[float] = []
    monkeypatch.setattr(kept_index.time, "sleep", waited.append)
    opened(path, tmp_path / "plan")
    assert len(waited) == 1 and 1.0 < waited[0] <= 2.0  # a write in the same tick of the clock would not be seen
    os.utime(path)
    monkeypatch.setattr(kept_index.time, "time", lambda: path.stat().st_ctime - 5)  # of a server that is ahead
    for made in (tmp_path / "plan").iterdir():
        made.unlink()
    opened(path, tmp_path / "plan")
    assert list((tmp_path / "plan").iterdir()) == []
