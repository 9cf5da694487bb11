"""Scores of a stage are kept with what they are of; nothing is asked of a model here."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from eve_jax.errors import UserError
from eve_jax.eval.outcome import Answered, Outcome
from eve_jax.eval.own import OwnQuestions
from eve_jax.eval.task import Verdict
from eve_jax.experiments import score
from eve_jax.experiments.config import ExperimentConfig
from eve_jax.experiments.score import FOLDER, VALUES, Values, check_asked, score_stage, values_of, with_outcomes
from tests.experiments.made_up import section, values, write

STAGE: Any = SimpleNamespace(name="old_0_questions", data=SimpleNamespace(fit="shrink"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What models were opened, in place of opening them; their values are made up."""
    opened: list[tuple] = []

    def answered(eve: None, experiment: ExperimentConfig, out: Path, found: Values) -> Values:
        opened.append(("asked", experiment.answers))
        (out / "answers").mkdir(exist_ok=True)
        if (out / "answers" / "half").exists() or len(opened) != 2:
            return replace(found, scores=values(0, 0.5, 1, 1).scores)
        (out / "answers" / "half").touch()
        raise UserError("stopped")

    def opens(folder: Path, fit: str, mesh: str) -> None:
        opened.append((folder.name, fit, mesh))

    monkeypatch.setattr(score.EVE, "from_pretrained", opens)
    monkeypatch.setattr(score, "_text_losses", lambda eve, experiment: {"text": {"0": (2.0, 1)}})
    monkeypatch.setattr(score, "_answered", answered)
    return opened


def trained(workdir: Path, lineage: str) -> None:
    """A stage folder with a checkpoint of a lineage, without weights."""
    meta = workdir / STAGE.name / "checkpoints" / "8" / "meta"
    meta.mkdir(parents=True, exist_ok=True)
    (meta / "metadata").write_text(json.dumps({"lineage": lineage}))


def test_what_was_asked_is_kept_until_something_changes(
    tmp_path: Path, asked: list[tuple], capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "work", "a")
    with pytest.raises(UserError, match="stopped"):
        score_stage(section(), tmp_path / "work", STAGE)
    with pytest.raises(UserError, match="has no scores"):
        values_of(tmp_path / "work", STAGE.name)
    score_stage(section(), tmp_path / "work", STAGE)
    assert (tmp_path / "work" / FOLDER / STAGE.name / "answers" / "half").exists(), "the answers before are kept"
    assert asked[0] == (STAGE.name, "shrink", "") and asked[1] == ("asked", f"{tmp_path}/work/held.jsonl")
    kept = values_of(tmp_path / "work", STAGE.name)
    assert kept.scores and kept.texts == {"text": {"0": (2.0, 1)}}

    count = len(asked)
    score_stage(section(), tmp_path / "work", STAGE)
    shutil.move(tmp_path / "work", tmp_path / "moved")
    score_stage(section(), tmp_path / "moved", STAGE)
    score_stage(section(rows=3, seeds=5, chart="bars"), tmp_path / "moved", STAGE)
    assert len(asked) == count, "nothing that the answers follow from has changed"

    capsys.readouterr()
    for changes, lineage in ((section(max_new_tokens=7), "a"), (section(), "b")):
        trained(tmp_path / "moved", lineage)
        score_stage(changes, tmp_path / "moved", STAGE)
        assert len(asked) == (count := count + 2)
        assert f"{STAGE.name}: trained again or asked otherwise" in capsys.readouterr().out
    assert not (tmp_path / "moved" / FOLDER / STAGE.name / "answers" / "half").exists()


def test_other_processes_do_as_the_leader_says(
    tmp_path: Path, asked: list[tuple], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their copy of a work folder in a bucket has no scores."""
    trained(tmp_path, "a")
    monkeypatch.setattr(score, "from_leader", lambda name, make: True)
    score_stage(section(), tmp_path, STAGE)
    assert asked == [] and not (tmp_path / FOLDER).exists()


def test_texts_alone(tmp_path: Path, asked: list[tuple]) -> None:
    trained(tmp_path, "a")
    score_stage(section(), tmp_path, STAGE, texts_alone=True)
    score_stage(section(max_new_tokens=7), tmp_path, STAGE, texts_alone=True)
    assert asked == [(STAGE.name, "shrink", "")]
    assert not values_of(tmp_path, STAGE.name).scores
    assert (tmp_path / FOLDER / STAGE.name / VALUES).is_file()


def test_values_of_outcomes(capsys: pytest.CaptureFixture[str]) -> None:
    task = OwnQuestions("held")
    good = [
        Answered("a", "?", "cat", Verdict({}, 1.0, category="read")),
        Answered("b", "?", "dog", Verdict({}, 0.0)),
        Answered("c", "?", None, None, error="the image is damaged"),
    ]
    chosen: Any = [SimpleNamespace(task=task, digest="d")]
    items: Any = [None] * 3
    found = with_outcomes(Values(), chosen, [Outcome(task, items, good)])
    assert found.scores == {"held.own": {"a": 1.0, "b": 0.0}}
    assert found.categories == {"held.own": {"a": "read"}} and found.digests == {"held.own": "d"}
    assert "held.own: 1 question without a verdict; the first, the image is damaged" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"held\.own: no question has a score"):
        with_outcomes(Values(), chosen, [Outcome(task, items[:1], good[2:])])
    with pytest.raises(UserError, match=r"held\.own: no data"):
        with_outcomes(Values(), chosen, [Outcome(task, error="no data")])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tasks": "gqa"}, r"^config\.experiment\.data='': no such folder; .* bench=FOLDER"),
        ({"tasks": "gqa", "data": "WORKDIR/nowhere"}, r"^config\.experiment\.data='.*/nowhere': no such folder"),
        ({"tasks": "gqa", "data": "WORKDIR"}, r"^config\.experiment\.tasks: .*: no data of gqa"),
        ({"tasks": "gqua", "data": "WORKDIR"}, r"^config\.experiment\.tasks: .*gqua"),
        ({"tasks": "WORKDIR/lost.jsonl"}, r"^config\.experiment\.tasks: .*/lost\.jsonl"),
        ({"tasks": "WORKDIR/text.txt"}, r"^config\.experiment\.tasks: .* a text asks no questions"),
        ({"answers": "WORKDIR/lost.jsonl"}, r"/lost\.jsonl: no such records file; set config\.experiment\.answers"),
        ({"images": "WORKDIR/nowhere"}, r"/nowhere"),
        ({"mesh": "data:3,tensor:5"}, r"^config\.experiment\.mesh='data:3,tensor:5' does not fit"),
        ({"texts": "WORKDIR/lost.txt"}, r"/lost\.txt"),
        ({"texts": "WORKDIR/held.jsonl"}, r"^config\.experiment\.texts: .* is no text file"),
    ],
)
def test_what_is_asked_is_looked_for_before_anything_trains(tmp_path: Path, changes: dict, says: str) -> None:
    turns = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "This."}]
    (tmp_path / "held.jsonl").write_text(json.dumps({"id": "a", "conversations": turns}) + "\n")
    (tmp_path / "text.txt").write_text("A text.\n")
    check_asked(section(), tmp_path)
    with pytest.raises(UserError, match=says):
        check_asked(section(**changes), tmp_path)
    write(tmp_path, section())
    check_asked(section(**changes), tmp_path)
