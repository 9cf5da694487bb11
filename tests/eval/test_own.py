"""Questions of the user's own, and texts for forgetting."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from eve_jax.data.image.patches import open_image
from eve_jax.errors import UserError
from eve_jax.eval.outcome import Outcome
from eve_jax.eval.own import OwnQuestions, OwnRows
from eve_jax.eval.report import table_lines
from eve_jax.eval.report.markdown import numbers_of
from eve_jax.eval.report.summary import summary_of
from eve_jax.eval.report.values import NONE
from eve_jax.eval.summary import progress_line
from eve_jax.eval.text_loss import TextLoss, TextLossTask
from tests.eval.data_files import png


def _record(**fields: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": "<image>\nHow many?"}, {"from": "gpt", "value": "3"}]
    return {"id": "q1", "image": "a.png", "conversations": turns} | fields


def _write(folder: Path, *records: Any) -> Path:
    path = folder / "mine.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    (folder / "a.png").write_bytes(png(7))
    return path


@pytest.mark.parametrize(
    ("metric", "gold", "output", "score", "parsed"),
    [
        ("exact", "A red kettle", " a red kettle. ", 1, True),
        ("exact", "-4", "4", 0, True),
        ("exact", "x", "", 0, False),
        ("contains", "Kettle", "It is a red kettle!", 1, True),
        ("contains", "cat", None, 0, False),
        ("numeric", "100", "about 1 of 104.9 %", 1, True),
        ("numeric", "100", "106", 0, True),
        ("numeric", "1,200", "$1,234.50", 1, True),
        ("numeric", "-4", "4", 0, True),
        ("numeric", "0", "0.01", 0, True),
        ("numeric", "5 kg", "5kg", 1, True),
        ("numeric", "3", "none", 0, False),
        ("numeric", "1000000", "1e6", 1, True),
        ("vqa", "two dogs", "The 2 dogs", 1, True),
        ("vqa", ["a", "cat", "cat", "dog"], "cat", (2 * (1 / 3) + 2 / 3) / 4, True),
        ("letter", "B", "The answer is (B).", 1, True),
        ("letter", "B", "**b**", 0, False),
    ],
)
def test_rules(metric: str, gold: Any, output: str | None, score: float, parsed: bool) -> None:
    field = "answers" if isinstance(gold, list) else "answer"
    row = _record(metric=metric, options=["one", "two"]) | {field: gold}
    task = OwnQuestions("mine")
    task.check(row)
    verdict = task.score(row, output)
    if metric == "vqa" and isinstance(gold, list):
        score = (2 / 3 + 1 / 3 + 1 / 3 + 2 / 3) / 4
    assert verdict.score == pytest.approx(score) and verdict.parsed is parsed


def test_a_file_of_questions(tmp_path: Path) -> None:
    plain = _record(id="q2", image=None, conversations=[{"from": "human", "value": "1 + 1?"}], answer="2")
    rows = OwnRows(_write(tmp_path, _record(), _record(), plain), metric="numeric")
    items = list(rows)
    assert [item.id for item in items] == ["q1", "q1#2", "q2"]
    assert open_image(items[0].images[0]).getpixel((0, 0)) == (7, 0, 0) and items[2].images == ()
    assert rows.task.name == "mine.own" and rows.task.content(items[0].row) == [0, "How many?"]
    assert [rows.task.prompt(item.row) for item in items] == ["<image>\nHow many?"] * 2 + ["1 + 1?"]
    verdicts = [rows.task.score(item.row, "3") for item in items]
    assert rows.task.aggregate([item.row for item in items], verdicts) == {"accuracy": 2 / 3}


@pytest.mark.parametrize(
    ("fields", "golds"),
    [
        ({"answer": 3}, ["3"]),
        ({"answer": 0.5}, ["0.5"]),
        ({"answers": ["3", 4]}, ["3", "4"]),
        ({"answer": "three", "answers": ["3", "three"]}, ["3", "three"]),
        ({}, ["3"]),
    ],
)
def test_which_answers_are_expected(fields: dict[str, Any], golds: list[str]) -> None:
    assert OwnQuestions("mine").golds(_record(**fields)) == golds


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (_record(metric="exakt"), "metric 'exakt' is unknown; known: exact"),
        (_record(metric="numeric", answer="three"), "the answer 'three' is no number"),
        (_record(answer=" "), "has no answer"),
        (_record(answers=[]), "has no answer"),
        (
            _record(answer=None),
            "answer is null; expected a text or a number; leave the field out to take the gpt turn",
        ),
        (_record(answer=True), "answer is true; expected a text or a number"),
        (_record(answer={"text": "3"}), 'answer is {"text": "3"}; expected a text or a number'),
        (_record(answers=["3", None]), "answers has null; expected a text or a number"),
        (
            _record(conversations=[{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": None}]),
            "the gpt turn has null; expected a text or a number",
        ),
        (_record(answer="4", answers=["3", "three"]), "answer is '4', which is none of answers; give one of the two"),
        (_record(conversations=[{"from": "human", "value": "?"}]), "has no answer"),
        (_record(conversations=[{"from": "gpt", "value": "3"}]), "has 0 questions"),
        (_record(image=["a.png", "a.png"]), "has 1 <image> for 2 images"),
        ({"id": "1", "answer": "2"}, "no field 'conversations'; docs/eval.md says"),
        ([], "not a JSON object"),
    ],
)
def test_a_bad_record_is_named(record: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        OwnRows(_write(tmp_path, _record(), record))
    assert "mine.jsonl#2" in str(error.value) and message in str(error.value)


def test_an_empty_file_and_an_unknown_setting(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no questions"):
        OwnRows(_write(tmp_path))
    with pytest.raises(UserError, match="metric 'f1' of mine: unknown"):
        OwnRows(_write(tmp_path, _record()), metric="f1")


def test_texts_for_forgetting(tmp_path: Path) -> None:
    path = tmp_path / "news.txt"
    path.write_text("One.\nStill one.\n  \n\n\nTwo.\n")
    task = TextLoss(path)
    assert task.name == "text_loss.news"
    assert list(task.passages()) == [("0", "One.\nStill one."), ("1", "Two.")]
    assert task.aggregate([6.0, 2.0], [3, 1]) == {
        "loss": 2.0,
        "perplexity": math.exp(2.0),
        "tokens": 4,
        "passages": 2,
    }
    path.write_text("\n \n")
    with pytest.raises(UserError, match=r"news\.txt: holds no text"):
        list(task.passages())


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    wrong = {
        "gone": ": no such file$",
        "folder": " is a folder; name a file$",
        "latin": ": cannot be read as UTF-8",
    }
    for name, about in wrong.items():
        with pytest.raises(UserError, match=rf"{name}\.txt{about}"):
            list(TextLoss(tmp_path / f"{name}.txt").passages())
    with pytest.raises(UserError, match=r"gone\.jsonl: no such file$"):
        OwnRows(tmp_path / "gone.jsonl")


def test_what_a_text_was_measured_on_is_said() -> None:
    """Tokens and passages in place of questions, on the terminal and in reports."""
    text = TextLoss(Path("news.txt"))
    outcome = Outcome(TextLossTask(text), aggregate=dict(text.aggregate([4000.0, 1000.0], [2000, 500])))
    assert progress_line(outcome) == "text_loss.news: 2.00 (2,500 tokens in 2 passages)"
    entry = summary_of(outcome)
    assert (entry["asks"], entry["size"]) == (False, "2,500 tokens in 2 passages")
    assert numbers_of(entry) == ["2,500 tokens in 2 passages"]
    head, line = table_lines([outcome])
    assert line.split()[:4] == ["text_loss", "news", "2.0000", NONE] and head.split()[3] == "n"
    failed = Outcome(TextLossTask(text), error="news.txt: cannot be read")
    assert progress_line(failed) == "text_loss.news: no numbers" and summary_of(failed)["size"] == "no text"


@pytest.mark.parametrize(
    ("options", "gold", "says"),
    [
        (4, "B", ""),
        (["x", "y"], "b", ""),
        (None, "F", ""),
        ("A B C", "B", "options is 'A B C'; expected a list of 2 to 26 options, or their number"),
        (1, "A", "options is 1; expected a list"),
        (True, "A", "options is True; expected a list"),
        (["x", "y"], "Z", "metric letter, but the answer 'Z' is none of AB"),
        (None, "hello", "metric letter, but the answer 'hello' is none of ABCDEF"),
    ],
)
def test_options_of_letters(options: object, gold: str, says: str, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": gold}]
    (file := tmp_path / "q.jsonl").write_text(
        json.dumps({"metric": "letter", "options": options, "conversations": turns})
    )
    if says:
        with pytest.raises(UserError, match=f"q.jsonl#1: {re.escape(says)}"):
            OwnRows(file)
    else:
        (item,) = OwnRows(file)
        assert OwnRows(file).task.score(item.row, gold.upper()).score == 1
