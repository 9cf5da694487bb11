"""What a stage folder says about its checkpoints: a dead run's files are replaced, those of a checkpoint are kept."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs import demo
from eve_jax import EVE
from eve_jax.checkpoint.own_tokenizer import own_tokenizer
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.errors import UserError
from eve_jax.infer.score_files import score_files
from eve_jax.train.metrics import read_metrics
from eve_jax.train.stage_files import TOKENIZER_FILES, write_stage_files
from eve_jax.train.trainer import train
from eve_jax.version import __version__
from eve_jax.weights.import_export import export_checkpoint
from tests.data.synthetic import byte_tokenizer
from tests.train.placing import demo_data, placed


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A data set, and in stage1/ what two steps of training on it left, saved after each."""
    folder = tmp_path_factory.mktemp("finished")
    demo_data(folder / "data")
    (folder / "stage1").mkdir()
    for name in TOKENIZER_FILES:  # what a run with another tokenizer left, which saved nothing
        (folder / "stage1" / name).write_text("{}")
    (folder / "stage1" / "metrics.jsonl").write_text('{"step": 7, "loss": 1.0}\n')
    line = {"where": "a:1", "id": "x", "image": "", "reason": "empty file", "found": "training"}
    (folder / "stage1" / "bad_records.jsonl").write_text(json.dumps(line) + "\n")
    train(config(folder), folder, quiet=True)
    return folder


@pytest.fixture
def work(finished, tmp_path):
    """A copy of it, with the last checkpoint gone."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "stage1" / "checkpoints" / "2")
    return tmp_path


def config(work: Path) -> ConfigDict:
    c = placed(demo.get_config("tiny").stages.stage1, work, "")
    c.train.steps, c.train.save_every = 2, 1
    c.data.rows = c.data.micro_batches = c.data.max_shapes = 1
    return c


def settings(**fields: Any) -> Any:
    """What `write_stage_files` reads of a config, with further fields."""
    return ConfigDict(fields | {"sizes": {"codes": 0}})


def rule_of(tokenizer: Tokenizer) -> SampleRule:
    return SampleRule(tokenizer, ImageRule(), "plain")


def files(folder: Path) -> set[str]:
    return {name for name in TOKENIZER_FILES if (folder / name).exists()}


def meta_path(work: Path) -> Path:
    return work / "stage1" / "checkpoints" / "1" / "meta" / "metadata"


def permuted(work: Path) -> Path:
    """A folder with the run's tokenizer, two of its tokens exchanged."""
    spec = json.loads((work / "data" / "tokenizer" / "tokenizer.json").read_text())
    vocab = spec["model"]["vocab"]
    a, b = sorted(vocab)[10:12]
    vocab[a], vocab[b] = vocab[b], vocab[a]
    (work / "permuted").mkdir()
    (work / "permuted" / "tokenizer.json").write_text(json.dumps(spec))
    return work / "permuted"


def test_what_a_dead_run_left_is_replaced(finished):
    stage = finished / "stage1"
    assert files(stage) == files(finished / "data" / "tokenizer")
    own = load_tokenizer(finished / "data" / "tokenizer")
    assert load_tokenizer(stage).fingerprint() == own.fingerprint()
    assert [line["step"] for line in read_metrics(stage)] == [1, 2]
    assert not (stage / "bad_records.jsonl").read_text()
    assert json.loads((stage / "config.json").read_text())["data"]["tokenizer"] == str(finished / "data" / "tokenizer")


def doors(work: Path) -> list[Callable[[Path], object]]:
    """All that takes the tokenizer of a stage's folder."""

    def next_stage(stage: Path) -> None:
        c = config(work)
        c.name, c.init, c.data.tokenizer = "next", str(stage), ""
        train(c, work, quiet=True)

    records = str(work / "data" / "captions.jsonl")
    return [
        EVE.from_pretrained,
        lambda stage: score_files(stage, records, work / "data" / "images", work / "scores.jsonl", quiet=True),
        lambda stage: export_checkpoint(stage, work / "out", quiet=True),
        next_stage,
    ]


@pytest.mark.parametrize("number", range(4))
def test_another_tokenizer_beside_the_checkpoints_is_refused(work, number):
    stage, door = work / "stage1", doors(work)[number]
    other = (permuted(work) / "tokenizer.json").read_bytes()
    (stage / "tokenizer.json").write_bytes(other)
    with pytest.raises(UserError, match=r"stage1/tokenizer\.json is not the tokenizer that the checkpoints next to it"):
        door(stage)
    assert not (work / "next" / "checkpoints").exists()
    assert not (work / "scores.jsonl").exists() and not (work / "out").exists()
    train(config(work), work, quiet=True)  # what the message says: it is written again
    own = load_tokenizer(work / "data" / "tokenizer")
    assert own_tokenizer(stage).fingerprint() == own.fingerprint()


def test_checkpoints_without_a_fingerprint_take_any_tokenizer(work):
    other = (permuted(work) / "tokenizer.json").read_bytes()
    (work / "stage1" / "tokenizer.json").write_bytes(other)
    meta_path(work).write_text(json.dumps({"plan": "x"}))
    assert own_tokenizer(work / "stage1").fingerprint() == load_tokenizer(work / "permuted").fingerprint()


def test_resumed_after_a_copy(work, finished):
    train(config(work), work, quiet=True)
    lines = [read_metrics(folder / "stage1")[1]["loss"] for folder in (work, finished)]
    assert lines[0] == lines[1]
    metas = [(folder / "stage1" / "checkpoints" / "2" / "meta" / "metadata").read_text() for folder in (work, finished)]
    assert json.loads(metas[0])["lineage"] == json.loads(metas[1])["lineage"]


def test_another_tokenizer_or_record_is_refused_and_nothing_changes(work):
    c = config(work)
    c.data.tokenizer = str(permuted(work))
    before = {p: p.read_bytes() for p in (work / "stage1").iterdir() if p.is_file() and p.name != "goodput.json"}
    with pytest.raises(UserError, match=r"permuted is not the tokenizer that its checkpoints were trained with"):
        train(c, work, quiet=True)
    records = work / "data" / "captions.jsonl"
    records.write_text(records.read_text().replace(" red ", " big "))
    with pytest.raises(UserError, match=r"the records of .*captions\.jsonl \(source 1\) are not those"):
        train(config(work), work, quiet=True)
    assert {p: p.read_bytes() for p in before} == before


def test_without_checkpoints_the_folder_is_anybodys(work):
    c = config(work)
    other = permuted(work)
    c.data.tokenizer = str(other)
    c.optim.lr = 0.5
    (work / "stage1" / "checkpoints" / "1").rename(work / "stage1" / "checkpoints" / "1.damaged")
    train(c, work, quiet=True)
    assert load_tokenizer(work / "stage1").fingerprint() == load_tokenizer(other).fingerprint()
    assert json.loads((work / "stage1" / "config.json").read_text())["optim"]["lr"] == 0.5


def test_a_checkpoint_of_an_earlier_version(work, capsys):
    meta = json.loads(meta_path(work).read_text())
    del meta["data"]
    meta_path(work).write_text(json.dumps(meta))
    (work / "stage1" / "checkpoints" / "1" / "manifest.json").unlink()
    (work / "stage1" / "tokenizer.json").rename(work / "kept.json")
    shutil.copy(permuted(work) / "tokenizer.json", work / "stage1" / "tokenizer.json")
    with pytest.raises(UserError, match=r"stage1/tokenizer\.json is not the tokenizer of config\.data\.tokenizer"):
        train(config(work), work, quiet=True)
    (work / "kept.json").replace(work / "stage1" / "tokenizer.json")
    train(config(work), work, quiet=True)
    assert "checkpoint 1 has no fingerprint of its data" in capsys.readouterr().out
    saved = json.loads((work / "stage1" / "checkpoints" / "2" / "meta" / "metadata").read_text())
    assert set(saved["data"]) == {"tokenizer", "template", "image_rule", "settings", "sources"}


class TestFiles:
    def test_of_another_kind(self, tmp_path):
        for name in TOKENIZER_FILES:
            (tmp_path / name).write_text("of another")
        write_stage_files(tmp_path, settings(a=1), rule_of(byte_tokenizer()), resumed=False, verified=False)
        assert files(tmp_path) == {"tokenizer.json"}
        assert json.loads((tmp_path / "config.json").read_text()) == {
            "a": 1,
            "sizes": {"codes": 0},
            "eve_jax_version": __version__,
        }

    def test_the_folder_itself_is_the_tokenizer(self, tmp_path):
        byte_tokenizer().save(tmp_path)
        (tmp_path / "merges.txt").write_text("of its own")
        write_stage_files(tmp_path, settings(), rule_of(load_tokenizer(tmp_path)), resumed=False, verified=False)
        assert files(tmp_path) == {"tokenizer.json", "merges.txt"}

    @pytest.mark.parametrize("state", ["gone", "cut"])
    def test_lost_beside_a_checkpoint(self, tmp_path, state, capsys):
        tokenizer = byte_tokenizer()
        if state == "cut":
            (tmp_path / "tokenizer.json").write_text("{")
        write_stage_files(tmp_path, settings(), rule_of(tokenizer), resumed=True, verified=True)
        assert load_tokenizer(tmp_path).fingerprint() == tokenizer.fingerprint()
        assert "written again" in capsys.readouterr().out
        write_stage_files(tmp_path, settings(), rule_of(tokenizer), resumed=True, verified=True)
        assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("data.template", "llama3", "template"),
        ("data.tokenizer", "nowhere", "nowhere"),
        ("data.records", "nowhere.jsonl", "nowhere.jsonl: no such records file"),
        ("data.images", "nowhere", "nowhere: no such folder"),
        ("init", "someone/model", "someone/model"),
    ],
)
def test_what_is_refused_before_anything_is_read_leaves_no_folder(field, value, says, finished, tmp_path):
    c = config(finished)
    c.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=says):
        train(c, tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs").exists()


def test_a_vocabulary_that_is_too_small_leaves_no_folder(finished, tmp_path):
    c = config(finished)
    c.model.vocab_size = 64
    with pytest.raises(UserError, match="vocab_size"):
        train(c, tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs").exists()
