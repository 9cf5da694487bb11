"""The pack plan: every record once, budgets kept, few wasted slots, the same plan every time."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.data_tables import CASES, padded_fill, synthetic_counts
from benchmarks.data_tables import lengths_of as table_of
from eve_jax.data.plan.packing import frontier, pack
from eve_jax.data.plan.plan import Plan, PlanSettings, build_plan, load_plan
from eve_jax.errors import UserError
from tests.data.synthetic import mixed_counts, plan_of


def check(plan: Plan, counts: np.ndarray) -> None:
    """What holds for every plan."""
    assert len(plan.batch_shape) == plan.steps * plan.micro_batches
    seen: list[int] = []
    for k in range(plan.steps):
        step = plan.step(k)
        assert len(step) == plan.micro_batches
        for micro_batch in step:
            assert len(micro_batch.rows) == plan.rows
            for row in micro_batch.rows:
                used = counts[list(row)].sum(0) if row else np.zeros(3)
                assert (used <= np.array(micro_batch.shape)).all()
                assert len(set(row)) == len(row)
                seen += row
    assert seen == plan.entries.tolist()
    assert {shape.length % 128 for shape in plan.shapes} == {0}
    assert set(plan.batch_shape) == set(range(len(plan.shapes)))


counts_lists = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 20), st.integers(1, 100)), min_size=1, max_size=60)


@settings(deadline=None, max_examples=40)
@given(
    counts_lists,
    st.sampled_from([128, 256, 384]),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_every_record_once_an_epoch(
    sizes: list[tuple[int, int, int]],
    row_tokens: int,
    max_shapes: int,
    rows: int,
    per_step: int,
    epochs: int,
    seed: int,
) -> None:
    counts = np.array(sizes)
    limits: dict[str, Any] = {"row_tokens": row_tokens, "max_shapes": max_shapes}
    sizes_of_steps: dict[str, Any] = {"rows": rows, "micro_batches": per_step, "epochs": epochs, "seed": seed}
    if (counts.sum(1) > row_tokens).all():
        with pytest.raises(UserError, match="row_tokens"):
            plan_of(counts, **limits, **sizes_of_steps)
        return
    plan = plan_of(counts, **limits, **sizes_of_steps)
    check(plan, counts)
    assert len(plan.shapes) <= max_shapes
    assert all(shape.length <= row_tokens for shape in plan.shapes)
    kept = set(range(len(counts))) - set(plan.left_out.tolist())
    assert Counter(plan.entries.tolist()) == dict.fromkeys(kept, epochs)
    too_long = set(np.flatnonzero(counts.sum(1) > row_tokens).tolist())
    assert too_long <= set(plan.left_out.tolist())
    for entry in set(plan.left_out.tolist()) - too_long:  # only for lack of shapes
        assert not any((counts[entry] <= np.array(shape)).all() for shape in plan.shapes)


@settings(deadline=None, max_examples=30)
@given(counts_lists, st.integers(1, 30), st.integers(0, 3))
def test_a_number_of_steps_is_kept(sizes: list[tuple[int, int, int]], steps: int, seed: int) -> None:
    counts = np.array(sizes)
    plan = plan_of(counts, steps=steps, seed=seed)
    check(plan, counts)
    assert plan.steps == steps
    assert all(row for k in range(steps) for micro_batch in plan.step(k) for row in micro_batch.rows)
    times = Counter(plan.entries.tolist())
    assert max(times.values()) <= 3 + 2 * min(times.get(entry, 0) for entry in range(len(counts)))


@settings(deadline=None)
@given(counts_lists, st.integers(1, 12))
def test_pack_is_a_partition_into_fitting_rows(sizes: list[tuple[int, int, int]], window: int) -> None:
    counts = np.array(sizes, np.int32)
    shapes = np.array([[90, 20, 18], [40, 20, 68], [0, 0, 128]], np.int32)
    packed = pack(counts, np.arange(len(counts)), shapes, window)
    assert sorted([*packed.entries.tolist(), *packed.left_out.tolist()]) == list(range(len(counts)))
    for r in range(len(packed)):
        row = packed.entries[packed.first[r] : packed.first[r + 1]]
        assert len(row) > 0
        assert (counts[row].sum(0) <= shapes[packed.shape[r]]).all()
    fits = np.all(counts[:, None] <= shapes, axis=2).any(1)
    assert sorted(packed.left_out.tolist()) == np.flatnonzero(~fits).tolist()


@given(counts_lists)
def test_frontier_holds_the_largest(sizes: list[tuple[int, int, int]]) -> None:
    counts = np.array(sizes, np.int32)
    front = counts[frontier(counts, np.arange(len(counts), dtype=np.int32))]
    assert all(np.all(size <= front, axis=1).any() for size in counts)
    smaller = np.all(front[:, None] <= front[None], axis=2)
    assert smaller.sum() == len(front)  # each only than itself


@pytest.mark.parametrize(("row_tokens", "rows", "n"), [(256, 4, 3000), (512, 8, 3000), (512, 4, 1500), (512, 16, 5000)])
def test_fill_of_mixed_data(row_tokens: int, rows: int, n: int) -> None:
    counts = mixed_counts(n)
    plan = plan_of(counts, row_tokens=row_tokens, rows=rows)
    check(plan, counts)
    assert plan.stats["fill"] >= 0.95
    assert plan.stats["fill"] == pytest.approx(
        counts.sum() / sum(plan.shapes[k].length * rows for k in plan.batch_shape), rel=1e-12
    )
    assert not len(plan.left_out)


@pytest.mark.parametrize("text_only", [0.0, 0.5, 1.0])
def test_fill_whatever_the_mixture(text_only: float) -> None:
    counts = mixed_counts(3000, text_only=text_only)
    plan = plan_of(counts)
    assert plan.stats["fill"] >= 0.95
    if text_only == 1.0:
        assert {shape.vision for shape in plan.shapes} == {0}


@pytest.mark.parametrize("case", CASES)
def test_fill_of_the_synthetic_tables(case: str) -> None:
    """At least 0.96, as `benchmarks.data` shows of more records."""
    counts = synthetic_counts(40_000, *CASES[case])
    plan = build_plan(table_of(counts), PlanSettings(8192, 8, rows=8, micro_batches=2, epochs=1, seed=0))
    assert plan.stats["fill"] >= 0.96
    assert plan.stats["fill"] == pytest.approx(
        counts.sum() / sum(plan.shapes[k].length * plan.rows for k in plan.batch_shape), rel=1e-12
    )
    assert len(plan.shapes) <= 8
    assert {shape.length for shape in plan.shapes} <= set(range(128, 8193, 128))
    assert plan.nbytes < 16 * len(counts)
    assert padded_fill(counts) < padded_fill(counts, grouped=True) < plan.stats["fill"]


def test_fill_of_big_images() -> None:
    rng = np.random.default_rng(0)
    counts = mixed_counts(4000)
    image = counts[:, 0] > 0
    counts[image, 0], counts[image, 1] = 625, 26
    counts[:, 2] = np.clip(rng.lognormal(4.6, 0.8, len(counts)), 20, 600)
    plan = plan_of(counts, row_tokens=4096)
    check(plan, counts)
    assert plan.stats["fill"] >= 0.95


def test_epochs_follow_each_other_in_new_orders() -> None:
    counts = mixed_counts(800)
    plan = plan_of(counts, epochs=3)
    assert Counter(Counter(plan.entries.tolist()).values()) == {3: 800}
    thirds = np.array_split(plan.entries, 3)
    mixed = plan.stats["samples_per_step"]  # the step at the border of two epochs may hold records of both
    assert all(len(set(third.tolist())) > 800 - mixed for third in thirds)
    assert plan.stats["empty_rows"] < plan.rows * plan.micro_batches
    assert thirds[0].tolist() != thirds[1].tolist()


def test_few_records_make_short_rows() -> None:
    counts = mixed_counts(5)
    plan = plan_of(counts, row_tokens=8192, rows=2)
    check(plan, counts)
    assert plan.steps == 1
    assert plan.shapes[0].length == 128
    single = plan_of(counts[:1], row_tokens=8192)
    assert sorted(single.entries.tolist()) == [0]


def test_few_records_make_any_number_of_steps() -> None:
    counts = mixed_counts(3)
    plan = plan_of(counts, row_tokens=8192, rows=64, steps=300)
    check(plan, counts)
    assert plan.steps == 300
    assert plan.stats["row_fill"] > 0.3
    times = Counter(plan.entries.tolist())
    assert len(times) == 3
    assert len(set(times.values())) == 1


def test_one_shape_holds_all_where_it_can() -> None:
    counts = np.array([[80, 10, 10], [10, 4, 90], [4, 3, 10]] * 50)
    plan = plan_of(counts, row_tokens=256, max_shapes=1)
    assert len(plan.shapes) == 1
    assert not len(plan.left_out)


def test_records_that_fit_no_shape_are_left_out() -> None:
    counts = np.array([[100, 4, 10], [4, 2, 110]] * 20)
    plan = plan_of(counts, row_tokens=128, max_shapes=1)
    assert len(plan.left_out) == 20
    assert not len(plan_of(counts, row_tokens=128, max_shapes=2).left_out)


def test_same_seed_same_plan_on_disk_too(tmp_path: Path) -> None:
    counts = mixed_counts(500)
    plan = plan_of(counts)
    assert plan_of(counts).hash == plan.hash
    assert plan_of(counts, seed=1).hash != plan.hash
    plan.save(tmp_path / "plan")
    loaded = load_plan(tmp_path / "plan")
    assert loaded.hash == plan.hash
    assert loaded.stats == plan.stats
    assert loaded.step(1) == plan.step(1)
    assert loaded.shapes == plan.shapes
    assert loaded.left_out.tolist() == plan.left_out.tolist()
    with pytest.raises(UserError, match="no such plan"):
        load_plan(tmp_path)
    plan.save(tmp_path / "plan", key="mine")
    assert load_plan(tmp_path / "plan", key="mine").hash == plan.hash
    with pytest.raises(UserError, match=r"plan\.npz is another plan, or broken"):
        load_plan(tmp_path / "plan", key="yours")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row_tokens": 500}, "multiple of 128"),
        ({"row_tokens": 0}, "multiple of 128"),
        ({"max_shapes": 0}, "max_shapes=0"),
        ({"rows": 0}, "rows=0"),
        ({"epochs": 0}, "epochs=0"),
        ({"steps": -1}, "steps=-1"),
        ({"steps": 1 << 28, "rows": 8}, "train.steps=268435456 asks for 4,294,967,296 rows, and a plan has at most"),
        ({"steps": 1, "micro_batches": 1 << 31}, "train.steps=1 asks for 8,589,934,592 rows"),
        ({"epochs": 1 << 31}, "data.epochs=2147483648 asks for 2,147,483,648 samples"),
        ({"row_tokens": 128}, "no record fits"),
    ],
)
def test_bad_settings(change: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_of([[200, 11, 10]], **change)


def test_no_records() -> None:
    with pytest.raises(UserError, match="none of the records"):
        plan_of([])
