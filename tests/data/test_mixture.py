"""Mixtures of sources: how often records come, in which order, and what the plan makes of it."""

from collections import Counter
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import mixture
from eve_jax.data.plan.mixture import BUCKET, Mixture, repeats_of, rounds, shuffled
from eve_jax.data.plan.plan import PlanSettings, build_plan
from eve_jax.errors import UserError
from tests.data.synthetic import lengths_of, mixed_counts


def test_repeats_and_weights() -> None:
    sizes = {"synth": 700, "text": 400, "web": 50}
    assert repeats_of(sizes) == [1.0, 1.0, 1.0]
    assert repeats_of(sizes, repeats="2,0.5,0") == [2.0, 0.5, 0.0]
    shares = [r * n for r, n in zip(repeats_of(sizes, weights="7:2:1"), sizes.values(), strict=True)]
    assert shares == pytest.approx([350, 100, 50])  # web, the smallest for its weight, once
    assert repeats_of(sizes, weights="1,0,0") == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"repeats": "1,2"}, "has 2 numbers for 3 sources"),
        ({"repeats": "1,2,x"}, "not a list of numbers"),
        ({"weights": "1,-2,1"}, "at least 0"),
        ({"weights": "0,0,0"}, "one is above 0"),
        ({"repeats": "1,inf,1"}, "at least 0"),
        ({"repeats": "1,1,1", "weights": "1,1,1"}, "both set"),
        ({"weights": "1,1,1"}, "web has no record that can be used"),
    ],
)
def test_mixtures_that_make_no_sense(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        repeats_of({"synth": 7, "text": 4, "web": 0}, **arguments)


@pytest.mark.parametrize("size", [0, 1, 2, 1000, 3 * BUCKET + 5])
def test_shuffled_is_a_permutation_by_seed(size: int) -> None:
    values = np.arange(size, dtype=np.int32) + 7
    first, other = shuffled(values, np.uint64(1)), shuffled(values, np.uint64(2))
    assert np.array_equal(np.sort(first), values)
    assert np.array_equal(first, shuffled(values, np.uint64(1)))
    if size >= 1000:
        assert (first == other).mean() < 0.01
        assert abs(np.corrcoef(first, np.arange(size))[0, 1]) < 0.1


def test_shuffles_follow_from_the_seed_alone() -> None:
    """A short one done by hand: SplitMix64 (Steele et al. 2014) and Fisher-Yates, after a draw a value for buckets."""

    def mixed(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    values = list(range(20))
    state = (mixed(5) + 20 * 0x9E3779B97F4A7C15) % 2**64
    for i in range(19, 0, -1):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        other = (mixed(state) >> 32) * (i + 1) >> 32
        values[i], values[other] = values[other], values[i]
    assert shuffled(np.arange(20, dtype=np.int32), np.uint64(5)).tolist() == values


def test_all_orders_of_a_shuffle_are_as_likely() -> None:
    seen = Counter(tuple(shuffled(np.arange(3, dtype=np.int32), np.uint64(s)).tolist()) for s in range(3000))
    assert len(seen) == 6
    assert min(seen.values()) > 400


sources_lists = st.lists(st.tuples(st.integers(1, 40), st.floats(0, 3.5)), min_size=1, max_size=4).filter(
    lambda s: any(repeat > 0.2 for _, repeat in s)
)


@settings(deadline=None, max_examples=60)
@given(sources_lists, st.integers(1, 4), st.integers(0, 9))
def test_rounds_keep_the_promise(sizes: list[tuple[int, float]], epochs: int, seed: int) -> None:
    """No entry twice in a round; as many as promised after every epoch; none again before all others came."""
    starts = np.cumsum([0] + [size for size, _ in sizes])
    sources = [np.arange(a, a + size, dtype=np.int32) for a, (size, _) in zip(starts, sizes, strict=False)]
    repeats = [repeat for _, repeat in sizes]
    seen: Counter[int] = Counter()
    ends = 0
    for order, ends_epoch in rounds(sources, repeats, seed):
        assert len(set(order.tolist())) == len(order)
        seen.update(order.tolist())
        ends += ends_epoch
        for source in sources:
            times = [seen[e] for e in source.tolist()]
            assert max(times) - min(times) <= 1
        if ends_epoch:
            for source, repeat in zip(sources, repeats, strict=True):
                assert sum(seen[e] for e in source.tolist()) == round(repeat * len(source) * ends)
        if ends == epochs:
            break


def test_every_stretch_has_the_ratio() -> None:
    sources = np.split(np.arange(10000, dtype=np.int32), [7000, 9000])
    (order, ends_epoch), (second, _) = islice(rounds(sources, [1.0, 1.0, 1.0], 0), 2)
    assert ends_epoch
    for start in range(0, 10000, 50):
        kinds = np.searchsorted([7000, 9000], order[start : start + 50], side="right")
        assert np.abs(np.bincount(kinds, minlength=3) - [35, 10, 5]).max() <= 1
    assert not np.array_equal(order, second)


def test_the_paper_s_ratio_is_a_config() -> None:
    config = mixture.get_config("llm=tiny")
    assert repeats_of({"synth": 70, "text": 40, "web": 30}, config.data.repeats, config.data.weights) == [1, 0.5, 1 / 3]
    assert mixture.get_config("ratio=5:5:0").data.weights == "5:5:0"
    assert (config.name, config.stage, config.model.variant) == ("mixture", "2.2", "dense")


def mixed_plan(repeats: str = "", weights: str = "", **changes: Any) -> tuple[Any, np.ndarray]:
    counts = np.concatenate(
        [mixed_counts(3000, text_only=0.1), mixed_counts(900, 1, text_only=1.0), mixed_counts(500, 2)]
    )
    mixture = Mixture.of({"synth": 3000, "text": 900, "web": 500}, repeats, weights)
    arguments: dict[str, Any] = {
        "row_tokens": 512,
        "max_shapes": 4,
        "rows": 4,
        "micro_batches": 4,
        "epochs": 2,
        "seed": 0,
        **changes,
    }
    return build_plan(lengths_of(counts), PlanSettings(**arguments), mixture), counts


def test_a_plan_of_a_mixture() -> None:
    plan, counts = mixed_plan(weights="7:2:1")
    stats = {source["name"]: source for source in plan.stats["sources"]}
    assert [stats[name]["share_planned"] for name in stats] == pytest.approx([0.7, 0.2, 0.1], abs=1e-3)
    assert [stats[name]["share"] for name in stats] == pytest.approx([0.7, 0.2, 0.1], abs=1e-3)
    times = Counter(plan.entries.tolist())
    of_source = np.split(np.array([times[e] for e in range(len(counts))]), [3000, 3900])
    assert set(of_source[0]) == {2}  # the smallest for its weight
    assert of_source[1].sum() == round(6000 * 2 / 7)
    assert set(of_source[1]) == set(of_source[2]) == {1, 2}
    bounds = plan.first[:: plan.rows * plan.micro_batches]
    steps = [plan.entries[a:b] for a, b in pairwise(bounds)]
    shares = np.array([np.bincount(np.searchsorted([3000, 3900], s, "right"), minlength=3) / len(s) for s in steps])
    vision = np.array([counts[step, :2].sum() / counts[step].sum() for step in steps])
    by_chance = np.sqrt(0.7 * 0.3 / plan.stats["samples_per_step"])  # of a step of samples drawn at random
    assert shares[1:-1, 0].std() < 0.75 * by_chance  # the first and the last step have odd rows
    assert np.abs(shares - [0.7, 0.2, 0.1]).max() < 0.2
    assert np.abs(vision - plan.stats["vision_share"]).max() < 0.05
    for k, source in enumerate(stats.values()):
        assert source["share_of_steps"] == pytest.approx([shares[:, k].min(), shares[:, k].max()], abs=1e-4)
    assert plan.stats["vision_share_of_steps"] == pytest.approx([vision.min(), vision.max()], abs=1e-4)


def test_repeats_within_an_epoch_never_share_a_row() -> None:
    plan, counts = mixed_plan(repeats="1,2.5,0", epochs=2)
    times = Counter(plan.entries.tolist())
    assert Counter(times[e] for e in range(3000)) == {2: 3000}
    assert Counter(times[e] for e in range(3000, 3900)) == {5: 900}
    assert not any(times[e] for e in range(3900, 4400))
    for m in range(len(plan.batch_shape)):
        for row in plan.micro_batch(m).rows:
            assert len(set(row)) == len(row)
            assert (counts[list(row)].sum(0) <= plan.micro_batch(m).shape).all() if row else True


def test_mixtures_by_steps() -> None:
    plan, _ = mixed_plan(weights="1:1:0", steps=30)
    assert plan.steps == 30
    assert [source["share"] for source in plan.stats["sources"]] == pytest.approx([0.5, 0.5, 0], abs=0.03)
    with pytest.raises(UserError, match="less than one record"):
        mixed_plan(repeats="0.0001,0,0")
