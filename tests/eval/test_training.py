"""Tasks that are asked while a stage trains: their scores, and that nothing of the training changes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs import demo
from eve_jax.config.stage import Config
from eve_jax.data.image.patches import open_image
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.errors import UserError
from eve_jax.eval.live import blank, items_of, open_task, outcome_of, shortened
from eve_jax.eval.training import LiveTasks
from eve_jax.infer.api import EVE
from eve_jax.infer.parameters import shard_params
from eve_jax.recipe import train_stage
from eve_jax.sharding import make_mesh
from eve_jax.train.evaluation import Setting
from eve_jax.train.metrics import TIMED, read_evaluations, read_metrics
from eve_jax.weights.open import load_params
from tests.train.placing import placed, with_demo_data

STEPS = 2
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with the demo's data, own questions of it and a text."""
    folder = tmp_path_factory.mktemp("tasks")
    questions = with_demo_data(folder)["heldout"]
    lines = [*questions[:2], questions[-1]]  # the last one has two images
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


def tasks(work: Path) -> dict[str, Any]:
    """The section `eval` of a stage that asks the questions and measures the text after each step."""
    named = f"{work / 'asked.jsonl'},{work / 'words.txt'}"
    return {"tasks": named, "every": 1, "limit": 3, "rows": 4, "fit": "shrink", "max_new_tokens": 3}


@pytest.fixture(scope="module")
def trained(work: Path) -> Path:
    return train_stage(config(work, "asked", **tasks(work)), work, quiet=True)


@pytest.mark.slow
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


def measured(work: Path, trained: Path, init: Path, mesh: str = "") -> dict[str, float | None]:
    """What the tasks measure of the checkpoint `trained`, on a mesh, as of a stage that begins with `init`."""
    c = config(work, "measured", **tasks(work))
    c.init = str(init)
    given = Config.of(c)
    devices = make_mesh(mesh)
    setting = Setting(given, SampleRule.of(given), devices, work / "measured")
    cfg, params = load_params(trained)
    found = LiveTasks(setting).measure(shard_params(cfg, params, devices), lambda: False)
    assert found is not None
    return found


def test_questions_beyond_the_models_positions(work, trained, capsys):
    """The limit is that of the model that the stage begins with; a question beyond it is no wrong answer."""
    init = work / "limited"
    shutil.copytree(trained, init)
    eve = EVE.from_pretrained(trained, "shrink")
    opened = open_task(str(work / "asked.jsonl"), images=work / "data" / "images")
    items = items_of(opened)
    lengths = [
        len(eve.prompt(opened.task.message(item.row), [open_image(image) for image in item.images])) for item in items
    ]
    limit = max(lengths)
    beyond = items[lengths.index(limit)]
    (init / "hf_config.json").write_text(json.dumps({"max_position_embeddings": limit}))
    found = measured(work, trained, init)
    answered = outcome_of(eve, shortened(opened.task, 3), [i for i, n in zip(items, lengths, strict=True) if n < limit])
    assert found["eval/asked.own"] == answered.headline
    line = "warning: eval/asked.own: 1 of 3 questions were not answered; the first, "
    assert f"{line}{beyond.where}: {limit} tokens" in (said := capsys.readouterr().err)
    assert f"the model has {limit} positions" in said


ON_A_MESH = """
import json, sys
from pathlib import Path
from tests.eval.test_training import measured
work, trained = map(Path, sys.argv[1:3])
print(json.dumps(measured(work, trained, trained, sys.argv[3])))
"""


@pytest.mark.slow
def test_scores_on_a_mesh(work, trained):
    """Of 8 devices, of the weights that lie as in training."""
    flags = {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ON_A_MESH, str(work), str(trained), "data:2,fsdp:2,tensor:2"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | flags, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found, alone = json.loads(done.stdout.splitlines()[-1]), read_evaluations(trained)[-1]
    assert found["eval/asked.own"] == alone["eval/asked.own"]
    assert found["eval/text_loss.words"] == pytest.approx(alone["eval/text_loss.words"], rel=1e-5)


def test_an_outcome_and_the_blank_image_baseline(work, trained):
    eve = EVE.from_pretrained(trained, "shrink")
    opened = open_task(str(work / "asked.jsonl"), images=work / "data" / "images")
    items = items_of(opened)
    outcome = outcome_of(eve, opened.task, items, rows=4)
    assert [one.id for one in outcome.answered] == [item.id for item in items]
    assert all(one.verdict is not None and one.verdict.gold for one in outcome.answered)
    gray = blank(items)
    assert [len(item.images) for item in gray] == [1, 1, 2]
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
        ({"tasks": "mmme"}, r"config\.eval\.tasks: unknown task 'mmme'; did you mean mme\?"),
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
