"""Packed = unpacked, neighbors do not matter, micro-batches of any shapes give the same step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eve_jax.batch import RowShape
from eve_jax.config.stages import partition, stage_factors
from eve_jax.model.eve import bind
from eve_jax.train.step import StepFunctions, TrainState, gradient_sums
from tests import reference as ref

ROUTINGS = ("split", "masked")
pytestmark = pytest.mark.long
WIDE = RowShape(32, 32, 192)
TEXT_ONLY = RowShape(0, 0, 128)


def sums(cfg, batch):
    return jax.jit(gradient_sums, static_argnums=0)(cfg, ref.params(cfg), {}, batch)


def assert_same_sums(a, b, relative):
    np.testing.assert_allclose(a.loss, b.loss, rtol=relative)
    assert a.targets == b.targets
    for name, g in a.grads.items():
        assert np.linalg.norm(b.grads[name] - g) <= relative * np.linalg.norm(g), name


MASKED = pytest.param("masked", marks=pytest.mark.slow)  # golden tests hold it to the same numbers as split


@pytest.mark.parametrize("routing", ["split", MASKED])
def test_packed_equals_unpacked(routing):
    cfg = ref.config(routing=routing)
    assert_same_sums(sums(cfg, ref.alone()), sums(cfg, ref.distributed_run()), 1e-5)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_place_in_the_row_and_neighbours(routing):
    cfg = ref.config(routing=routing)
    model = bind(cfg, ref.params(cfg))
    forward = jax.jit(lambda b: model(b))
    first, second = ref.stack([ref.row([0, 1], ref.TOGETHER)]), ref.stack([ref.row([1, 0], ref.TOGETHER)])
    length, other = ref.LENGTHS[0], ref.LENGTHS[1]
    ahead = ref.in_causal_order(first, forward(first), 0, 0, length)
    behind = ref.in_causal_order(second, forward(second), 0, other, length)
    np.testing.assert_allclose(ahead, behind, atol=1e-5)

    changed = {k: v.copy() for k, v in second.items()}
    neighbour = changed["segment"][0] == 1
    text = neighbour[ref.TOGETHER.vision :]
    changed["text_ids"][0][text] = (changed["text_ids"][0][text] + 7) % 300
    changed["patches"][0][neighbour[: ref.TOGETHER.patches]] ^= 255
    assert (np.asarray(forward(changed)) != np.asarray(forward(second))).any()
    np.testing.assert_array_equal(ref.in_causal_order(changed, forward(changed), 0, other, length), behind)


@pytest.mark.parametrize(
    ("stage", "routing"),
    [
        ("3", "split"),
        pytest.param("3", "masked", marks=pytest.mark.slow),
        *(pytest.param(s, r, marks=pytest.mark.slow) for s in ("1", "2.1") for r in ROUTINGS),
    ],
)
def test_micro_batches_of_any_shapes_give_the_same_step(stage, routing):
    cfg = ref.config(routing=routing)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(2e-4))
    functions = StepFunctions(cfg, tx, optax.constant_schedule(2e-4))
    one = [ref.distributed_run()]
    two = [ref.stack([ref.row([0], ref.ALONE), ref.row([1], ref.ALONE)]), ref.stack([ref.row([2], TEXT_ONLY)])]
    empty = ref.stack([{k: np.zeros_like(v) for k, v in ref.row([0], ref.ALONE).items()}])
    order = np.arange(ref.ALONE.length, dtype=np.int32)[None]
    empty |= {"perm": order, "inv": order}
    four = [
        ref.stack([ref.row([1], WIDE)]),
        ref.stack([ref.row([2], TEXT_ONLY)]),
        ref.stack([ref.row([0], ref.ALONE)]),
        empty,
    ]
    results = []
    for batches in (one, two, four):
        trainable, frozen = partition(cfg, ref.params(cfg), stage_factors(stage))
        state = TrainState(jnp.zeros((), jnp.int32), trainable, tx.init(trainable))
        state, metrics = functions(state, frozen, batches)
        results.append((jax.device_get(metrics), jax.device_get(state.trainable)))
    for metrics, trainable in results[1:]:
        assert metrics["targets"] == results[0][0]["targets"]
        np.testing.assert_allclose(metrics["loss"], results[0][0]["loss"], rtol=1e-6)
        np.testing.assert_allclose(metrics["grad_norm"], results[0][0]["grad_norm"], rtol=1e-6)
        for name, value in trainable.items():
            np.testing.assert_allclose(value, results[0][1][name], atol=2e-5, err_msg=name)


@pytest.mark.slow  # the steps above are of such sums
@pytest.mark.parametrize("routing", ROUTINGS)
def test_gradient_sums_add_up_over_shapes(routing):
    cfg = ref.config(routing=routing)
    whole = sums(cfg, ref.distributed_run())
    parts = [sums(cfg, ref.stack([ref.row([i], shape)])) for i, shape in enumerate((ref.ALONE, WIDE, TEXT_ONLY))]
    assert_same_sums(whole, jax.tree.map(lambda *x: sum(x), *parts), 1e-6)


def test_nan_in_the_unused_branch_does_not_leak():
    """An overflow that text tokens would cause in the vision branch (and the reverse) reaches nothing."""
    cfg = ref.config(routing="masked")
    params = ref.params(cfg)
    params = {k: v * np.float32(1e30) if k.endswith("vision.up") else v for k, v in params.items()}
    text_only = ref.stack([ref.row([2], ref.ALONE)])
    plain, spiked = sums(cfg, text_only), jax.jit(gradient_sums, static_argnums=0)(cfg, params, {}, text_only)
    np.testing.assert_array_equal(plain.loss, spiked.loss)
    assert all(np.isfinite(g).all() for g in spiked.grads.values())
