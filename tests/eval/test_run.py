"""Evaluations of a tiny model: each task, resuming, and what spoils one question or one task and no more."""

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from eve_jax import EVE
from eve_jax.errors import UserError
from eve_jax.eval import ask, evaluate, registry
from eve_jax.eval.chosen import Choice
from eve_jax.eval.outcome import Outcome
from eve_jax.eval.run import Run, run_tasks
from eve_jax.eval.summary import failures
from eve_jax.eval.tasks.mme import MmeLmms
from eve_jax.infer.batches import Ask
from tests.eval.data_files import png, write_hub, write_official
from tests.eval.goldens import NAMES, golden
from tests.eval.short_answers import KILLED_AT, canned, short
from tests.launcher import launch

SAME_PROMPT = ("gqa", "pope", "scienceqa", "seed", "vizwiz", "vqav2", "llavabench")


class Fixed:
    """A judge that always says the same."""

    model = "fixed"

    def ask(self, question: Any) -> str:
        return "0.5 8"


def counted(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., Any]) -> list[Ask]:
    """Let `answer` answer; the list of what it is asked."""
    every: list[Ask] = []

    def counting(engine: Any, asks: Sequence[Ask], *rest: Any) -> Any:
        every.extend(asks)
        return answer(engine, asks, *rest)

    monkeypatch.setattr(ask, "answer_all", counting)
    return every


@pytest.fixture
def asked(eve: EVE, monkeypatch: pytest.MonkeyPatch) -> list[Ask]:
    """Every answer is the letter A; the list of what was asked."""
    return counted(monkeypatch, canned(eve.tokenizer.encode("A")))


def lines(out: Path, task: str) -> list[dict[str, Any]]:
    """The lines of a task's answers by id, without what differs from run to run."""
    found = [json.loads(line) for line in (out / "answers" / f"{task}.jsonl").read_text().splitlines()]
    return sorted(({k: v for k, v in line.items() if k != "seconds"} for line in found), key=lambda line: line["id"])


@pytest.mark.parametrize("name", [name for name in registry.MODULES if not name.startswith("pope_")])
def test_each_task(name: str, eve: EVE, asked: list[Ask], tmp_path: Path) -> None:
    """Under both protocols from one folder; what both ask alike is asked once, with the longer limit."""
    write_hub(tmp_path, name)
    both = evaluate(eve, name, tmp_path, tmp_path / "out", "both", limit=3, judge=Fixed())
    assert [one.task.protocol.partition("_")[0] for one in both] == ["eve", "lmms"]
    for one in both:
        assert not one.error and not one.failed and len(one.answered) == 3
        task = registry.get(name, one.task.protocol)
        expected = golden(next(n for n in (one.task.name, f"{name}.lmms", f"{name}.lmms_judge") if n in NAMES))
        assert {a.prompt for a in one.answered} <= {task.prompt(task.adapt(row)) for row in expected["rows"]}
        assert [a.answer for a in one.answered] == ["A"] * 3
        if not task.needs_judge:
            assert [a.verdict for a in one.answered] == [task.score(item.row, "A") for item in one.items]
        else:
            assert one.headline == {"mmvet": 50.0, "llavabench": 1600.0}[name]
        assert [line["verdict"]["score"] for line in lines(tmp_path / "out", one.task.name)] == [
            a.verdict.score for a in sorted(one.answered, key=lambda a: a.id) if a.verdict
        ]
    if name in SAME_PROMPT:
        longest = max(one.task.generation.max_new_tokens for one in both)
        assert len(asked) == 3 and {one.max_new_tokens for one in asked} <= set(range(1, longest + 1))
    images = [item for one in both for item in one.items if item.images]
    assert {len(one.prompt.grids) for one in asked} == {len(item.images) for item in images}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report


def test_a_marker_in_a_question_is_text(eve: EVE, asked: list[Ask], tmp_path: Path) -> None:
    """Of benchmarks always; own questions follow the rule of records."""
    task = registry.get("mme", "lmms")
    row = golden("mme.lmms")["rows"][0] | {"question": "Is <image> a tag, \\<image> another?"}
    image = eve.prompt(task.message(row), [tmp_path / "a.png"]) if (tmp_path / "a.png").write_bytes(png()) else None
    assert image is not None and len(image.grids) == 1
    said = eve.tokenizer.decode([i for i in image.ids.tolist() if i >= 0])
    assert "Is <image> a tag, \\<image> another?" in said


@pytest.mark.slow
def test_a_killed_run_resumes(hf: Path, eve: EVE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it had not been killed, with another batch size; what was answered is not asked again."""
    write_hub(tmp_path, "mme")
    out = tmp_path / "killed"
    flags = {"checkpoint": hf, "tasks": "mme", "protocol": "both", "data": tmp_path, "out": out, "limit": 6}
    flags |= {"rows": 2, "fit": "shrink", "max_size": 32}
    process = command(flags, **{KILLED_AT: "6"})
    assert process.returncode == -9, process.stderr
    cut = (out / "answers" / "mme.lmms.jsonl").read_bytes()
    assert not cut.endswith(b"\n")

    monkeypatch.setattr(ask, "answer_all", short)
    (whole,) = evaluate(eve, "mme", tmp_path, tmp_path / "whole", "lmms", limit=6, rows=3)
    every = counted(monkeypatch, short)
    both = evaluate(eve, "mme", tmp_path, out, "both", limit=6, rows=3)
    assert len(every) == 6 - 2  # both protocols ask the same; of the third question one answer was cut off
    assert lines(out, "mme.lmms") == lines(tmp_path / "whole", "mme.lmms")
    assert [a.verdict for a in both[1].answered] == [a.verdict for a in whole.answered]
    assert both[1].aggregate == whole.aggregate
    assert [line["id"] for line in map(json.loads, (out / "answers" / "mme.lmms.jsonl").open())] == [
        item.id for item in whole.items
    ]

    every.clear()
    more = evaluate(eve, "mme", tmp_path, out, "lmms", limit=8, rows=3)
    assert len(every) == 2 and len(more[0].answered) == 8


def command(flags: dict[str, Any], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run launch.eval with short answers."""
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    return launch("tests.eval.short_answers", *arguments, **environment)  # type: ignore[arg-type]


def test_what_spoils_one_spares_the_rest(
    eve: EVE, asked: list[Ask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing image, a prompt that is too long, a scorer that raises, a file that was cut off."""
    for name in ("mme", "gqa"):
        write_hub(tmp_path, name)
    write_official(tmp_path / "pope", "pope")  # has no image files
    rows = [json.loads(line) for line in (tmp_path / "pope" / "eve_pope_test.jsonl").open()]
    for row in rows[1:]:
        path = tmp_path / "pope" / "val2014" / row["image"]
        path.parent.mkdir(exist_ok=True)
        if row["image"] != rows[0]["image"]:
            path.write_bytes(png())
    long = "word " * 200
    turns = [{"from": "human", "value": long}, {"from": "gpt", "value": "A"}]
    own = tmp_path / "mine.jsonl"
    own.write_text("".join(json.dumps({"id": n, "conversations": t}) + "\n" for n, t in (("long", turns),)))
    with own.open("a") as file:
        file.write(json.dumps({"id": "fine", "conversations": [turns[0] | {"value": "Which?"}, turns[1]]}) + "\n")
    write_hub(tmp_path, "textvqa")
    cut = next((tmp_path / "lmms-lab-encoder" / "textvqa").rglob("*.parquet"))
    cut.write_bytes(cut.read_bytes()[:-50])

    def raising(self: Any, row: Any, output: Any) -> Any:
        if row["question_id"] == golden("mme.lmms")["rows"][2]["question_id"]:
            raise RuntimeError("boom")
        return score(self, row, output)

    score = MmeLmms.score
    monkeypatch.setattr(MmeLmms, "score", raising)
    names = f"mme,textvqa,pope,gqa,{own}"
    found = {one.task.name: one for one in evaluate(eve, names, tmp_path, tmp_path / "out", "lmms", limit=9)}
    assert found["mme.lmms"].error.startswith("the scorer failed at question ")
    assert "RuntimeError: boom" in found["mme.lmms"].error and "parquet#3" in found["mme.lmms"].error
    assert "not a whole Parquet file" in found["textvqa.lmms"].error
    missing = [a for a in found["pope.lmms"].answered if a.error]
    assert missing and all("missing file" in a.error and "eve_pope_test.jsonl#" in a.error for a in missing)
    assert all(a.answer is None and a.verdict is None for a in missing)
    assert len(found["pope.lmms"].scored[0]) == 9 - len(missing)
    assert not found["gqa.lmms"].failed and found["gqa.lmms"].headline == 0
    mine = found["mine.own"]
    assert mine.answered[0].error.startswith(f"{own}#1: 1")
    assert mine.aggregate == {"accuracy": 1.0}
    said = failures(list(found.values()))
    assert [line.partition(":")[0] for line in said] == ["mme.lmms", "textvqa.lmms", "pope.lmms", "mine.own"]
    assert len(lines(tmp_path / "out", "mme.lmms")) == 9  # the answers are kept

    monkeypatch.setattr(MmeLmms, "score", score)
    for row in rows:
        (tmp_path / "pope" / "val2014" / row["image"]).write_bytes(png())
    asked.clear()
    again = {one.task.name: one for one in evaluate(eve, "mme,pope", tmp_path, tmp_path / "out", "lmms", limit=9)}
    assert not failures(list(again.values()))
    assert len(asked) == len(missing)


def test_the_command_ends_with_status_1(hf: Path, tmp_path: Path) -> None:
    """After everything is done and written."""
    turns = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "A"}]
    records = [{"id": "1", "conversations": turns}, {"id": "2", "image": "no.png", "conversations": turns}]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "text.txt").write_text("A first passage.\n\nA second one, which is longer.\n")
    flags: dict[str, Any] = {"checkpoint": hf, "tasks": f"{tmp_path}/mine.jsonl,{tmp_path}/text.txt"}
    process = command(flags | {"out": tmp_path / "out"})
    assert process.returncode == 1, process.stdout + process.stderr
    assert "mine.own: 1 of 2 questions have no verdict" in process.stderr and "no.png" in process.stderr
    assert process.stderr.count("error:") == 1 and "Traceback" not in process.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report
    loss = json.loads((tmp_path / "out" / "answers" / "text_loss.text.json").read_text())
    assert loss["tokens"] > 40 and 0 < loss["loss"] < 20


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    """Before a model is loaded, and nothing is written."""
    with pytest.raises(UserError) as caught:
        Choice(["mmvet", "gqx", "mme.lmms_ocr", "gqa", "no.jsonl", "no.txt"], tmp_path).open()
    message = str(caught.value)
    for part in (
        "unknown task 'gqx'; did you mean gqa?",
        "task mme has no protocol 'lmms_ocr'; it has eve, lmms",
        "no data of gqa",
        "no data of mmvet",
        "no.jsonl: no such file",
        "no.txt: no such file",
    ):
        assert part in message
    with pytest.raises(UserError, match="--data is empty: name the folder"):
        Choice(["mme"]).open()
    with pytest.raises(UserError, match="--tasks is empty"):
        Choice([]).open()


def test_answers_of_something_else_are_not_mixed(
    hf: Path, eve: EVE, asked: list[Ask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hub(tmp_path, "mme")
    out = tmp_path / "out"
    evaluate(eve, "mme", tmp_path, out, limit=2)
    other = EVE(eve.engine, eve.rule, positions=4)
    with pytest.raises(UserError, match=r"changed: the model's positions \(512 in run\.json, now 4\); choose another"):
        evaluate(other, "mme", tmp_path, out, limit=2)
    params = eve.engine.params
    name = next(iter(params))
    monkeypatch.setitem(params, name, params[name] + 1)
    with pytest.raises(UserError, match=r"changed: the model's weights "):
        evaluate(eve, "mme", tmp_path, out, limit=2)
    monkeypatch.undo()
    path = write_hub(tmp_path / "other", "mme")
    path.rename(path.with_name("test-00000-of-00002.parquet"))
    path.with_name("test-00001-of-00002.parquet").write_bytes(
        path.with_name("test-00000-of-00002.parquet").read_bytes()
    )
    with pytest.raises(UserError, match=r"changed: mme\.eve: data "):
        evaluate(eve, "mme", tmp_path / "other", out, limit=2)
    before = (out / "answers" / "mme.eve.jsonl").read_text()
    (out / "answers" / "mme.eve.jsonl").write_text("{}\n" + before)
    with pytest.raises(UserError, match=r"mme\.eve\.jsonl: not a file of answers"):
        evaluate(eve, "mme", tmp_path, out, limit=2)
    (out / "run.json").unlink()
    with pytest.raises(UserError, match=r"has answers, but no run\.json"):
        evaluate(eve, "mme", tmp_path, out, limit=2)


def test_what_a_model_cannot_be_asked(eve: EVE, asked: list[Ask], tmp_path: Path) -> None:
    write_hub(tmp_path, "mme")
    with pytest.raises(UserError, match=r"no trained image input, so it cannot be asked mme\.eve"):
        evaluate(EVE(eve.engine, eve.rule, sees=False), "mme", tmp_path)
    with pytest.raises(UserError, match=r"mmvet\.eve needs a judge: give --judge"):
        write_hub(tmp_path, "mmvet")
        evaluate(eve, "mmvet", tmp_path)
    with pytest.raises(UserError, match="a second file of questions called mine"):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            turns = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "A"}]
            (tmp_path / folder / "mine.jsonl").write_text(json.dumps({"conversations": turns}) + "\n")
        evaluate(eve, [str(tmp_path / folder / "mine.jsonl") for folder in ("a", "b")])
    assert asked == []


def test_nothing_is_asked_twice_in_one_call(eve: EVE, asked: list[Ask], tmp_path: Path) -> None:
    write_hub(tmp_path, "gqa")
    found: list[Outcome] = evaluate(eve, "gqa,gqa.eve,gqa_testdev.lmms", tmp_path, limit=2)
    assert [one.task.name for one in found] == ["gqa.eve", "gqa.lmms"]
    assert len(asked) == 2
    assert run_tasks(eve, [], Run()) == []
