"""The report of an experiment from what its points left: tables, words, chart; nothing is trained."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from eve_jax.errors import UserError
from eve_jax.experiments.config import Point
from eve_jax.experiments.gather import gather
from eve_jax.experiments.report import report
from eve_jax.experiments.score import Values
from tests.experiments.made_up import PASSAGES, QUESTIONS, keep, section, values, write


def test_points_and_names() -> None:
    experiment = section()
    assert experiment.points[:2] == [
        Point("old", 0, 3, "old_0_captions", "old_0_questions_3"),
        Point("old", 0, 0, "old_0_captions", "old_0_questions"),
    ]
    assert [point.arm for point in experiment.points[::2]] == ["old", "new", "old", "new"], "all arms of a seed first"
    assert experiment.trained == [f"{arm}_{seed}_captions" for seed in (0, 1) for arm in ("old", "new")]
    kinds = ["old_0_captions", "new_1_questions_3", "new_1_questions", "llm", "new_2_captions"]
    assert [experiment.kind(name) for name in kinds] == ["captions", "questions", "questions", "llm", "new_2_captions"]
    alone = section(curve="", steps=(), scored="sft")
    assert {point.trained for point in alone.points} == {""}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"arms": ("old", "old")}, r"config\.experiment\.arms=\('old', 'old'\): name each once"),
        ({"labels": {"old": "x"}}, r"config\.experiment\.labels is to name every one of config\.experiment\.arms"),
        ({"curve": ""}, r"config\.experiment\.steps are of a stage"),
        ({"tasks": ""}, r"config\.experiment\.tasks is empty"),
        ({"scored": "captions"}, r"config\.experiment\.steps=\(3,\): a point before the end is fine-tuned"),
        ({"sizes": {"captions": (1, 2)}}, r"config\.experiment\.sizes\.captions: expected width"),
        ({"sizes": {"captions": (0, 0, 0, 0)}}, r"config\.experiment\.sizes\.captions: 0 x 0 pixels with 0 text"),
        ({"sizes": {"captions": (9, 0, 1, 1)}}, r"config\.experiment\.sizes\.captions: 9 x 0 pixels"),
        ({"chart": "pie"}, r"config\.experiment\.chart='pie': expected one of curves, bars, scatter"),
    ],
)
def test_wrong_sections(changes: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        section(**changes)


def test_stages_that_are_missing() -> None:
    experiment = section()
    order = {point.scored for point in experiment.points} | {*experiment.trained, "llm"}
    experiment.check_stages(order)
    with pytest.raises(UserError, match=r"config\.order has no stage 'new_1_captions', which config\.exp"):
        experiment.check_stages(order - {"new_1_captions"})


def test_tables(tmp_path: Path) -> None:
    experiment = section()
    write(tmp_path, experiment)
    found = gather(experiment, tmp_path)
    assert found.tables["accuracy"][0]["new"].shape == (2, QUESTIONS)
    assert found.tables["accuracy"][3]["new"].mean() == pytest.approx(0.75)
    assert found.tables["answer_loss"][0]["old"].mean() == pytest.approx(0.9, abs=0.01)
    assert found.tables["text_loss"][0]["old"].shape == (2, PASSAGES)
    assert found.tables["text_loss"][0]["old"].mean() == pytest.approx(3.0)
    assert list(found.tables["curve_text_loss"]) == [0]
    assert found.samples == {arm: {3: 30.0, 0: 60.0} for arm in ("old", "new")}
    assert set(found.groups) == {"count", "read"} and len(found.groups["read"]["new"]) == 2


def test_tasks_weigh_alike_and_questions_that_a_point_lacks_are_left_out(tmp_path: Path) -> None:
    experiment = section(curve="", steps=(), scored="sft", texts="", before="")
    for point in experiment.points:
        large, small = {f"l{n}": 1.0 for n in range(30)}, {"s0": 0.0, "s1": 0.0}
        if point.arm == "new":
            del large["l0"]
        keep(tmp_path, point.scored, Values({"large": large, "small": small}))
    found = gather(experiment, tmp_path)
    assert found.left_out == 1
    assert found.tables["accuracy"][0]["old"].mean() == pytest.approx(0.5, abs=0.01)
    assert set(found.groups) == {"large", "small"}


def test_a_kind_of_question_of_which_an_arm_has_no_score(tmp_path: Path) -> None:
    experiment = section(curve="", steps=(), scored="sft", texts="", before="")
    for point in experiment.points:
        scores = {f"q{n}": 1.0 for n in range(12)}
        categories = {id: "read" if id == "q0" else "count" for id in scores}
        if point.arm == "new":
            del scores["q0"], categories["q0"]
        keep(tmp_path, point.scored, Values({"held.own": scores}, {"held.own": categories}))
    report("two", experiment, tmp_path)
    assert "| read | 100.0 \N{PLUS-MINUS SIGN} 0.0 (0.0) | - |" in (tmp_path / "two.md").read_text()


def test_points_without_a_common_question(tmp_path: Path) -> None:
    experiment = section(curve="", steps=(), scored="sft", texts="", before="")
    for point in experiment.points:
        keep(tmp_path, point.scored, Values({"held.own": {point.arm: 1.0}}))
    with pytest.raises(UserError, match=r"no question has a score at every point; see the answers in .*scores"):
        gather(experiment, tmp_path)


def test_points_that_cannot_be_compared(tmp_path: Path) -> None:
    experiment = section(curve="", steps=(), scored="sft", texts="", before="")
    for point in experiment.points[:-1]:
        keep(tmp_path, point.scored, values(0, 0.5, 1.0, 3.0))
    with pytest.raises(UserError, match=r"new_1_sft has no scores: rerun the recipe"):
        gather(experiment, tmp_path)
    other = Values({"held.own": {"q0": 1.0}}, digests={"held.own": "other"})
    keep(tmp_path, experiment.points[-1].scored, other)
    with pytest.raises(UserError, match="new_1_sft and old_0_sft were asked on different data"):
        gather(experiment, tmp_path)


@pytest.mark.parametrize("chart", ["curves", "bars", "scatter"])
def test_report(tmp_path: Path, chart: str, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = section(chart=chart)
    write(tmp_path, experiment)
    content = report("two", experiment, tmp_path)
    assert json.loads((tmp_path / "two.json").read_text()) == json.loads(json.dumps(content))
    text = (tmp_path / "two.md").read_text()
    assert re.search(r"\| EVEv2\.0 \(new\) \| 75\.0 \S 0\.0 \(0\.0\) \| 0\.\d{3} .* \| 51\.6 \|", text)
    assert "| EVEv1.0 (old) | 3 | 30 |" in text and "Text loss before the arms: 2.040 nats." in text
    assert "- It is small." in text
    (loss,) = content["differences"]["answer_loss"]
    assert loss["clear"] and loss["words"].startswith("new is below old by 0.5")
    said = capsys.readouterr().out
    for lines in content["differences"].values():
        for line in lines:
            assert line["words"] in text
            assert (line["words"] in said) == line["clear"], "what is printed is what is clear"
    with Image.open(tmp_path / "two.png") as image:
        assert image.width > 1500


def test_one_seed_claims_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = section(seeds=1)
    write(tmp_path, experiment)
    content = report("two", experiment, tmp_path)
    lines = [line for lines in content["differences"].values() for line in lines]
    assert lines and not any(line["clear"] for line in lines)
    assert all("with one seed nothing can be said of it" in line["words"] for line in lines)
    assert "One run with one seed: nothing can be said of differences." in capsys.readouterr().out
