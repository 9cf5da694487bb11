"""Scoring answers without a model: our files, lmms-eval's samples, plain lines; judges whose replies are kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from eve_jax.errors import UserError
from eve_jax.eval import registry
from eve_jax.eval.answers import Answers
from eve_jax.eval.chosen import Choice
from eve_jax.eval.judge import JudgeFailed, Question
from eve_jax.eval.kept_judge import MOST_FAILED, KeptJudge
from eve_jax.eval.outcome import Answered
from eve_jax.eval.recorded import open_recorded
from eve_jax.eval.rescore import Rescore
from eve_jax.eval.summary import failures
from tests.eval.data_files import write_hub
from tests.eval.goldens import differences, golden


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def samples(name: str, data: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines as lmms-eval writes them for the rows of a reference file."""
    pairs = enumerate(zip(data["prompts"], data["outputs"], strict=True))
    return [{"doc_id": n, "input": prompt, "filtered_resps": said, "target": ""} for n, (prompt, said) in pairs]


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("mme.lmms", "mme"), ("mmbench_en.lmms_static", "mmbench_en_dev_static"), ("ai2d.lmms", "ai2d")],
)
def test_samples_of_lmms_eval(name: str, theirs: str, tmp_path: Path) -> None:
    """Give the reference's numbers, in any order of the lines."""
    write_hub(tmp_path, name.partition(".")[0])
    data = golden(name)
    path = write(tmp_path / "run" / f"20260101_000000_samples_{theirs}.jsonl", samples(name, data)[::-1])
    for place in (path, path.parent):
        (outcome,) = Rescore([place], Choice((), tmp_path, "")).run()
        assert outcome.task.name == name and not outcome.failed
        assert differences(data["aggregate"], outcome.aggregate) == []
        records = [a.verdict.record for a in outcome.answered if a.verdict]
        expected = [{k: v for k, v in row.items() if k != "kind"} for row in data["per_row"]]
        assert differences(expected, records) == []


def test_rows_of_samples_are_those_of_the_data(tmp_path: Path) -> None:
    """Also where some, videos, are left out: numbers are of all rows."""
    write_hub(tmp_path, "seed")
    data = golden("seed.lmms")
    path = write(tmp_path / "samples_seedbench.jsonl", samples("seed.lmms", data))
    (outcome,) = Rescore([path], Choice((), tmp_path, "")).run()
    assert not outcome.failed and outcome.left_out["video questions"] == 6
    assert outcome.aggregate["seed_image"] == pytest.approx(data["aggregate"]["seed_image"], abs=1e-9)


def test_failed_requests_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_hub(tmp_path, "mme")
    data = golden("mme.lmms")
    lines = samples("mme.lmms", data)
    lines[0]["filtered_resps"] = ["[LMMS_EVAL_REQUEST_FAILED after 5 retries] D"]
    lines[1]["input"] = "Something else?"
    lines[2]["filtered_resps"] = "x" * 100_000
    lines[3]["filtered_resps"] = ""
    lines[4:] = [*lines[5:], lines[5] | {"doc_id": 4321}]
    (outcome,) = Rescore([write(tmp_path / "samples_mme.jsonl", lines)], Choice((), tmp_path, "")).run()
    reasons = [a.error for a in outcome.failed]
    assert len(reasons) == 3 and not outcome.error
    assert "the request failed: [LMMS_EVAL_REQUEST_FAILED" in reasons[0]
    assert "doc_id 1 was asked something else than" in reasons[1]
    assert "no answer in" in reasons[2]
    assert [outcome.answered[n].verdict is not None for n in (2, 3)] == [True, True]
    (line,) = failures([outcome])
    assert line.startswith(f"mme.lmms: 3 of {len(outcome.items)} questions have no verdict")
    assert "1 answer to no question: 4321" in capsys.readouterr().err
    assert outcome.left_out == {"answers to no question": 1}


def test_plain_lines(tmp_path: Path) -> None:
    """By id, and where several questions have one, by id and prompt, as EVE's scripts write them."""
    write_hub(tmp_path, "mme")
    rows, data = golden("mme.eve")["rows"], golden("mme.eve")
    pairs = list(zip(rows, data["outputs"], strict=True))
    lines = [{"question_id": row["question_id"], "prompt": row["text"], "text": said or ""} for row, said in pairs]
    path = write(tmp_path / "merge.jsonl", lines)
    (outcome,) = Rescore([path], Choice(["mme"], tmp_path, "eve")).run()
    assert not outcome.failed and differences(data["aggregate"], outcome.aggregate) == []
    with pytest.raises(UserError, match=r"merge\.jsonl: name the one task .*--tasks=NAME"):
        Rescore([path], Choice((), tmp_path, "eve")).run()
    with pytest.raises(UserError, match="score it under one protocol, not under both"):
        Rescore([path], Choice(["mme"], tmp_path, "both")).run()
    write(path, [{"id": "1"}])
    with pytest.raises(UserError, match=r"merge\.jsonl#1: no answer or text"):
        Rescore([path], Choice(["mme"], tmp_path, "eve")).run()
    with pytest.raises(UserError, match="no such file or folder"):
        Rescore([tmp_path / "none"], Choice(["mme"], tmp_path, "eve")).run()


def test_own_questions(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": "100"}]
    own = write(tmp_path / "mine.jsonl", [{"id": n, "conversations": turns, "metric": "numeric"} for n in "ab"])
    plain = write(tmp_path / "said.jsonl", [{"id": "a", "answer": "about 104"}, {"id": "b", "answer": "90"}])
    (outcome,) = Rescore([plain], Choice([str(own)])).run()
    assert outcome.aggregate == {"accuracy": 0.5}


def ours(out: Path, name: str, said: dict[str, str]) -> Path:
    """A folder of ours with answers to questions."""
    task = registry.get(*name.split("."))
    prompts = {task.row_id(row): task.prompt(row) for row in golden(name)["rows"]}
    answers = Answers.open(out / "answers" / f"{name}.jsonl")
    for id, answer in said.items():
        answers.add(Answered(id, prompts[id], answer, None))
    return out


class Flaky:
    """A judge that fails when it is told to."""

    model = "flaky"

    def __init__(self) -> None:
        self.asked = 0
        self.fails = False

    def ask(self, question: Question) -> str:
        self.asked += 1
        if self.fails:
            raise JudgeFailed("no reply")
        return "0.5"


def test_a_judge_is_asked_once(tmp_path: Path) -> None:
    """Its failures are errors; a second scoring asks about these alone, a third needs no judge."""
    write_hub(tmp_path, "mmvet")
    rows = golden("mmvet.lmms")["rows"][:6]
    out = ours(tmp_path / "out", "mmvet.lmms", {row["question_id"]: f"say {n}" for n, row in enumerate(rows)})
    judge = Flaky()

    def again(given: Any) -> Any:
        (outcome,) = Rescore([out], Choice((), tmp_path), limit=6, judge=given).run()
        return outcome

    judge.fails = True
    outcome = again(judge)
    assert outcome.error and judge.asked == MOST_FAILED
    assert len(outcome.failed) == 6 and not outcome.scored[0]
    judge.fails = False
    outcome = again(judge)
    assert outcome.headline == 50 and not outcome.failed and judge.asked == MOST_FAILED + 6
    kept = out / "answers" / "mmvet.lmms.judge.jsonl"
    ids = [json.loads(line)["id"] for line in kept.open()]
    assert ids == [row["question_id"] for row in rows]
    kept.write_bytes(kept.read_bytes()[:-9])
    assert len(again(None).failed) == 1
    assert again(judge).headline == 50 and judge.asked == MOST_FAILED + 7
    assert again(None).headline == 50


def test_replies_of_another_judge_do_not_count(tmp_path: Path) -> None:
    first, second = KeptJudge(tmp_path / "f", Flaky()), Flaky()
    assert first.about(["a"]).ask(Question("?", facts={"row": 0})) == "0.5"
    second.model = "other"
    assert KeptJudge(tmp_path / "f", second).ask(Question("?")) == "0.5"
    assert second.asked == 1
    assert KeptJudge(tmp_path / "f", None).model == "other"
    with pytest.raises(JudgeFailed, match="no reply of a judge is kept"):
        KeptJudge(tmp_path / "f", None, "third").ask(Question("?"))


def test_long_and_empty_answers_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A last line that a kill has cut is left out, not removed: scoring changes no answers."""
    write_hub(tmp_path, "vqav2")
    rows = golden("vqav2.lmms")["rows"][:3]
    ids = [str(row["question_id"]) for row in rows]
    out = ours(tmp_path / "out", "vqav2.lmms", {ids[0]: "long " * 20_000, ids[1]: "", ids[2]: "yes"})
    path = out / "answers" / "vqav2.lmms.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    before = path.read_bytes()
    (outcome,) = Rescore([out], Choice((), tmp_path), tmp_path / "again", limit=3).run()
    assert [a.verdict is not None and a.verdict.parsed for a in outcome.answered] == [True, False, False]
    assert [bool(a.error) for a in outcome.answered] == [False, False, True]
    assert path.read_bytes() == before
    assert "its last line is not whole; it is left out" in capsys.readouterr().err
    assert json.loads((tmp_path / "again" / "report.json").read_text())
    assert json.loads((tmp_path / "again" / "submissions" / "vqav2.lmms.json").read_text())[1]["answer"] == ""


def test_answers_beyond_the_limit_and_to_no_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Are told apart: those to questions after the first N are counted, those to none are named, too."""
    write_hub(tmp_path, "vqav2")
    rows = golden("vqav2.lmms")["rows"]
    lines = [{"question_id": row["question_id"], "answer": "yes"} for row in rows[:5]]
    path = write(tmp_path / "said.jsonl", [*lines, {"id": "nobody", "answer": "no"}])
    (outcome,) = Rescore([path], Choice(["vqav2"], tmp_path, "lmms"), limit=3).run()
    assert len(outcome.items) == 3 and not outcome.failed
    assert outcome.left_out == {"answers to no question": 1, "answers to questions after the first 3": 2}
    assert capsys.readouterr().err == f"warning: {path}: 1 answer to no question: nobody\n"
    (outcome,) = Rescore([write(path, lines)], Choice(["vqav2"], tmp_path, "lmms"), limit=3).run()
    assert outcome.left_out == {"answers to questions after the first 3": 2}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"id": "a", "answer": None}, 'answer is null, not a text; write "" for an empty answer, or remove the line'),
        ({"id": "a", "text": 104}, "text is 104, not a text; write what the model said as a text in quotes"),
        ({"id": "a", "answer": ["x"]}, r'answer is \["x"\], not a text'),
        ({"id": None, "answer": "x"}, "no id or question_id, a text or a whole number"),
        (
            {"id": "a", "prompt": "?", "answer": None, "verdict": None, "error": ""},
            "answer is null, not a text",
        ),
    ],
)
def test_a_line_that_is_no_answer(line: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"said.jsonl#1: {says}"):
        open_recorded(write(tmp_path / "said.jsonl", [line]))


def test_a_task_that_no_file_is_of(tmp_path: Path) -> None:
    write_hub(tmp_path, "vqav2")
    out = ours(tmp_path / "out", "vqav2.lmms", {str(golden("vqav2.lmms")["rows"][0]["question_id"]): "yes"})
    with pytest.raises(UserError, match=r"--tasks=mme applies to plain files and to answers to questions of your own"):
        Rescore([out], Choice(["mme"], tmp_path)).run()


def test_a_second_answer_that_differs_is_refused(tmp_path: Path) -> None:
    lines = [{"id": "1", "answer": "yes"}, {"id": "1", "answer": "yes"}, {"id": "1", "answer": "no"}]
    assert len(open_recorded(write(tmp_path / "same.jsonl", lines[:2]))[0].places) == 1
    with pytest.raises(UserError, match=r"two\.jsonl#3: a second answer to 1, which differs from the first; keep one"):
        open_recorded(write(tmp_path / "two.jsonl", lines))
