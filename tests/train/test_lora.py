"""Adapters train in place of the weights: what is stored, exact resume, the base, merging."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eve_jax.checkpoint.frozen_weights import origins
from eve_jax.checkpoint.stage_folder import steps_in
from eve_jax.checkpoint.stored import stored_shapes
from eve_jax.model.eve import adapters
from eve_jax.train.metrics import TIMED, read_metrics
from eve_jax.train.trainer import train
from eve_jax.weights.open import open_checkpoint
from tests.train.adapters import STEPS, config, make_work


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_work(tmp_path_factory.mktemp("lora"))


@pytest.fixture(scope="module")
def run(work: Path) -> Path:
    """A run with dropout, and a learning rate for each modality."""
    c = config(work, "run", dropout=0.2)
    c.optim.groups.text = 0.5
    return train(c, work, quiet=True)


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The lines of the steps without what follows the clock."""
    return [{k: v for k, v in line.items() if k not in TIMED} for line in read_metrics(folder)]


def test_the_checkpoint_holds_the_adapters_alone(work, run):
    cfg = open_checkpoint(run).cfg
    assert set(stored_shapes(run, STEPS)) == adapters(cfg)
    assert cfg.lora is not None and set(cfg.lora.groups) == {"text", "vision", "patch_embed"}
    (origin,) = origins(run, STEPS)
    assert (origin.path, set(origin.weights)) == ("../base", set(stored_shapes(work / "base", 1)))
    losses = [line["loss"] for line in numbers(run)]
    assert losses[-1] < losses[0]


def test_resumes_bit_for_bit(work, run):
    again = work / "again" / "run"
    shutil.copytree(run, again)
    for step in steps_in(run)[1:]:
        shutil.rmtree(again / "checkpoints" / str(step))
    c = config(work, "run", dropout=0.2)
    c.optim.groups.text = 0.5
    train(c, again.parent, quiet=True)
    assert numbers(again) == numbers(run)
    before, after = (open_checkpoint(f).params() for f in (run, again))
    for name in before:
        np.testing.assert_array_equal(np.asarray(before[name]), np.asarray(after[name]), err_msg=name)
