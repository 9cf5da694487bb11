"""Runs next to each other: scores, and differences on the questions that both have verdicts on."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from eve_jax.errors import UserError
from eve_jax.eval.outcome import Outcome
from eve_jax.eval.report import write_reports
from eve_jax.eval.report.compare import compare_lines, difference
from tests.eval.outcomes import ABOUT, recorded, with_protocol
from tests.launcher import launch


def run(folder: Path, outcome: Outcome) -> Path:
    """Write what an evaluation leaves of an outcome."""
    write_reports(folder, [outcome], ABOUT)
    lines = [json.dumps(asdict(answered), default=str) for answered in outcome.answered]
    write_lines(folder, outcome.task.name, lines)
    return folder


def write_lines(folder: Path, name: str, lines: list[str]) -> None:
    (folder / "answers").mkdir(exist_ok=True, parents=True)
    (folder / "answers" / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))


def scores(folder: Path, name: str, by_id: Mapping[str, float | None]) -> Path:
    """Write a file of answers with these scores; None stands for a failed request."""
    verdicts = {id: None if s is None else {"score": s, "error": ""} for id, s in by_id.items()}
    write_lines(folder, name, [json.dumps({"id": id, "verdict": verdict}) for id, verdict in verdicts.items()])
    return folder


def test_runs_are_shown_next_to_each_other(tmp_path: Path) -> None:
    better = recorded("gqa.lmms")
    worse = with_protocol("gqa.lmms", "eve")
    one = run(tmp_path / "one", replace(worse, task=better.task, aggregate={"exact_match": 15 / 45}))
    two = run(tmp_path / "two", replace(better, digest="d2"))
    head, first, second, note = compare_lines([one, two])
    assert head.split()[:4] == ["task", "protocol", "run", "score"]
    assert first.split() == ["gqa", "lmms", str(one), "33.3", "20.0", "to", "46.7", "–", "–", "–"]
    assert second.split()[:8] == ["gqa", "lmms", str(two), "51.1", "35.6", "to", "66.7", "+17.8"]
    assert second.endswith("45") and note == "note: gqa.lmms: the runs were asked on different data"


def test_difference_is_paired(tmp_path: Path) -> None:
    """Scores that rise together differ with certainty, however far they spread; what is not common does not count."""
    first = {str(n): float(n % 2) for n in range(400)}
    second = {id: 1.0 if int(id) % 10 == 0 else score for id, score in first.items()}
    one = scores(tmp_path / "one", "gqa.lmms", first | {"only": 1.0, "lost": 1.0})
    two = scores(tmp_path / "two", "gqa.lmms", second | {"lost": None})
    found = difference(one, two, "gqa.lmms")
    assert found and found.value == pytest.approx(10) and found.n == 400 and found.interval
    half = 196 * math.sqrt(0.1 * 0.9 / 400)
    assert found.interval == pytest.approx((10 - half, 10 + half), abs=0.3)
    again = difference(two, one, "gqa.lmms")
    assert again and again.value == pytest.approx(-10)
    assert difference(one, tmp_path, "gqa.lmms") is None


@pytest.mark.parametrize("name", ["mme.lmms", "mmbench_en.eve"])
def test_questions_that_are_scored_together_are_drawn_together(tmp_path: Path, name: str) -> None:
    """Two equal answers of a pair are one observation: the interval is wider by the root of two."""
    ids = [(f"{n}/a.png:Is it {k}:1?", n) for n in range(200) for k in (0, 1)]
    if name == "mmbench_en.eve":
        ids = [(str(n + 1_000_000 * k), n) for n in range(200) for k in (0, 1)]
    one = scores(tmp_path / "one", name, {text: 0.0 for text, _ in ids})
    two = scores(tmp_path / "two", name, {text: float(n % 4 == 0) for text, n in ids})
    found = difference(one, two, name)
    assert found and found.interval and found.n == 400
    assert (found.interval[1] - found.interval[0]) / 2 == pytest.approx(196 * math.sqrt(0.25 * 0.75 / 200), rel=0.06)


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    one = run(tmp_path / "one", recorded("gqa.lmms"))
    with pytest.raises(UserError, match="two or more folders"):
        compare_lines([one])
    with pytest.raises(UserError, match=r"two/report.json: no such file"):
        compare_lines([one, tmp_path / "two"])
    two = run(tmp_path / "two", recorded("gqa.lmms"))
    with (two / "answers" / "gqa.lmms.jsonl").open("a") as file:
        file.write("{")
    with pytest.raises(UserError, match=r"gqa.lmms.jsonl#46: not an answer with its verdict"):
        compare_lines([one, two])
    (two / "report.json").write_text('{"tasks": {"gqa.lmms": {"headline": 3}}}')
    with pytest.raises(UserError, match=r"two/report.json: not a report of an evaluation"):
        compare_lines([one, two])


def test_the_command(tmp_path: Path) -> None:
    one, two = (run(tmp_path / name, recorded("gqa.lmms")) for name in ("one", "two"))
    done = launch("launch.eval", "compare", str(one), str(two))
    assert (done.returncode, done.stdout.splitlines()) == (0, compare_lines([one, two])), done.stderr
    for folders, says in (([one], "two or more"), ([one, tmp_path], "report.json")):
        done = launch("launch.eval", "compare", *map(str, folders))
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and says in done.stderr
