"""The list of bad records: complete, without repetition, and with an end."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from eve_jax.data.plan.lengths import Dropped
from eve_jax.data.rows.bad_records import BadRecords
from eve_jax.errors import UserError


def entries(bad: BadRecords) -> list[dict[str, str]]:
    return [json.loads(line) for line in bad.path.read_text(encoding="utf-8").splitlines()]


def test_each_record_once_also_after_a_stop(tmp_path: Path) -> None:
    bad = BadRecords(tmp_path / "work", max_bad=5)
    bad.report_dropped([Dropped("a.jsonl:1", "x", "", "no conversations")])
    for _ in range(3):
        bad.report("a.jsonl:2", "y", "b.jpg", "missing file")
    assert bad.count == 1
    with bad.path.open("a") as file:
        file.write('{"where": "a.jsonl:9", "id"')  # killed while writing
    again = BadRecords(tmp_path / "work", max_bad=5)
    assert again.count == 1
    again.report("a.jsonl:2", "y", "b.jpg", "missing file")
    assert again.count == 1
    assert bad.path.read_text().count("\n") == 2


def test_a_line_cut_by_a_kill_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "bad_records.jsonl"
    path.write_text('{"where": "a:1", "id": "x", "image": "", "reason": "r", "found": "training"}\n{"where": "a:')
    bad = BadRecords(tmp_path, max_bad=5)
    bad.report("a:2", "é", "", "empty file")
    assert [entry["where"] for entry in entries(bad)] == ["a:1", "a:2"]
    assert bad.count == 2


def test_limit(tmp_path: Path) -> None:
    bad = BadRecords(tmp_path, max_bad=2)
    for n in range(9):
        bad.report(f"a:{n}", "x", "", "bad", found="planning")
    for n in range(10, 12):
        bad.report(f"a:{n}", "x", "", "bad")
    with pytest.raises(UserError, match=r"3 records broke while training, more than config\.data\.max_bad=2") as error:
        bad.report("a:12", "last", "z.png", "empty file")
    assert "the last: a:12 (record last): empty file (z.png); all" in str(error.value)
    assert len(entries(bad)) == 12
    with pytest.raises(UserError, match="3 records"):
        BadRecords(tmp_path, max_bad=2).report("a:12", "last", "z.png", "empty file")


def test_a_share_of_what_was_seen(tmp_path: Path) -> None:
    bad = BadRecords(tmp_path, max_bad=0.01)
    bad.report_dropped([Dropped(f"a:{n}", "x", "", "bad") for n in range(1000)], found="training")
    again = BadRecords(tmp_path, max_bad=0.01)  # a resumed run
    again.seen = 150_000
    assert (again.count, again.most) == (1000, 1500)
    again.report("a:1000", "x", "", "bad")
    again.seen = 90_000
    about = r"1,002 records broke while training, more than config\.data\.max_bad=0\.01 of the 90,000 records seen"
    with pytest.raises(UserError, match=about + " so far, and than 1,000; the last: a:1001"):
        again.report("a:1001", "x", "", "bad")


def test_many_are_listed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = BadRecords(tmp_path, max_bad=5)
    opened: list[Path] = []
    plain = Path.open

    def counted(path: Path, *arguments: Any, **more: Any) -> Any:
        opened.append(path)
        return plain(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", counted)
    bad.report_dropped([Dropped(f"a:{n % 500}", "x", "", "too long") for n in range(1000)])
    assert opened == [bad.path]
    assert [entry["where"] for entry in entries(bad)] == [f"a:{n}" for n in range(500)]


def test_threads(tmp_path: Path) -> None:
    bad = BadRecords(tmp_path, max_bad=1000)

    def work(offset: int) -> None:
        for n in range(100):
            bad.report(f"a:{(n + offset) % 100}", str(n), "", "bad")

    threads = [threading.Thread(target=work, args=(13 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bad.count == 100
    assert {entry["where"] for entry in entries(bad)} == {f"a:{n}" for n in range(100)}
    assert len(entries(bad)) == 100


def test_another_reason_at_a_known_place_is_listed_and_counted_once(tmp_path: Path) -> None:
    bad = BadRecords(tmp_path, max_bad=5)
    bad.report("a:1", "x", "b.jpg", "missing file")
    bad.report("a:1", "x", "b.jpg", "empty file")
    assert (bad.count, len(entries(bad))) == (1, 2)
    again = BadRecords(tmp_path, max_bad=5)
    again.report("a:1", "y", "b.jpg", "missing file")  # another record stands there now
    assert [(entry["id"], entry["reason"]) for entry in entries(again)] == [
        ("x", "missing file"),
        ("x", "empty file"),
        ("y", "missing file"),
    ]


def test_a_new_plan_replaces_the_entries_of_the_last(tmp_path: Path) -> None:
    bad = BadRecords(tmp_path, max_bad=5)
    bad.begin([Dropped("a:1", "x", "", "too long"), Dropped("a:2", "y", "", "too long")])
    bad.report("a:3", "z", "c.jpg", "empty file")
    bad.begin([Dropped("a:2", "w", "", "too long")], resumed=True)
    assert [(entry["where"], entry["id"]) for entry in entries(bad)] == [("a:2", "w"), ("a:3", "z")]
    assert bad.count == 1
    bad.begin([])
    assert (entries(bad), bad.count) == ([], 0)
    bad.path.write_text('spoiled\n{"where": "a:9"}\n[]\n')
    assert entries(BadRecords(tmp_path, max_bad=5)) == []


@pytest.mark.parametrize("there", [False, True])
def test_a_record_that_moved_is_listed_once(there: bool, tmp_path: Path) -> None:
    """Unless its old file is still there: then it may be another record."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new) if there else (new,):
        folder.mkdir()
        (folder / "r.jsonl").write_text("")
    bad = BadRecords(tmp_path / "work", max_bad=5)
    for folder in (old, new):
        bad.begin([], resumed=True)
        bad.report(f"{folder}/r.jsonl:1", "x", f"{folder}/a.png", "empty file")
        bad.report(f"{folder}/r.jsonl:2", "y", f"{folder}/a.png", "empty file")
    expected = [f"{folder}/r.jsonl:{n}" for folder in ((old, new) if there else (new,)) for n in (1, 2)]
    assert [entry["where"] for entry in entries(bad)] == expected
    assert bad.count == len(expected)


def test_entries_that_are_none(tmp_path: Path) -> None:
    good = {"where": "a:1", "id": "x", "image": "", "reason": "r", "found": "training"}
    lines = [
        good,
        good | {"where": ["a"]},
        good | {"id": 3},
        {"where": "a:2", "found": "training"},
        good | {"more": "x"},
    ]
    (tmp_path / "bad_records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    bad = BadRecords(tmp_path, max_bad=5)
    bad.begin([], resumed=True)
    assert (entries(bad), bad.count) == ([good], 1)


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad_records.jsonl").mkdir()
    about = r"bad_records\.jsonl: cannot be read or written \(Is a directory\); .* remove it"
    with pytest.raises(UserError, match=about):
        BadRecords(tmp_path, max_bad=5)


@pytest.mark.parametrize("kind", ["folder", "link to nothing", "no space"])
def test_what_cannot_be_written_is_named(kind: str, tmp_path: Path) -> None:
    bad = BadRecords(tmp_path, max_bad=5)
    if kind == "folder":
        bad.path.mkdir()
    elif kind == "link to nothing":
        bad.path.symlink_to(tmp_path / "gone" / "x")
    else:
        bad.path.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"bad_records\.jsonl: cannot be read or written \("):
        bad.report("a.jsonl:2", "y", "b.jpg", "missing file")
    if kind == "folder":
        with pytest.raises(UserError, match=r"bad_records\.jsonl: cannot be read or written \("):
            bad.begin([Dropped("a.jsonl:1", "x", "", "no conversations")])
