"""What the speed benchmarks work on and how they compare."""

import json

import numpy as np
import pytest

from benchmarks import tab6, workload
from benchmarks.timing import Times, interleaved, ratios, spread
from eve_jax.train.flops import batch_tokens
from tests.launcher import launch


def test_the_samples_are_those_described():
    samples, patches = workload.make_samples()
    for (length, grid), sample, own in zip(workload.SAMPLES, samples, patches, strict=True):
        h, w = grid
        assert len(sample.ids) - 1 + 1 + h * (w + 1) == length
        assert own.shape == (h * w, 3072)
    real = batch_tokens({name: np.asarray(value) for name, value in workload.packed().items()})
    assert real.total == sum(length for length, _ in workload.SAMPLES) == 2700
    assert real.patches + real.specials == 1864
    assert real.targets == 506
    assert real.pairs == sum(n * (n + 1) / 2 for n, _ in workload.SAMPLES)


def test_candidates_run_in_turn():
    calls: list[str] = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, "test")
    assert calls == ["a", "b"] * 3  # the first round is not timed
    assert [len(t.wall) for t in times.values()] == [len(t.processor) for t in times.values()] == [2, 2]


def test_ratios_and_their_spread():
    assert ratios([1.0, 4.0], [2.0, 2.0]) == [0.5, 2.0]
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0], ".1f") == "3.0 (2.0 to 4.0)"
    assert spread([1.5]) == "1.50"


def test_ratios_of_table_6() -> None:
    times = {name: Times([seconds, 2 * seconds], [0.0, 0.0]) for name, seconds in (("dense", 2.0), ("dac", 2.5))}
    found = tab6.figures(times, 0, rate=False)
    assert found["dac"] == pytest.approx({"over_dense": 1.25, "low": 1.25, "high": 1.25, "paper": 4.25 / 3.77})
    assert tab6.figures(times, 1, rate=True)["dac"] == pytest.approx(
        {"over_dense": 0.8, "low": 0.8, "high": 0.8, "paper": 1.0}
    )


@pytest.mark.slow
def test_table_6_of_one_layer() -> None:
    done = launch("benchmarks.tab6", "--layers=1", "--rounds=2", "--answer=4", "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for measure in ("ttft", "rate"):
        assert found[measure].keys() == {"dense", "rep", "moe", "dac"}
        assert all(one["low"] <= one["over_dense"] <= one["high"] for one in found[measure].values())
