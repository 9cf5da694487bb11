"""Tables of benchmarks/README.md are those of the results; results are kept as each benchmark ends."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.report import BENCHMARKS, Benchmark, newest, rendered
from eve_jax.errors import UserError

ABOUT = {"processor": "A B(R) 9", "cores": 2}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "README", tmp_path / "README.md")
    monkeypatch.setattr(report, "machine", lambda: ABOUT)
    return tmp_path


def result(began: str, rate: float) -> dict[str, Any]:
    figures = {"images_per_core_s": {"8x8": {"pillow": 2.0, "ours": rate, "torch": 1.0}}}
    return {"began": began, "load": [0.1, 1.0], "commit": "abc", "holds": True, "figures": figures}


def test_the_readme_has_the_tables_of_the_results() -> None:
    text = report.README.read_text(encoding="utf-8")
    assert "<!-- results: images -->" in text
    assert rendered(text) == text, "run python -m benchmarks.report --render"


def test_those_that_are_known_are_there_and_end_with_json() -> None:
    """By its own flag, or always; by itself, or by what prints tables of kept rows."""
    shown = (report.HERE / "rows.py").read_text(encoding="utf-8")
    for name, benchmark in BENCHMARKS.items():
        source = (report.HERE / f"{benchmark.arguments.split()[0]}.py").read_text(encoding="utf-8")
        source += shown if "rows.show(" in source else ""
        assert "print(json.dumps(" in source and "indent" not in source, f"{name}: in one line"
        assert ("--json" in benchmark.arguments) == ('"json", False' in source or '"--json", ' in source), name


def test_the_newest_result_of_each_is_rendered(folder: Path) -> None:
    (folder / "results").mkdir()
    for day, rate in (("2026-01-02", 6.0), ("2026-01-01", 5.0)):
        file = report.result_file(ABOUT, day)
        assert file.name == f"{day}-a-b-r-9-2-cores.json"
        file.write_text(json.dumps({"machine": ABOUT, "results": {"images": result(f"{day} 10:00", rate)}}))
    block = "<!-- results: images -->\nold\n<!-- end -->"
    text = rendered(f"before\n{block}\nafter | 1 |\n")
    assert "2026-01-02, 2 cores of A B(R) 9, load 0.1 before and 1 after, commit abc:" in text
    assert "| **packed uint8 rows (eve_jax)** | 6.0 (6.00) |" in text
    assert text.startswith("before\n<!-- results: images -->\n") and text.endswith("<!-- end -->\nafter | 1 |\n")
    assert rendered(text) == text
    with pytest.raises(UserError, match="results: train_memory: there is no such result"):
        rendered(block.replace("images", "train_memory"))
    with pytest.raises(UserError, match="results: nothing: there is no such table"):
        rendered(block.replace("images", "nothing"))
    by_hand = block.replace("results", "by hand")
    assert rendered(by_hand) == rendered(block), "the first result takes the place of a table by hand"
    kept = by_hand.replace("images", "train_memory")
    assert rendered(kept) == kept
    with pytest.raises(UserError, match="by hand: nothing: there is no such table"):
        rendered(by_hand.replace("images", "nothing"))
    for damaged, said in (("{", "is not valid JSON"), ('{"results": []}', "is no file of results")):
        (folder / "results" / "2026-01-03.json").write_text(damaged)
        with pytest.raises(UserError, match=rf"2026-01-03\.json:? {said}"):
            newest()


def test_runs_are_kept_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    lacking = Benchmark("x", ("no_such_package",))
    monkeypatch.setattr(
        report,
        "BENCHMARKS",
        {name: Benchmark(name) for name in ("good", "bad", "other", "missed")} | {"lacking": lacking},
    )

    def measured(name: str, benchmark: Benchmark) -> dict[str, Any]:
        if name == "bad":
            raise UserError("bad: it failed")
        return result(name, 1.0) | {"holds": name != "missed"}

    monkeypatch.setattr(report, "measured", measured)
    assert not report.run_all(["good", "bad", "other", "lacking"])
    said = capsys.readouterr()
    assert "lacking: not here, it requires the package no_such_package" in said.out
    assert "error: bad: it failed" in said.err
    (file,) = (folder / "results").iterdir()
    assert [*json.loads(file.read_text())["results"]] == ["good", "other"]
    assert report.run_all(["good"])
    assert [*json.loads(file.read_text())["results"]] == ["good", "other"]
    assert not report.run_all(["missed"]), "kept, and said"
    assert "missed: its figures are not what they are held to" in capsys.readouterr().err
    assert [*json.loads(file.read_text())["results"]] == ["good", "other", "missed"]
    with pytest.raises(UserError, match="nothing: no such benchmark; there are good, bad, other, missed, lacking"):
        report.run_all(["nothing"])


def test_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last line is read, whatever comes before; one without is one line. Missed goals are figures, too."""
    command = tmp_path / "command"
    monkeypatch.setattr(report.sys, "executable", str(command))
    for line, status, holds in (("[1]", 0, True), ('{"a": 1}', 1, False)):
        command.write_text(f"#!/bin/sh\necho a table\necho '{line}'\nexit {status}\n")
        command.chmod(0o755)
        found = report.measured("data", Benchmark("data --json"))
        assert (found["figures"], found["holds"]) == (json.loads(line), holds)
    for line, status, said in (
        ("a table", 0, "data --json has no JSON as its last line"),
        ("3", 0, "has no JSON as its last line"),
        ("a table", 1, "ended with status 1"),
        ("[1]", 2, "ended with status 2"),
    ):
        command.write_text(f"#!/bin/sh\necho '{line}'\nexit {status}\n")
        with pytest.raises(UserError, match=said):
            report.measured("data", Benchmark("data --json"))
