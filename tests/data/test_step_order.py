"""Steps of a plan: each near the mixture, none of text alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eve_jax.data.plan.plan import Plan
from eve_jax.data.plan.step_order import _dealt
from tests.data.synthetic import mixed_counts, plan_of


def step_shares(plan: Plan, counts: np.ndarray) -> np.ndarray:
    """Share of vision tokens of every step."""
    steps = [[entry for batch in plan.step(k) for row in batch.rows for entry in row] for k in range(plan.steps)]
    return np.array([counts[step, :2].sum() / counts[step].sum() for step in steps])


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_steps_are_near_the_mixture(micro_batches: int) -> None:
    rng = np.random.default_rng(0)
    counts = mixed_counts(6000, text_only=0.3)
    texts = counts[:, 0] == 0
    counts[texts, 2] = rng.integers(150, 500, texts.sum())  # long texts: many rows without images
    plan = plan_of(counts, micro_batches=micro_batches)
    assert min(shape.patches for shape in plan.shapes) * 4 < max(shape.patches for shape in plan.shapes)
    share = step_shares(plan, counts)
    mean = plan.stats["vision_share"]
    assert plan.stats["vision_share_of_steps"] == pytest.approx([share.min(), share.max()], abs=1e-4)
    assert share.min() > 0  # no step of text alone
    assert np.abs(share - mean)[:-1].mean() < 0.15 * mean
    middle = plan.steps // 2
    assert np.mean(share[:middle]) == pytest.approx(np.mean(share[middle:]), rel=0.1)


def test_a_lone_micro_batch_is_near_the_mixture_too() -> None:
    counts = mixed_counts(4000, text_only=0.5)
    share = step_shares(plan_of(counts, micro_batches=1, max_shapes=8), counts)
    assert share.min() > 0
    assert len(plan_of(counts, micro_batches=2, max_shapes=8).shapes) > 1


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from([(60, 5, 30), (20, 4, 40), (0, 0, 100)]), min_size=60, max_size=200),
    st.integers(2, 5),
    st.integers(0, 3),
)
def test_no_step_of_text_alone(sizes: list[tuple[int, int, int]], micro_batches: int, seed: int) -> None:
    """Where there are at least as many micro-batches with images as steps."""
    counts = np.array(sizes)
    plan = plan_of(counts, row_tokens=128, rows=1, micro_batches=micro_batches, seed=seed)
    with_images = [
        [any(counts[entry, 0] for row in batch.rows for entry in row) for batch in plan.step(k)]
        for k in range(plan.steps)
    ]
    if sum(map(sum, with_images)) >= plan.steps:
        assert all(map(any, with_images))


@pytest.mark.parametrize("with_images", [3, 4])
def test_just_enough_groups_with_images(with_images: int) -> None:
    """Steps of three micro-batches, of which as many as there are steps have images, and all but one hardly any."""
    held = np.zeros((9, 2))
    held[:with_images, 0] = [5.0, 0.01, 0.01, 0.01][:with_images]
    held[with_images:, 1] = np.linspace(-3, 3, 9 - with_images)  # what texts are of draws them together
    order = _dealt(np.arange(9), held, np.array([3]), 3)
    assert sorted(order) == list(range(9))
    assert all((held[step, 0] > 0).any() for step in order.reshape(3, 3))
