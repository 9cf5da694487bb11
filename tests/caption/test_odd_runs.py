"""Runs over records that nobody expects: nothing to ask, ends of lines of other kinds, files that somebody removed."""

import json
from pathlib import Path

from benchmarks.caption_server import describe
from eve_jax.data.sources.records import open_records
from tests.caption.scenes import files_of, rejected, run, write_images


def test_nothing_to_ask_about(tmp_path: Path) -> None:
    records = write_images(tmp_path / "in", 3, {number: {"image": "gone.jpg"} for number in range(3)})
    funnel, endpoint = run(records, tmp_path / "out")
    assert funnel["rejected"] == {"read": {"image": 3}} and not endpoint.received
    assert json.loads((tmp_path / "out" / "usage.json").read_text())["busy_seconds"] == 0
    assert "missing file" in rejected(tmp_path / "out")["r2"][2]


def test_other_ends_of_lines_in_a_caption(tmp_path: Path) -> None:
    """What Python takes for the end of a line besides a line feed is part of a caption, and of an id."""
    ends = "\u2028 \x85 \u2029 \x0b \x0c \x1c \r\n"
    records = write_images(tmp_path / "in", 3, {1: {"id": f"one{ends}two"}})
    funnel, _ = run(records, tmp_path / "out", lambda asked: describe(asked).replace(" ", f" {ends} ", 1))
    assert funnel["kept"] == 3
    found = open_records(str(tmp_path / "out"))
    assert found[1].id == f"one{ends}two" and all(ends in record.turns[0].text for record in found)


def test_records_that_somebody_removed_are_written_again(tmp_path: Path) -> None:
    records = write_images(tmp_path / "in", 20)
    run(records, tmp_path / "out")
    whole = files_of(tmp_path / "out")
    for name in ("00001.images", "00000.records"):
        (tmp_path / "out" / name).unlink()
        _, endpoint = run(records, tmp_path / "out")
        assert not endpoint.received and files_of(tmp_path / "out") == whole
