"""The report: what counts as right, the numbers, and the images drawn from them."""

import json
from pathlib import Path

import pytest
from PIL import Image

from eve_jax.demo.dataset import read_records
from eve_jax.demo.report import (
    draw_losses,
    draw_report,
    grey,
    is_right,
    stage_summary,
    summarise,
    write_report,
)
from eve_jax.errors import UserError


def test_grey_keeps_the_size() -> None:
    picture = grey(Image.new("RGB", (70, 130), "red"))
    assert picture.size == (70, 130)
    assert picture.getcolors() == [(70 * 130, (128, 128, 128))]


@pytest.mark.parametrize("given", ["STOP", " stop. ", "Stop.", "stop\n"])
def test_right_answers(given: str) -> None:
    assert is_right("STOP", given)


@pytest.mark.parametrize("given", ["", "STOPS", "the stop", "no"])
def test_wrong_answers(given: str) -> None:
    assert not is_right("STOP", given)


def _metrics(path: Path, losses: list[float]) -> Path:
    path.write_text(
        "".join(json.dumps({"step": i + 1, "loss": x, "seconds": 0.5}) + "\n" for i, x in enumerate(losses))
    )
    return path


def test_stage_summary(tmp_path: Path) -> None:
    summary = stage_summary(_metrics(tmp_path / "m.jsonl", [4.0, 3.0] + [1.0] * 10))
    assert summary == {"first_loss": 4.0, "last_loss": 1.0, "steps": 12, "seconds": 6.0}
    with pytest.raises(UserError, match="empty"):
        stage_summary(_metrics(tmp_path / "empty.jsonl", []))
    with pytest.raises(UserError, match=r"missing\.jsonl"):
        stage_summary(tmp_path / "missing.jsonl")


def test_summarise() -> None:
    def record(task: str, answer: str, kind: str) -> dict:
        return {"task": task, "answer": answer, "kinds": [kind], "words": []}

    heldout = [record("count", "two", "cat"), record("count", "one", "owl"), record("read", "STOP", "cat")]
    report = summarise(heldout, ["Two.", "two", "STOP"], ["one", "one", "EXIT"], {"stage1": {"first_loss": 5.0}})
    assert report["accuracy"] == pytest.approx(2 / 3, abs=1e-4)
    assert report["blind_accuracy"] == pytest.approx(1 / 3, abs=1e-4)
    assert report["per_task"] == {
        "count": {"n": 2, "accuracy": 0.5, "blind_accuracy": 0.5},
        "read": {"n": 1, "accuracy": 1.0, "blind_accuracy": 0.0},
    }
    assert (report["questions"], report["kinds"], report["words"]) == (3, 2, 0)
    assert report["stages"] == {"stage1": {"first_loss": 5.0}}
    with pytest.raises(UserError, match="3 questions, 2 answers"):
        summarise(heldout, ["a", "b"], ["a", "b", "c"], {})


def test_drawings(tiny: Path, tmp_path: Path) -> None:
    heldout = read_records(tiny / "heldout.jsonl")
    answers = [record["answer"] if i % 3 else "" for i, record in enumerate(heldout)]
    report = summarise(heldout, answers, ["" for _ in heldout], {})
    draw_report(report, heldout, answers, tiny / "images", tmp_path / "report.png")
    write_report(report, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == report
    with Image.open(tmp_path / "report.png") as sheet:
        colours = {colour for _, colour in sheet.getcolors(1 << 24) or []}
        assert sheet.width > 1200
        assert {(22, 138, 72), (206, 44, 50)} <= colours  # right and wrong answers
    stages = {name: _metrics(tmp_path / f"{name}.jsonl", [3.0, 2.0, 1.5, 1.2]) for name in ("llm", "stage1")}
    draw_losses(stages, tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as picture:
        assert picture.width > 600
    draw_losses({"short": _metrics(tmp_path / "one.jsonl", [2.0])}, tmp_path / "one.png")
    assert (tmp_path / "one.png").exists()
