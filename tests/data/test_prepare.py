"""Conversion into prepared records: nothing lost, nothing twice, whatever interrupts it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from eve_jax.data.image.patches import image_size
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.image_file import StoredImage, image_bytes
from eve_jax.data.plan.lengths import ARRAYS, Lengths
from eve_jax.data.prepare.convert import Conversion, convert
from eve_jax.data.record import BadRecord
from eve_jax.data.rows.bad_records import kind_of
from eve_jax.data.samples import measure as measure_module
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import Records, open_records
from eve_jax.errors import UserError
from eve_jax.process.lock import locked
from tests.data.source_files import samples_of, write_parquet, write_tar
from tests.data.synthetic import byte_tokenizer, write_records

RULE = SampleRule(byte_tokenizer(), ImageRule("anyratio_ld", max_size=96), "qwen2", max_tokens=1000)
ROOT = Path(__file__).parents[2]


def conversion(folder: Path, records: str = "records.jsonl", to: str = "made", **changes: object) -> Conversion:
    values = {"shard_records": 5, "check": "headers", **changes}
    return Conversion(str(folder / records), str(folder / "images"), str(folder / to), **values)  # type: ignore[arg-type]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    write_records(tmp_path, 13)
    summary = convert(conversion(tmp_path), RULE)
    records = open_records(str(tmp_path / "made"))
    expected = open_records(str(tmp_path / "records.jsonl"), tmp_path / "images")
    assert [(r.id, r.turns) for r in records] == [(r.id, r.turns) for r in expected]
    for record, other in zip(records, expected, strict=True):
        assert [image_bytes(image) for image in record.images] == [image_bytes(image) for image in other.images]
        assert [image_size(image) for image in record.images] == [image_size(image) for image in other.images]
    assert records.where(7) == "made/00001#3"
    assert str(records[7].images[0]) == "made/00001.images#3"
    assert (summary["kept"], summary["dropped"], summary["images"], summary["shards"]) == (13, 0, 12, 3)
    assert (summary["text_only"], summary["several_images"]) == (5, 4)
    assert sum(summary["image_sizes"].values()) == 12
    assert json.loads((tmp_path / "made" / "summary.json").read_text()) == summary
    names = {path.name for path in (tmp_path / "made").iterdir()}
    assert names == {
        *(f"0000{n}.{kind}" for n in range(3) for kind in ("records", "images")),
        *("eve_records.json", "conversion.json", "summary.json", summary["table"]["file"]),
    }


def test_the_lengths_table_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_records(tmp_path, 13)
    lines = path.read_text().splitlines()
    lines[4] = lines[4].replace("<image>", "<image>" + 1000 * "long ")
    path.write_text("\n".join(lines))
    summary = convert(conversion(tmp_path), RULE)
    expected = measure(open_records(str(path), tmp_path / "images"), RULE)
    monkeypatch.setattr(measure_module, "measure_part", lambda *_: pytest.fail("measured again"))
    lengths = measure(open_records(str(tmp_path / "made")), RULE)
    for name in ARRAYS:
        assert np.array_equal(getattr(lengths, name), getattr(expected, name)), name
    ((where, reason),) = [(one.where, one.reason) for one in lengths.dropped]
    assert where == "made/00000#5"
    assert reason.startswith("too long")
    assert summary["table"] == {
        "file": summary["table"]["file"],
        "records": 12,
        "dropped": 1,
        "truncated": 0,
        "shrunk": 0,
        "reasons": {kind_of(reason): 1},
        "text_tokens": int(expected.text.sum()),
        "vision_tokens": int((expected.patches + expected.specials).sum()),
        "longest": int((expected.patches + expected.specials + expected.text).max()),
    }


def test_the_table_is_used_in_a_mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_records(tmp_path, 7)
    convert(conversion(tmp_path), RULE)
    records = open_records(f"{path},{tmp_path}/made", tmp_path / "images")
    measured: list[int] = []
    original = measure_module.measure_part

    def spy(records: Records, indices: Iterable[int], rule: SampleRule) -> Lengths:
        measured.extend(indices)
        return original(records, measured, rule)

    monkeypatch.setattr(measure_module, "measure_part", spy)
    lengths = measure(records, RULE, tmp_path / "cache")
    assert measured == list(range(7))
    assert lengths.record.tolist() == list(range(14))
    assert np.array_equal(lengths.text[:7], lengths.text[7:])
    assert lengths.entry_grids(5) == lengths.entry_grids(12) != []


def test_sizes_are_known_without_opening_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_records(tmp_path, 6)
    convert(conversion(tmp_path))
    records = open_records(str(tmp_path / "made"))
    monkeypatch.setattr("eve_jax.data.image.patches.Image.open", lambda *_: pytest.fail("opened"))
    lengths = measure(records, RULE)
    assert len(lengths.grids) == 6


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_from_other_sources(kind: str, tmp_path: Path) -> None:
    write_records(tmp_path, 7)
    (write_parquet if kind == "parquet" else write_tar)(tmp_path / f"a.{kind}", samples_of(tmp_path))
    convert(conversion(tmp_path))
    convert(conversion(tmp_path, f"a.{kind}", to="other"))
    records, other = open_records(str(tmp_path / "made")), open_records(str(tmp_path / "other"))
    for a, b in zip(records, other, strict=True):
        assert (a.id, a.turns, list(map(image_bytes, a.images))) == (b.id, b.turns, list(map(image_bytes, b.images)))


@pytest.mark.parametrize("rule", [None, RULE])
def test_what_no_template_trains_on_is_dropped(rule: SampleRule | None, tmp_path: Path) -> None:
    path = write_records(tmp_path, 4)
    talks = [
        [("human", "why <image>?"), ("gpt", "So.")],
        [("human", r"why \<image>?"), ("gpt", "So.")],
        [("human", "why?"), ("gpt", "")],
        [("human", "why?")],
        [("gpt", "So.")],
    ]
    more = [{"id": str(n), "conversations": [{"from": a, "value": b} for a, b in one]} for n, one in enumerate(talks)]
    path.write_text("\n".join([*path.read_text().splitlines(), *map(json.dumps, more)]))
    summary = convert(conversion(tmp_path), rule)
    assert (summary["kept"], summary["dropped"], list(summary["reasons"].values())) == (6, 3, [2, 1])
    listed = [json.loads(line) for line in (tmp_path / "made" / "bad_records.jsonl").read_text().splitlines()]
    assert [(Path(one["where"]).name, one["id"], re.split(r":| \(", one["reason"])[0]) for one in listed] == [
        ("records.jsonl:5", "0", "1 <image> marker for 0 images"),
        ("records.jsonl:7", "2", "nothing to learn"),
        ("records.jsonl:8", "3", "nothing to learn"),
    ]
    assert [record.turns[-1].text for record in open_records(str(tmp_path / "made"))][4:] == ["So.", "So."]


def test_what_is_dropped_is_listed(tmp_path: Path) -> None:
    path = write_records(tmp_path, 12)
    lines = path.read_text().splitlines()
    lines[0] = "{" + lines[0]
    path.write_text("\n".join(lines))
    (tmp_path / "images" / "1_0.png").unlink()
    (tmp_path / "images" / "2_1.png").write_bytes(b"")
    cut = tmp_path / "images" / "5_0.png"
    cut.write_bytes(cut.read_bytes()[:-200])
    summary = convert(conversion(tmp_path))
    assert summary["reasons"] == {"not valid JSON": 1, "missing file": 1, "empty file": 1}
    summary = convert(conversion(tmp_path, to="strict", check="decode"))
    assert (summary["kept"], summary["dropped"]) == (8, 4)
    assert summary["reasons"]["cannot be decoded"] == 1
    listed = [json.loads(line) for line in (tmp_path / "strict" / "bad_records.jsonl").read_text().splitlines()]
    assert [(one["where"].rpartition(":")[2], one["id"], one["found"]) for one in listed] == [
        ("1", "r0", "preparing"),
        ("2", "r1", "preparing"),
        ("3", "r2", "preparing"),
        ("6", "r5", "preparing"),
    ]
    assert len(open_records(str(tmp_path / "strict"))) == 8


def test_a_picture_of_several_records_is_kept_once(tmp_path: Path) -> None:
    path = write_records(tmp_path, 2)
    path.write_text("\n".join([path.read_text().splitlines()[1]] * 7))
    summary = convert(conversion(tmp_path))
    assert (summary["images"], summary["image_files"]) == (7, 2)  # once in each of two shards
    records = open_records(str(tmp_path / "made"))
    assert len({image_bytes(record.images[0]) for record in records}) == 1


def test_processes_make_the_same(tmp_path: Path) -> None:
    write_records(tmp_path, 23)
    convert(conversion(tmp_path), RULE)
    convert(conversion(tmp_path, to="other"), RULE, processes=2)
    assert files(tmp_path / "made") == files(tmp_path / "other")


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from eve_jax.data.prepare import convert, shard_writer
original = shard_writer.image_bytes
def slow(file):
    time.sleep(0.2)
    return original(file)
shard_writer.image_bytes = slow
convert.convert(convert.Conversion(*sys.argv[1:4], 5, "headers"))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_goes_on_after_a_kill(number: int, tmp_path: Path) -> None:
    write_records(tmp_path, 23)
    convert(conversion(tmp_path))
    other = tmp_path / "other"
    arguments = [str(tmp_path / "records.jsonl"), str(tmp_path / "images"), str(other)]
    process = subprocess.Popen([sys.executable, "-c", SLOW, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
    while not (other / "00001.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.wait()
    assert not (other / "eve_records.json").exists()
    with pytest.raises(UserError, match="other: is not converted to its end"):
        open_records(str(other))
    done = {name: (other / name).stat().st_mtime_ns for name in ("00000.records", "00001.images")}
    summary = convert(conversion(tmp_path, to="other"))
    assert {name: (other / name).stat().st_mtime_ns for name in done} == done
    assert files(other) == files(tmp_path / "made")
    assert summary["kept"] == 23
    before = {path: path.stat().st_mtime_ns for path in other.iterdir()}
    convert(conversion(tmp_path, to="other"))
    assert {path: path.stat().st_mtime_ns for path in other.iterdir()} == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = write_records(tmp_path, 6)
    convert(conversion(tmp_path))
    with pytest.raises(
        UserError, match=r"made: holds records converted from something else \(another records_per_shard\)"
    ):
        convert(conversion(tmp_path, shard_records=4))
    with pytest.raises(UserError, match="images: holds something else"):
        convert(conversion(tmp_path, to="images"))
    path.write_text(path.read_text().replace("Number 1", "Number I"))
    with pytest.raises(UserError, match="another source"):
        convert(conversion(tmp_path))
    for changes, message in (({"check": "all"}, "--check=all is not one of"), ({"shard_records": 0}, "at least 1")):
        with pytest.raises(UserError, match=message):
            convert(conversion(tmp_path, to="new", **changes))
    assert not (tmp_path / "new").exists()


def test_one_conversion_at_a_time(tmp_path: Path) -> None:
    write_records(tmp_path, 6)
    convert(conversion(tmp_path))
    before = sorted((tmp_path / "made").iterdir())
    said = rf"made/run\.lock: in use by process {os.getpid()} on .*--to"
    with locked(tmp_path / "made", "the conversion"), pytest.raises(UserError, match=said):
        convert(conversion(tmp_path))
    convert(conversion(tmp_path))
    assert sorted((tmp_path / "made").iterdir()) == before


def test_a_broken_table_is_made_again(tmp_path: Path) -> None:
    write_records(tmp_path, 6)
    summary = convert(conversion(tmp_path), RULE)
    path = tmp_path / "made" / summary["table"]["file"]
    whole = path.read_bytes()
    records = open_records(str(tmp_path / "made"))
    for broken in (b"", whole[: len(whole) // 2], bytes(len(whole))):
        path.write_bytes(broken)
        assert len(measure(records, RULE)) == summary["table"]["records"]
        assert convert(conversion(tmp_path), RULE) == summary
        assert path.read_bytes() == whole


def test_damaged_shards_are_noticed(tmp_path: Path) -> None:
    write_records(tmp_path, 6)
    convert(conversion(tmp_path))
    made = tmp_path / "made"
    path = made / "00000.records"
    whole = path.read_bytes()
    records = open_records(str(made))
    path.write_bytes(whole[:65600] + bytes(200) + whole[65800:])
    with pytest.raises(BadRecord, match=r"made/00000#\d: the shard is damaged"):
        [records[index] for index in range(5)]
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"00000\.records has [\d,]+ bytes instead of [\d,]+"):
        open_records(str(made))
    path.unlink()
    with pytest.raises(UserError, match=r"00000\.records is missing"):
        open_records(str(made))
    (made / "eve_records.json").write_text("{")
    with pytest.raises(UserError, match=r"eve_records\.json: cannot be read"):
        open_records(str(made))


def test_a_prepared_image_is_stored(tmp_path: Path) -> None:
    write_records(tmp_path, 2)
    convert(conversion(tmp_path))
    (image,) = open_records(str(tmp_path / "made"))[1].images
    assert isinstance(image, StoredImage)
    assert image.size == image_size(tmp_path / "images" / "1_0.png")
