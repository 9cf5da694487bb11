"""A stage trains alike whoever builds its batches."""

import shutil
from pathlib import Path

import pytest

from configs import demo
from eve_jax.train.metrics import read_metrics
from eve_jax.train.trainer import train
from tests.train.placing import demo_data, placed


@pytest.mark.slow  # the batches are compared to the bit in tests/data/test_row_processes.py
def test_losses_are_the_same_and_a_run_resumes_with_another_number(tmp_path: Path) -> None:
    demo_data(tmp_path / "data")
    losses = []
    for name, workers in (("plain", (0, 0)), ("processes", (2, 1))):
        work = tmp_path / name
        for session, number in enumerate(workers):
            c = placed(demo.get_config("tiny").stages.stage1, tmp_path, "")
            c.train.steps, c.train.save_every, c.data.rows, c.data.micro_batches, c.data.max_shapes = 4, 2, 2, 1, 1
            c.data.workers = number
            train(c, work, quiet=True)
            if session == 0:
                shutil.rmtree(work / "stage1" / "checkpoints" / "4")  # resumes after step 2
        losses.append([line["loss"] for line in read_metrics(work / "stage1")])
    assert len(losses[0]) == 4
    assert losses[0] == losses[1]
