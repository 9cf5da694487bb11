"""Bad records and images in a training run: left out and listed, or masked and counted; too many stop it."""

import json
import shutil
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import demo
from eve_jax.errors import UserError
from eve_jax.train import trainer
from eve_jax.train.metrics import read_metrics
from eve_jax.train.shared_data import open_data_together
from eve_jax.train.trainer import train
from tests.train.placing import demo_data, placed


@pytest.fixture
def work(tmp_path):
    demo_data(tmp_path / "data")
    return tmp_path


def config(work: Path, **overrides: int) -> ConfigDict:
    c = placed(demo.get_config("tiny").stages.stage1, work, "")
    c.train.steps = 3
    c.data.rows = 2
    c.data.micro_batches = 1
    c.data.max_shapes = 1
    for name, value in overrides.items():
        c.data[name] = value
    return c


def listed(work: Path) -> list[dict]:
    return [json.loads(line) for line in (work / "stage1" / "bad_records.jsonl").read_text().splitlines()]


def test_found_while_planning(work):
    path = work / "data" / "captions.jsonl"
    lines = path.read_text().splitlines()
    first, second = json.loads(lines[0]), json.loads(lines[1])
    (work / "data" / "images" / first["image"]).unlink()
    (work / "data" / "images" / second["image"]).write_bytes(b"no picture")
    third = json.loads(lines[2])
    third["conversations"][1]["value"] = "word " * 500
    lines[2] = json.dumps(third)
    lines[3] = lines[3][:-20]
    lines[4] = json.dumps({"id": "no-conversations", "image": first["image"]})
    path.write_text("\n".join(lines) + "\n")
    train(config(work), work, quiet=True)
    bad = listed(work)
    assert len(read_metrics(work / "stage1")) == 3
    assert {b["where"].rsplit(":", 1)[1] for b in bad} == {"1", "2", "3", "4", "5"}
    assert {b["found"] for b in bad} == {"planning"}
    by_line = {b["where"].rsplit(":", 1)[1]: b for b in bad}
    assert (by_line["1"]["id"], by_line["5"]["id"]) == (first["id"], "no-conversations")
    assert "too long" in by_line["3"]["reason"]
    assert all(b["reason"] for b in bad)


@pytest.fixture
def broken_later(monkeypatch):
    """Return what breaks the images of the first records that a run reads, when it has planned."""

    def break_images(how_many: int) -> None:
        def open_and_break(*arguments):
            data = open_data_together(*arguments)
            entries = [e for k in range(data.plan.steps) for m in data.plan.step(k) for row in m.rows for e in row]
            for entry in list(dict.fromkeys(entries))[:how_many]:
                record = data.builder.records[int(data.lengths.record[entry])]
                Path(str(record.images[0])).write_bytes(b"broken")
            return data

        monkeypatch.setattr(trainer, "open_data_together", open_and_break)

    return break_images


def test_broken_later_is_masked_and_counted(work, broken_later):
    broken_later(2)
    train(config(work), work, quiet=True)
    lines = read_metrics(work / "stage1")
    assert len(lines) == 3
    assert [b["found"] for b in listed(work)] == ["training"] * 2


def test_too_many_stop_the_run(work, broken_later):
    broken_later(4)
    with pytest.raises(UserError, match=r"config\.data\.max_bad=2"):
        train(config(work, max_bad=2), work, quiet=True)


@pytest.mark.parametrize(("field", "value"), [("log_every", 0), ("save_every", 0), ("keep", 0), ("keep_best", -1)])
def test_numbers_that_are_too_small(tmp_path, field, value):
    c = config(tmp_path)
    c.train[field] = value
    with pytest.raises(UserError, match=rf"config\.train\.{field}={value}: expected a whole number of at least"):
        train(c, tmp_path / "runs", quiet=True)
    assert not list((tmp_path / "runs").rglob("*.*"))


def test_other_settings_in_a_used_folder_are_refused(work):
    train(config(work), work, quiet=True)
    changed = config(work)
    changed.optim.lr = 1.0
    with pytest.raises(UserError, match=r"config\.optim\.lr="):
        train(changed, work, quiet=True)
    changed = config(work)
    changed.optim.update({"schedule": "wsd", "decay": 0.5})
    with pytest.raises(UserError, match=r"trained with config\.optim\.schedule=cosine, now it is wsd; "):
        train(changed, work, quiet=True)
    changed = config(work)
    changed.train.save_every = 7
    train(changed, work, quiet=True)


@pytest.mark.slow
def test_an_earlier_stage_trained_anew_is_noticed(work):
    first = train(config(work), work, quiet=True)

    def second(lr: float = 1e-3) -> ConfigDict:
        c = placed(demo.get_config("tiny").stages.stage2_1, work, str(first))
        c.train.steps = 1
        c.optim.lr = lr
        return c

    train(second(), work, quiet=True)
    shutil.rmtree(first)
    train(config(work), work, quiet=True)
    train(second(), work, quiet=True)  # the very same checkpoint again
    shutil.rmtree(first)
    changed = config(work)
    changed.optim.lr = 0.1
    train(changed, work, quiet=True)
    with pytest.raises(UserError, match="trained from another checkpoint"):
        train(second(), work, quiet=True)


def test_a_missing_images_folder_is_an_error(work):
    c = config(work)
    c.data.images = str(work / "nowhere")
    with pytest.raises(UserError, match="no such folder"):
        train(c, work, quiet=True)
