"""Moments in bfloat16 and in 8 bits: the codes by a plain formula, right on average, as in float32."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from eve_jax.config.stages import stage_factors
from eve_jax.process.compiler_options import OF_UPDATES
from eve_jax.sharding import make_mesh
from eve_jax.train.moments import Blocks, block_size, pack, packed, unpack
from eve_jax.train.optimizer import optimizer, optimizer_state
from eve_jax.train.step import StepRule, Sums, TrainState, apply_update
from tests import reference as ref

CFG = ref.config()
NAME, NORM = "layers.mlp.text.up", "norm.scale"
TOP = {False: (127, 2), True: (255, 4)}


def plain(codes: np.ndarray, scales: np.ndarray, second: bool) -> np.ndarray:
    """The numbers of codes, by the formula of docs/train.md."""
    top, power = TOP[second]
    share = codes.astype(np.float64) / top
    size = codes.shape[-1] // scales.shape[-1]
    return np.sign(share) * np.abs(share) ** power * np.repeat(scales.astype(np.float64), size, axis=-1)


@pytest.mark.parametrize("second", [False, True])
def test_numbers_become_one_of_the_two_codes_around_them(second: bool) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3, 256)) * 10.0 ** rng.uniform(-6, 0, (3, 256))).astype(np.float32)
    x = x**2 if second else x
    x[0, :5], x[1] = 0, 0
    blocks = jax.jit(pack, static_argnums=2)(x, jax.random.key(1), second)
    codes, scales = map(np.asarray, blocks)
    assert codes.dtype == (np.uint8 if second else np.int8) and codes.shape == x.shape and scales.shape == (3, 2)
    np.testing.assert_array_equal(scales, np.abs(x).reshape(3, 2, 128).max(-1))
    np.testing.assert_allclose(unpack(blocks), plain(codes, scales, second), rtol=1e-6)
    wide = codes.astype(int)
    top = TOP[second][0]
    low, high = (plain(np.clip(np.abs(wide) + d, 0, top), scales, second) for d in (-1, 1))
    magnitude = np.abs(x)
    assert ((low <= magnitude * (1 + 1e-5)) & (magnitude <= high * (1 + 1e-5))).all()
    assert (np.sign(wide) * np.sign(x) >= 0).all() and (np.asarray(unpack(blocks))[1] == 0).all()
    if second:
        assert ((codes > 0) == (x > 0)).all()  # something is divided by their roots
    again = pack(unpack(blocks), jax.random.key(2), second)
    assert (np.abs(np.asarray(again.codes).astype(int) - wide) <= (np.asarray(unpack(blocks)) > 0)).all()
    np.testing.assert_allclose(unpack(again), unpack(blocks), rtol=0.2)


def test_rounding_is_right_on_average() -> None:
    x = jnp.array([1.0, 0.7, -0.33, 0.01, -2e-5, 0.0, 1e-3, 0.5] * 16, jnp.float32)
    for second in (False, True):
        values = jnp.abs(x) if second else x
        keys = jax.random.split(jax.random.key(0), 4000)
        many = jax.vmap(lambda key, v=values, s=second: unpack(pack(v, key, s)))(keys)
        np.testing.assert_allclose(many.mean(0)[:4], values[:4], rtol=3e-3)


@pytest.mark.parametrize(
    ("width", "size"),
    [(4096, 128), (18944, 32), (896, 128), (4864, 128), (96, 32), (64, 64), (1, 1), (7, 7), (200, 200)],
)
def test_blocks_divide_the_axis(width: int, size: int) -> None:
    assert block_size(width) == size


@cache
def moved(moments: str, steps: int, param_dtype: str = "float32") -> tuple[jax.Array, Any]:
    """By how much a weight moves in `steps` updates by noise with a drift that gets 10 times smaller; the state."""
    optim = base.get_config("tiny").optim
    optim.lr, optim.moments = 1e-3, moments
    tx = optimizer(optim, optax.constant_schedule(optim.lr), CFG, stage_factors("3"))
    rule = StepRule(CFG, tx, optax.constant_schedule(optim.lr))
    weights = {NAME: jnp.zeros((1, 16, 128), param_dtype), NORM: jnp.ones(64)}
    drift = jnp.where(jax.random.bernoulli(jax.random.key(1), 0.5, (1, 16, 128)), 1.0, -1.0)

    def step(number: jax.Array, state: TrainState) -> TrainState:
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(2), number), drift.shape)
        grads = {NAME: (noise + drift) * jnp.where(number < steps // 2, 1e-2, 1e-3), NORM: jnp.ones(64)}
        one = jnp.float32(1)
        return apply_update(rule, state, Sums(grads, one, one, one, one))[0]

    begin = TrainState(jnp.int32(0), weights, optimizer_state(tx, weights, make_mesh("", jax.devices()[:1])))
    state = jax.jit(partial(jax.lax.fori_loop, 0, steps, step))(begin)
    return state.trainable[NAME].astype(jnp.float32), state.optimizer


@pytest.mark.parametrize(("moments", "param_dtype"), [("bfloat16", "float32"), ("int8", "bfloat16")])
def test_weights_move_as_with_moments_in_float32(moments: str, param_dtype: str) -> None:
    """Also second moments that get smaller: rounded to the nearest, they would stay what they were."""
    steps = 1000
    (wanted, plain_state), (got, state) = moved("float32", steps), moved(moments, steps, param_dtype)
    slope = float(jnp.sum(wanted * got) / jnp.sum(wanted * wanted))
    assert slope == pytest.approx(1, abs=0.02)
    assert float(jnp.corrcoef(wanted.ravel(), got.ravel())[0, 1]) > 0.95
    second = optax.tree_utils.tree_get(state, "nu")
    exact = optax.tree_utils.tree_get(plain_state, "nu")
    held = second[NAME]
    if moments == "int8":
        assert isinstance(held, Blocks) and held.codes.dtype == jnp.uint8
        held = unpack(held)
    else:
        assert held.dtype == jnp.bfloat16
    assert float(jnp.mean(held.astype(jnp.float32))) == pytest.approx(float(jnp.mean(exact[NAME])), rel=0.03)
    assert second[NORM].dtype == jnp.float32  # few numbers: kept whole


def test_an_update_of_packed_moments_takes_them_one_by_one():
    """Unpacked together they would be four times as many bytes of temporaries."""
    weights = {f"w{n}": jnp.ones((256, 512)) for n in range(6)}
    tx = packed(optax.adamw(1e-3), "int8", set(weights))
    state = tx.init(weights)

    def update(state, gradients):
        updates, state = tx.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state

    def temporaries(options):
        program = jax.jit(update, donate_argnums=0, compiler_options=options).lower(state, weights).compile()
        memory = program.memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    assert temporaries(OF_UPDATES["cpu"]) < 0.5 * temporaries(None)
