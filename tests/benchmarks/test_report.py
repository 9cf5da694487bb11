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
    return {"began": began, "load": [0.1, 1.0], "commit": "abc", "figures": figures}


def test_the_readme_has_the_tables_of_the_results() -> None:
    text = report.README.read_text(encoding="utf-8")
    assert "<!-- results: images -->" in text
    assert rendered(text) == text, "run python -m benchmarks.report --render"


def test_every_benchmark_is_there_and_ends_with_json() -> None:
    """By its own flag, or always."""
    for name, benchmark in BENCHMARKS.items():
        source = (report.HERE / f"{benchmark.arguments.split()[0]}.py").read_text(encoding="utf-8")
        assert "json.dumps(" in source, name
        assert ("--json" in benchmark.arguments) == ('"json", False' in source), name


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
    (folder / "results" / "2026-01-03.json").write_text("{")
    with pytest.raises(UserError, match=r"2026-01-03\.json: is no file of results"):
        newest()


def test_runs_are_kept_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    lacking = Benchmark("x", ("no_such_package",))
    monkeypatch.setattr(
        report, "BENCHMARKS", {name: Benchmark(name) for name in ("good", "bad", "other")} | {"lacking": lacking}
    )

    def measured(name: str, benchmark: Benchmark) -> dict[str, Any]:
        if name == "bad":
            raise UserError("bad: it failed")
        return result(name, 1.0)

    monkeypatch.setattr(report, "measured", measured)
    assert not report.run_all([])
    said = capsys.readouterr()
    assert "lacking: not here, it requires the package no_such_package" in said.out
    assert "error: bad: it failed" in said.err
    (file,) = (folder / "results").iterdir()
    assert [*json.loads(file.read_text())["results"]] == ["good", "other"]
    assert report.run_all(["good"])
    assert [*json.loads(file.read_text())["results"]] == ["good", "other"]
    with pytest.raises(UserError, match="nothing: no such benchmark; there are good, bad, other, lacking"):
        report.run_all(["nothing"])


def test_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last line is read, whatever comes before; one without, or with another status, is one line."""
    monkeypatch.setattr(report.sys, "executable", "/bin/echo")
    with pytest.raises(UserError, match=r"the last line of .* --json is no JSON"):
        report.measured("data", Benchmark("data --json"))
    monkeypatch.setattr(report.sys, "executable", "/bin/false")
    with pytest.raises(UserError, match="ended with status 1"):
        report.measured("data", Benchmark("data --json"))
