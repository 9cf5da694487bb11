"""Tasks that are asked while a stage trains: their scores, and that nothing of the training changes."""

import json
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs import demo
from eve_jax.demo.dataset import write_dataset
from eve_jax.errors import UserError
from eve_jax.eval.live import blank, items_of, open_task, outcome_of
from eve_jax.infer.api import EVE
from eve_jax.recipe import train_stage
from eve_jax.train.metrics import TIMED, read_evaluations, read_metrics
from tests.train.placing import placed

STEPS = 2
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with the demo's data, own questions of it and a text."""
    folder = tmp_path_factory.mktemp("tasks")
    write_dataset(folder / "data", "tiny")
    questions = (folder / "data" / "heldout.jsonl").read_text().splitlines()
    lines = [*questions[:5], questions[-1]]  # the last one has two images
    (folder / "asked.jsonl").write_text("\n".join(lines))
    (folder / "words.txt").write_text("A cat on the left.\n\nA dog.\n")
    return folder


def config(work: Path, name: str, **evaluation: Any) -> ConfigDict:
    c = placed(demo.get_config("tiny").stages.stage2_2, work, "")
    c.name = name
    c.data.rows, c.data.micro_batches, c.data.max_shapes = 2, 1, 1
    c.train.steps, c.train.writers = STEPS, "none"
    c.eval.update(evaluation)
    return c


@pytest.fixture(scope="module")
def trained(work: Path) -> Path:
    tasks = f"{work / 'asked.jsonl'},{work / 'words.txt'}"
    given = {"tasks": tasks, "every": 1, "limit": 6, "rows": 4, "fit": "shrink", "max_new_tokens": 3}
    return train_stage(config(work, "asked", **given), work, quiet=True)


def test_bit_identical(work, trained):
    plain = train_stage(config(work, "plain"), work, quiet=True)
    lines = [[{k: v for k, v in line.items() if k not in TIMED} for line in read_metrics(f)] for f in (plain, trained)]
    assert lines[0] == lines[1]


def test_scores_are_those_of_the_checkpoint(work, trained):
    """By the API, a question at a time."""
    found = read_evaluations(trained)
    assert [line["step"] for line in found] == [1, 2]
    eve = EVE.from_pretrained(trained, "shrink")
    records = [json.loads(line) for line in (work / "asked.jsonl").read_text().splitlines()]
    right = []
    for record in records:
        images = record["image"] if isinstance(record["image"], list) else [record["image"]]
        paths = [work / "data" / "images" / image for image in images]
        given = eve.generate(record["conversations"][0]["value"], paths, max_new_tokens=3)
        right.append(given.strip().rstrip(".").casefold() == record["answer"].casefold())
    assert found[-1]["eval/asked.own"] == pytest.approx(100 * sum(right) / len(right))
    (texts := work / "texts.jsonl").write_text(
        "\n".join(
            json.dumps({"id": str(n), "conversations": [{"from": "gpt", "value": text}]})
            for n, text in enumerate(("A cat on the left.", "A dog."))
        )
    )
    assert found[-1]["eval/text_loss.words"] == pytest.approx(eve.score(texts, template="plain").loss, rel=1e-5)
    assert found[0]["eval/text_loss.words"] != found[1]["eval/text_loss.words"]


def test_an_outcome_and_the_blank_image_baseline(work, trained):
    eve = EVE.from_pretrained(trained, "shrink")
    opened = open_task(str(work / "asked.jsonl"), images=work / "data" / "images")
    items = items_of(opened)
    outcome = outcome_of(eve, opened.task, items, rows=4)
    assert [one.id for one in outcome.answered] == [item.id for item in items]
    assert all(one.verdict is not None and one.verdict.gold for one in outcome.answered)
    gray = blank(items)
    assert [len(item.images) for item in gray] == [1, 1, 1, 1, 1, 2]
    assert outcome_of(eve, opened.task, gray[:1], rows=4).failed == []


def test_a_question_that_cannot_be_asked_is_no_wrong_answer(work, trained):
    records = [json.loads(line) for line in (work / "asked.jsonl").read_text().splitlines()][:2]
    records[0]["image"] = "gone.png"
    (bad := work / "bad.jsonl").write_text("\n".join(map(json.dumps, records)))
    eve = EVE.from_pretrained(trained, "shrink")
    opened = open_task(str(bad), images=work / "data" / "images")
    outcome = outcome_of(eve, opened.task, items_of(opened), rows=2)
    assert [one.error for one in outcome.failed] == [f"{bad}#1: {outcome.failed[0].error.partition(': ')[2]}"]
    assert len(outcome.scored[1]) == 1
    with pytest.raises(UserError, match=r"bad\.own: no question has a verdict; the first: .*bad\.jsonl#1"):
        outcome_of(eve, opened.task, items_of(opened, 1), rows=2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tasks": "mmme"}, r"config\.eval\.tasks: mmme requires config\.eval\.data"),
        ({"tasks": "mmme", "data": "{work}"}, r"unknown task 'mmme'; did you mean mme\?"),
        ({"tasks": "mme", "data": "nowhere"}, r"nowhere: no such folder; set config\.eval\.data"),
        ({"tasks": "mme", "data": "{work}"}, "no data of mme"),
        ({"tasks": "mmvet", "data": "{work}"}, r"mmvet\.eve requires a judge"),
        ({"tasks": "{work}/nothing.jsonl"}, "nothing.jsonl"),
        ({"tasks": "{work}/asked.jsonl,{work}/../{name}/asked.jsonl"}, "two tasks are called asked.own"),
        (
            {"tasks": "{work}/words.txt", "protocol": "lmm"},
            r"config\.eval\.protocol=.?lmm.?: expected one of eve, lmms",
        ),
    ],
)
def test_what_is_refused(work, changes, says):
    given = {k: v.format(work=work, name=work.name) for k, v in changes.items()}
    with pytest.raises(UserError, match=says):
        train_stage(config(work, "refused", **given), work, quiet=True)
    assert not (work / "refused").exists()


def test_a_model_without_image_input_is_asked_text_alone(work):
    c = placed(demo.get_config("tiny").stages.llm, work, "")
    c.eval.tasks = str(work / "asked.jsonl")
    with pytest.raises(UserError, match=r"asked\.jsonl#1 has an image, and a model of config\.stage=llm takes none"):
        train_stage(c, work / "runs", quiet=True)
