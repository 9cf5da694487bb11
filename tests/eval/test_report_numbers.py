"""The numbers of reports: intervals, units, categories, the papers' figures, rows on which protocols disagree."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from eve_jax.eval import registry
from eve_jax.eval.outcome import Answered, Outcome
from eve_jax.eval.own import OwnQuestions
from eve_jax.eval.report.disagreements import disagreements_of
from eve_jax.eval.report.intervals import FEWEST, by_category, interval_of, value_of
from eve_jax.eval.report.papers import FIGURES, figures_of
from eve_jax.eval.report.summary import summary_of
from eve_jax.eval.task import Generation
from eve_jax.eval.units import Units, score_units, yes_no_units
from tests.eval.goldens import NAMES
from tests.eval.outcomes import outcome_of, recorded, with_protocol
from tests.eval.test_verdicts import ROWS, TABLE


@pytest.mark.parametrize("name", NAMES)
def test_units_give_the_headline(name: str) -> None:
    """The statistic that is drawn again is the headline, but for the digits that reference scorers round to."""
    outcome = recorded(name)
    value = value_of(outcome.task.units(*outcome.scored))
    assert value == pytest.approx(outcome.headline, abs=0.051)
    entry = summary_of(outcome)
    assert entry["headline"] == outcome.headline
    if entry["interval"]:
        assert entry["interval"][0] <= value <= entry["interval"][1]


@pytest.mark.parametrize(("right", "n"), [(50, 100), (300, 1000), (140_000, 200_000)])
def test_interval_of_a_proportion_is_that_of_the_normal_approximation(right: int, n: int) -> None:
    found = interval_of(score_units([1.0] * right + [0.0] * (n - right), [""] * n))
    share = right / n
    half = 1.96 * math.sqrt(share * (1 - share) / n)
    assert found == pytest.approx((100 * (share - half), 100 * (share + half)), abs=100 * 0.06 * half + 50 / n)


def test_interval_covers_the_truth_as_often_as_it_claims() -> None:
    random = np.random.default_rng(3)
    draws = random.random((150, 200)) < 0.7
    ends = [interval_of(score_units(draw.astype(float).tolist(), [""] * 200)) for draw in draws]
    covered = sum(low <= 70 <= high for low, high in filter(None, ends))
    assert 0.89 <= covered / len(draws) <= 0.99


def test_interval_does_not_depend_on_the_order_and_is_the_same_again() -> None:
    scores = [0.0, 0.3, 1.0, 1.0] * 20
    first = interval_of(score_units(scores, [""] * 80))
    assert first == interval_of(score_units(scores[::-1], [""] * 80)) == interval_of(score_units(scores, [""] * 80))


def test_no_interval_where_it_makes_no_sense() -> None:
    assert interval_of(score_units([], [])) is None
    assert interval_of(score_units([1.0, 0.0] * (FEWEST // 2 - 1), [""] * (FEWEST - 2))) is None
    assert interval_of(score_units([1.0, 0.0] * (FEWEST // 2), [""] * FEWEST)) is not None
    assert interval_of(score_units([1.0] * 500, [""] * 500)) is None
    lone = [("yes", "yes")] * 10 + [("no", "yes")] * 10
    assert interval_of(yes_no_units(lone, ["a"] * 19 + ["b"], "mean")) is None
    without_reference = Units(np.array([(5.0, 0.0)] * 20 + [(5.0, 1.0)]), [""] * 21)
    assert interval_of(without_reference) is None


def test_mme_draws_images_within_each_category() -> None:
    """Two questions of an image are one unit: 0, 50 or 200 points. The variance is the sum of the categories'."""
    rows: list[dict[str, Any]] = []
    outputs = []
    points = {"existence": [0, 50, 200, 200] * 10, "count": [0, 200] * 15}
    for category, images in points.items():
        for number, value in enumerate(images):
            for question in ("a?", "b?"):
                fields = {"question_id": f"{category}/{number}.png", "question": question, "category": category}
                rows.append({**fields, "answer": "Yes"})
                outputs.append("yes" if value == 200 or (value == 50 and question == "a?") else "no")
    entry = summary_of(outcome_of(registry.get("mme", "lmms"), rows, outputs))
    assert entry["units"] == {"kind": "images", "n": 70}
    assert entry["headline"] == pytest.approx(112.5 + 100)
    half = 1.96 * math.sqrt(sum(np.var(values) / len(values) for values in points.values()))
    low, high = entry["interval"]
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert entry["categories"]["existence"] == {
        "n": 80,
        "accuracy": pytest.approx(0.625),
        "value": 112.5,
        "interval": pytest.approx([112.5 - 27.2, 112.5 + 27.2], abs=2),
    }


def test_mmbench_draws_questions_with_their_rotations() -> None:
    entry = summary_of(recorded("mmbench_en.lmms_static"))
    assert (entry["n"], entry["units"]) == (72, {"kind": "question groups", "n": 22})
    parts = recorded("mmbench_en.lmms_static").aggregate["category_acc"]
    assert {name: part["value"] for name, part in entry["categories"].items() if part["value"] is not None} == (
        pytest.approx({name: 100 * share for name, share in parts.items()})
    )


def test_scienceqa_of_eve_draws_questions_with_an_image() -> None:
    outcome = recorded("scienceqa.eve")
    shown = sum(verdict.record["image"] for verdict in outcome.scored[1])
    assert summary_of(outcome)["units"] == {"kind": "questions with an image", "n": shown}


def test_pope_of_eve_is_the_mean_of_its_parts() -> None:
    outcome = recorded("pope.eve")
    parts = by_category(outcome.task.units(*outcome.scored))
    assert {name: value_of(units) for name, units in parts.items()} == pytest.approx(
        {name: 100 * outcome.aggregate[name]["f1"] for name in ("adversarial", "popular", "random")}
    )


def test_categories_have_names() -> None:
    assert "Scene Understanding" in summary_of(recorded("seed.eve"))["categories"]
    assert set(summary_of(recorded("seed.lmms"))["categories"]) >= set(summary_of(recorded("seed.eve"))["categories"])
    assert "other" in summary_of(recorded("vqav2.lmms"))["categories"]
    assert summary_of(recorded("vizwiz.eve"))["categories"] == {}


def test_counts_rates_and_errors() -> None:
    task = OwnQuestions("mine")
    rows = [
        {"id": str(n), "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a"}]}
        for n in range(20)
    ]
    outcome = outcome_of(task, rows, ["a"] * 12 + ["b"] * 5 + [""] * 3)
    lost = Answered("0", "?", None, None, error="image.png: missing file")
    assert outcome.answered[1].verdict is not None
    unjudged = replace(outcome.answered[1], verdict=outcome.answered[1].verdict.failed("judge: refused"))
    outcome = replace(outcome, answered=[lost, unjudged, *outcome.answered[2:]])
    rows_, verdicts = outcome.scored
    outcome = replace(outcome, aggregate=task.aggregate(rows_, verdicts), left_out={"video questions": 4})
    entry = summary_of(outcome)
    assert (entry["n"], entry["scored"], entry["headline"]) == (20, 18, pytest.approx(100 * 10 / 18))
    assert entry["errors"] == [
        {"id": "0", "where": "data#1", "error": "image.png: missing file"},
        {"id": "1", "where": "data#2", "error": "judge: refused"},
    ]
    assert entry["not_parsed"] == {"n": 3, "rate": 3 / 18, "ids": ["17", "18", "19"]}
    assert entry["left_out"] == {"video questions": 4}
    assert entry["throughput"] == {
        **{"seconds": 9.5, "answers": 19, "prompt_tokens": 1900, "tokens": 95},
        **{"questions_per_second": 2.0, "tokens_per_second": 10.0},
    }


def test_nothing_scored_has_no_headline() -> None:
    for name in NAMES:
        outcome = recorded(name)
        lost = [Answered(one.id, one.prompt, None, None, error="lost") for one in outcome.answered]
        for empty in (Outcome(outcome.task), replace(outcome, answered=lost), replace(outcome, error="no data")):
            entry = summary_of(empty)
            assert (entry["headline"], entry["interval"], entry["units"]) == (None, None, None)
            assert entry["scored"] == 0 and entry["not_parsed"]["rate"] is None


def test_a_scorer_that_raised_makes_no_errors_of_its_questions() -> None:
    outcome = recorded("gqa.lmms")
    answers = [replace(one, verdict=None) for one in outcome.answered]
    answers[3] = replace(answers[3], answer=None, error="image 3: missing file")
    entry = summary_of(replace(outcome, answered=answers, error="the scorer failed at question 5"))
    assert [error["error"] for error in entry["errors"]] == ["image 3: missing file"]


def test_no_interval_of_a_headline_that_is_not_the_mean_score() -> None:
    class Squared(OwnQuestions):
        def headline(self, aggregate: Any) -> float | None:
            return 100 * aggregate["accuracy"] ** 2

    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a"}]
    rows = [{"id": str(n), "conversations": turns} for n in range(40)]
    entries = [summary_of(outcome_of(kind("q"), rows, ["a", "b"] * 20)) for kind in (OwnQuestions, Squared)]
    assert [entry["headline"] for entry in entries] == [50, 25]
    assert entries[0]["interval"] and entries[1]["interval"] is None and entries[1]["units"] is None


def test_a_task_without_questions_has_its_number() -> None:
    class Loss(OwnQuestions):
        def headline(self, aggregate: Any) -> float | None:
            return aggregate["loss"]

    task = Loss("text")
    task.generation = Generation(0)
    entry = summary_of(Outcome(task, aggregate={"loss": 2.5}))
    assert (entry["headline"], entry["interval"], entry["n"]) == (2.5, None, 0)


def test_figures_are_those_of_the_papers() -> None:
    v2 = {name: (figures.v1, figures.v2) for name, figures in FIGURES.items() if "Table 2" in figures.source}
    assert v2 == {
        **{"mmmu": (32.6, 39.3), "mmbench_en": (52.3, 66.3), "seed": (64.6, 71.4), "mmvet": (25.7, 45.0)},
        **{"mme": (1628, 1709), "pope": (85.0, 87.6), "gqa": (62.6, 62.9), "scienceqa": (64.9, 96.2)},
        **{"textvqa": (56.8, 71.1), "chartqa": (59.1, 73.9), "ai2d": (61.0, 74.8)},
        **{"realworldqa": (None, 62.4), "ocrbench": (398, 702)},
    }
    assert {name for name, figures in FIGURES.items() if "unknown" in figures.remark} == {
        *("mmmu", "chartqa", "ai2d", "realworldqa", "ocrbench")
    }
    assert (figures_of("vqav2").v1, figures_of("vizwiz").v1) == (78.6, 51.1)
    assert {name for name in registry.MODULES if (figures_of(name).v1, figures_of(name).v2) == (None, None)} == {
        *("mmbench_cn", "llavabench", "qbench", "pope_adv", "pope_pop", "pope_random")
    }


@pytest.mark.parametrize("name", ["scienceqa", "seed"])
def test_same_output_two_verdicts_are_the_disagreements(name: str) -> None:
    """Of the outputs of the table, those with a 1 and a 0 for the two protocols are listed, and no others."""
    outputs = list(TABLE)
    columns = {key: number for number, key in enumerate(ROWS)}
    ids = [str(number) for number in range(len(outputs))]
    raw = [{**ROWS[name, "lmms"], "data_id": "x", "id": number, "question_id": number} for number in ids]
    tasks = [registry.get(name, protocol) for protocol in ("lmms", "eve")]
    outcomes = [outcome_of(task, [task.adapt(row) for row in raw], outputs) for task in tasks]
    (pair,) = disagreements_of(outcomes)
    signs = [TABLE[output].replace(" ", "") for output in outputs]
    expected = [
        number
        for number, sign in zip(ids, signs, strict=True)
        if (sign[columns[name, "lmms"]] == "1") != (sign[columns[name, "eve"]] == "1")
    ]
    assert [row["id"] for row in pair["rows"]] == expected and expected
    assert (pair["compared"], pair["other_prompt"], pair["same_answer"]) == (len(outputs), 0, len(outputs))
    first = pair["rows"][0]
    assert (first["same_answer"], first["expected"]) == (True, "A")
    answer, score = outputs[int(first["id"])], TABLE[outputs[int(first["id"])]].replace(" ", "")[columns[name, "lmms"]]
    assert first["protocols"]["lmms"]["answer"] == answer and first["protocols"]["lmms"]["score"] == float(score)


def test_other_prompts_are_not_compared() -> None:
    (pair,) = disagreements_of([recorded("textvqa.lmms"), recorded("textvqa.eve")])
    assert (pair["compared"], pair["other_prompt"], pair["rows"]) == (0, 61, [])
    (pair,) = disagreements_of([recorded("textvqa.lmms_ocr"), with_protocol("textvqa.lmms_ocr", "eve")])
    assert (pair["protocols"], pair["compared"]) == (["lmms_ocr", "eve"], 61)


def test_disagreements_are_of_questions_with_verdicts() -> None:
    lmms, eve = recorded("gqa.lmms"), with_protocol("gqa.lmms", "eve")
    (pair,) = disagreements_of([eve, lmms])
    gone = pair["rows"][0]["id"]
    answers = [Answered(a.id, a.prompt, None, None, error="lost") if a.id == gone else a for a in lmms.answered]
    (fewer,) = disagreements_of([eve, replace(lmms, answered=answers)])
    assert fewer["compared"] == pair["compared"] - 1 and fewer["rows"] == pair["rows"][1:]
    assert disagreements_of([eve, replace(lmms, error="failed")]) == []
    assert disagreements_of([recorded("mme.lmms"), recorded("gqa.lmms")]) == []
