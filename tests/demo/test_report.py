"""The report: what counts as right, the numbers, and the images drawn from them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from eve_jax.data.image.patches import open_image
from eve_jax.demo.assets import plain_font
from eve_jax.demo.report import _BARS, draw_losses, draw_report, losses_figure, stage_summary, summarize, write_report
from eve_jax.errors import UserError
from eve_jax.eval.live import blank
from eve_jax.eval.outcome import Answered, Outcome
from eve_jax.eval.own import OwnQuestions, OwnRows
from eve_jax.eval.sources.base import Item


def outcome(items: Sequence[Item], answers: Sequence[str]) -> Outcome:
    """The outcome of these answers to held-out questions."""
    task = OwnQuestions("heldout")
    pairs = zip(items, answers, strict=True)
    return Outcome(
        task, items, [Answered(i.id, task.prompt(i.row), text, task.score(i.row, text)) for i, text in pairs]
    )


def made_up(category: str, answer: str, kind: str, number: int) -> Item:
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": answer}]
    row = {"category": category, "answer": answer, "kinds": [kind], "words": [], "conversations": turns}
    return Item(str(number), row, (), f"heldout.jsonl#{number}")


def test_gray_keeps_the_size(tmp_path: Path) -> None:
    Image.new("RGB", (70, 130), "red").save(tmp_path / "red.png")
    (gray,) = blank([Item("1", {}, (str(tmp_path / "red.png"),), "x#1")])[0].images
    image = open_image(gray)
    assert image.size == (70, 130)
    assert image.getcolors() == [(70 * 130, (128, 128, 128))]


def is_right(expected: str, given: str) -> bool:
    return OwnQuestions("heldout").score(made_up("read", expected, "", 1).row, given).score == 1


@pytest.mark.parametrize("given", ["STOP", " stop. ", "Stop.", "stop\n"])
def test_right_answers(given: str) -> None:
    assert is_right("STOP", given)


@pytest.mark.parametrize("given", ["", "STOPS", "the stop", "no"])
def test_wrong_answers(given: str) -> None:
    assert not is_right("STOP", given)


def _metrics(folder: Path, losses: list[float], *evaluations: dict) -> Path:
    """A stage folder with these losses, and the lines of evaluations after them."""
    folder.mkdir()
    lines = [*({"step": i + 1, "loss": x, "seconds": 0.5} for i, x in enumerate(losses)), *evaluations]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_stage_summary(tmp_path: Path) -> None:
    summary = stage_summary(_metrics(tmp_path / "m", [4.0, 3.0] + [1.0] * 10, {"step": 12, "eval/loss": 9.0}))
    assert summary == {"first_loss": 4.0, "last_loss": 1.0, "steps": 12, "seconds": 6.0}
    with pytest.raises(UserError, match="empty"):
        stage_summary(_metrics(tmp_path / "empty", []))
    with pytest.raises(UserError, match=r"missing/metrics\.jsonl"):
        stage_summary(tmp_path / "missing")


def test_summary() -> None:
    heldout = [
        made_up("count", "two", "cat", 1),
        made_up("count", "one", "owl", 2),
        made_up("read", "STOP", "cat", 3),
    ]
    seen, unseen = outcome(heldout, ["Two.", "two", "STOP"]), outcome(heldout, ["one", "one", "EXIT"])
    report = summarize(seen, unseen, {"stage1": {"first_loss": 5.0}})
    assert report["accuracy"] == pytest.approx(2 / 3, abs=1e-4)
    assert report["blind_accuracy"] == pytest.approx(1 / 3, abs=1e-4)
    assert report["per_task"] == {
        "count": {"n": 2, "accuracy": 0.5, "blind_accuracy": 0.5},
        "read": {"n": 1, "accuracy": 1.0, "blind_accuracy": 0.0},
    }
    assert (report["questions"], report["kinds"], report["words"]) == (3, 2, 0)
    assert report["stages"] == {"stage1": {"first_loss": 5.0}}
    with pytest.raises(UserError, match="3 questions, 2 with blank images"):
        summarize(seen, outcome(heldout[:2], ["a", "b"]), {})
    failed = replace(seen, answered=[*seen.answered[:2], Answered("3", "", None, None, error="x#3: no image")])
    with pytest.raises(UserError, match="has no answer: x#3: no image"):
        summarize(failed, unseen, {})


def test_drawings(tiny: Path, tmp_path: Path) -> None:
    items = list(OwnRows(tiny / "heldout.jsonl", tiny / "images"))
    seen = outcome(items, [item.row["answer"] if i % 3 else "" for i, item in enumerate(items)])
    report = summarize(seen, outcome(items, ["" for _ in items]), {})
    draw_report(report, seen, tmp_path / "report.png")
    write_report(report, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == report
    with Image.open(tmp_path / "report.png") as sheet:
        colors = {color for _, color in sheet.getcolors(1 << 24) or []}
        assert sheet.width > 1200
        assert {(22, 138, 72), (206, 44, 50)} <= colors  # right and wrong answers
    stages = {name: _metrics(tmp_path / name, [3.0, 2.0, 1.5, 1.2]) for name in ("llm", "stage1")}
    draw_losses(stages, tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as image:
        width = image.width
    assert width > 600
    found = ({"step": s, "eval/loss": 2.0 - s / 4, "eval/heldout.own": 25.0 * s} for s in (2, 4))
    stages["stage3"] = _metrics(tmp_path / "stage3", [3.0, 2.0, 1.5, 1.2], *found)
    draw_losses(stages, tmp_path / "evaluated.png")
    with Image.open(tmp_path / "evaluated.png") as image:
        assert image.width == 2 * width, "a panel a stage, and one of the accuracy"
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 24) or []}
        assert (0xC8, 0x55, 0x3D) in colors, "the held-out loss"
    draw_losses({"short": _metrics(tmp_path / "one", [2.0])}, tmp_path / "one.png")
    assert (tmp_path / "one.png").exists()


def test_every_accuracy_is_inside_its_panel(tmp_path: Path) -> None:
    """Also that of a later stage, which is higher."""
    lines = ({"step": step, "eval/heldout.own": accuracy} for step, accuracy in ((1, 20.0), (1, 40.0), (2, 100.0)))
    low, *high = lines
    folders = {name: _metrics(tmp_path / name, [1.0], *found) for name, found in (("a", [low]), ("b", high))}
    bottom, top = losses_figure(folders).axes[-1].get_ylim()
    assert bottom == 0 and top > 100


def test_labels_end_before_the_bars() -> None:
    assert max(plain_font(13).getlength(label) for label in ("answered", "blank image")) < _BARS - 8
