"""Everything that was ever wrong with a data set, in a training run: nothing crashes, each is reported once."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bad_corpus import PLANNING, TRAINING, USED, Case, corpus_config, reported, write_corpus, wrong
from eve_jax.data.rows.build import Batch
from eve_jax.data.rows.pipeline import StageData, open_stage_data
from eve_jax.train.metrics import read_metrics
from eve_jax.train.trainer import train

Corpus = tuple[Path, list[Case]]
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    return folder, write_corpus(folder)


def test_there_is_enough_of_it(corpus: Corpus) -> None:
    found = Counter(case.found for case in corpus[1])
    assert found[PLANNING] + found[TRAINING] >= 40
    assert min(found[PLANNING], found[TRAINING], found[USED]) > 5


def test_a_training_run_takes_it(corpus: Corpus) -> None:
    folder, cases = corpus
    config = corpus_config(folder)
    train(config, folder / "runs", quiet=True)
    stage = folder / "runs" / config.name
    assert wrong(cases, reported(stage, cases)) == []
    steps = read_metrics(stage)
    assert all(math.isfinite(line["loss"]) for line in steps)
    assert len(steps) == open_stage_data(config, stage).plan.steps


def built(folder: Path) -> tuple[StageData, list[Batch]]:
    data = open_stage_data(corpus_config(folder), folder / "stage")
    return data, [data.builder.build(m) for step in range(data.plan.steps) for m in data.plan.step(step)]


def test_good_rows_are_as_without_the_bad_ones(corpus: Corpus, tmp_path: Path) -> None:
    folder, cases = corpus
    data, batches = built(folder)
    write_corpus(tmp_path, fixed=True)
    fixed, expected = built(tmp_path)
    assert len(batches) == len(expected)
    broken = {case.id for case in cases if case.found == TRAINING}
    seen = set()
    for number, (batch, wanted) in enumerate(zip(batches, expected, strict=True)):
        for name in set(batch) - {"patches", "loss_weight"}:
            assert np.array_equal(batch[name], wanted[name]), name
        micro_batch = data.plan.micro_batch(number)
        for row, entries in enumerate(micro_batch.rows):
            patch_of, target_of = segments(batch, row)
            for segment, entry in enumerate(entries, 1):
                id = data.builder.records[int(data.lengths.record[entry])].id
                assert id == fixed.builder.records[int(fixed.lengths.record[entry])].id
                patches, weight = patch_of == segment, target_of == segment
                if id in broken:
                    seen.add(id)
                    assert not batch["patches"][row][patches].any()
                    assert not batch["loss_weight"][row][weight].any()
                    assert wanted["loss_weight"][row].any()
                else:
                    assert np.array_equal(batch["patches"][row][patches], wanted["patches"][row][patches])
                    assert np.array_equal(batch["loss_weight"][row][weight], wanted["loss_weight"][row][weight])
                    assert batch["loss_weight"][row][weight].any()
    assert seen == broken


def segments(batch: Batch, row: int) -> tuple[np.ndarray, np.ndarray]:
    """The sample (from 1, 0: none) of every patch slot of a row, and of every target."""
    segment = batch["segment"][row]
    real = batch["loss_weight"][row] + batch["labels"][row] > 0
    return segment[: batch["patches"].shape[1]], np.where(real, segment[batch["loss_idx"][row]], 0)
