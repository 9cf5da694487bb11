"""A run with every choice of the optimizer at once: resumed with the same bits, evaluated by its average."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import demo
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records
from eve_jax.data.text.load import load_tokenizer
from eve_jax.infer.score import ScoreSettings, score_records
from eve_jax.train.metrics import TIMED, read_evaluations, read_metrics
from eve_jax.train.trainer import train
from eve_jax.weights.import_export import make_whole
from eve_jax.weights.open import load_params
from tests.train.placing import placed, with_demo_data

STEPS = 6
pytestmark = [pytest.mark.long, pytest.mark.slow]


def config(work: Path, stage: str) -> ConfigDict:
    c = placed(demo.get_config("tiny").stages[stage], work, "")
    c.name = stage
    c.data.records = str(work / "train.jsonl")
    c.data.tokenizer = str(work / "data" / "tokenizer")
    c.data.rows, c.data.micro_batches, c.data.max_shapes = 2, 2, 1
    c.train.steps, c.train.save_every, c.train.keep, c.train.writers = STEPS, 2, 3, "none"
    c.optim.update(
        {"schedule": "wsd", "warmup": 0.0, "warmup_steps": 2, "decay": 0.5, "decay_shape": "sqrt", "min_lr": 1e-5}
    )
    c.optim.update({"lr": 0.01, "moments": "int8", "ema": 0.6, "loss_weights": "sqrt"})
    c.optim.rule = "adamw" if stage == "stage1" else "muon"
    c.eval.update({"records": str(work / "held.jsonl"), "every": 2, "ema": True})
    return c


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The lines of the steps without what follows the clock."""
    return [{k: v for k, v in line.items() if k not in TIMED} for line in read_metrics(folder)]


@pytest.mark.parametrize("stage", ["stage1", "stage3"])
def test_all_choices_at_once(tmp_path: Path, stage: str) -> None:
    captions = with_demo_data(tmp_path)["captions"]
    (tmp_path / "train.jsonl").write_text("\n".join(captions[:60]))
    (tmp_path / "held.jsonl").write_text("\n".join(captions[60:80]))
    c = config(tmp_path, stage)
    whole = train(c, tmp_path / "whole", quiet=True)
    lines = numbers(whole)
    rates = [line["lr"] for line in lines]
    np.testing.assert_allclose(rates[:4], [0, 0.005, 0.01, 0.01], rtol=1e-6)
    left = [1 - (k / 3) ** 0.5 for k in (1, 2)]
    np.testing.assert_allclose(rates[4:], [1e-5 + (0.01 - 1e-5) * share for share in left], rtol=1e-5)
    assert all(line["loss"] and line["targets"] > line["samples"] for line in lines)

    again = shutil.copytree(tmp_path / "whole", tmp_path / "again") / stage
    for step in (6, 4):
        shutil.rmtree(again / "checkpoints" / str(step))
    assert train(c, tmp_path / "again", quiet=True) == again
    assert numbers(again) == lines and read_evaluations(again) == read_evaluations(whole)
    (_, wanted), (cfg, got) = load_params(whole), load_params(again)
    assert all(np.array_equal(np.asarray(wanted[name]), np.asarray(got[name])) for name in wanted)

    _, average = load_params(make_whole(whole, tmp_path / "average", quiet=True, average=True))
    rule = SampleRule(load_tokenizer(tmp_path / "data" / "tokenizer"), ImageRule.of(c.data), c.data.template)
    records = open_records(str(tmp_path / "held.jsonl"), tmp_path / "data" / "images")
    losses = []
    for params in (average, got):
        scores = score_records(cfg, params, records, ScoreSettings(rule, rows=1), quiet=True).lines
        losses.append(sum(line.nll_sum for line in scores) / sum(line.n_target for line in scores))
    assert read_evaluations(whole)[-1]["eval/loss"] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)
