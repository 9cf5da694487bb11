"""What an update takes of the memory of a CPU, and that a branch chooses what a choice between arrays would."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from eve_jax import sharding
from eve_jax.config.stages import stage_factors
from eve_jax.model.config import ModelConfig
from eve_jax.train.optimizer import optimizer
from eve_jax.train.step import StepRule, Sums, TrainState, apply_update
from tests import reference as ref

LR = optax.constant_schedule(1e-2)
COUNT = 3.0  # targets
# As users' programs are compiled, where those of the tests are left as they come (tests/conftest.py).
AS_USERS = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}


def update_of(fields: dict[str, Any], cfg: ModelConfig) -> Any:
    optim = base.get_config().optim
    optim.update(fields)
    tx = optimizer(optim, LR, cfg, stage_factors("3"))
    return tx, jax.jit(partial(apply_update, StepRule(cfg, tx, LR)), donate_argnums=0, compiler_options=AS_USERS)


def abstract(tree: Any) -> Any:
    return jax.eval_shape(lambda: tree)


def sums_of(params: Any, seed: int = 0) -> Sums:
    keys = jax.random.split(jax.random.key(seed), len(params))
    grads = {n: jax.random.normal(key, p.shape) for (n, p), key in zip(params.items(), keys, strict=True)}
    return Sums(grads, *(jnp.float32(x) for x in (2.0, COUNT, 0.0, 0.0)))


@pytest.mark.slow
def test_moments_are_not_copied() -> None:
    """Of arrays that are large next to a page: less than a gradient's size in all, where copies took three times it."""
    cfg = ref.config()
    params = {n: jnp.zeros((64, *p.shape)) for n, p in ref.params(cfg).items()}
    tx = optax.adamw(LR)
    update = jax.jit(partial(apply_update, StepRule(cfg, tx, LR)), donate_argnums=0, compiler_options=AS_USERS)
    state = TrainState(jnp.int32(0), params, tx.init(params))
    memory = update.lower(abstract(state), abstract(sums_of(params))).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 1.1 * sum(p.nbytes for p in params.values())
    assert memory.alias_size_in_bytes >= 3 * sum(p.nbytes for p in params.values())


@pytest.mark.parametrize(
    ("fields", "apart"),
    [
        ({}, 0.0),
        pytest.param({"moments": "int8", "ema": 0.9}, 0.0, marks=pytest.mark.slow),
        pytest.param({"rule": "muon", "weight_decay": 0.1}, 1e-6, marks=pytest.mark.slow),
    ],
)
def test_a_branch_chooses_the_same(fields: dict[str, Any], apart: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps with sound gradients, without a target, and with infinite ones: as where arrays are chosen.

    To the bit but for Muon, whose matrix products XLA fuses in another way.
    """
    cfg = ref.config()
    ends = []
    for platform in ("cpu", "tpu"):
        monkeypatch.setattr(sharding, "platform", lambda platform=platform: platform)
        tx, update = update_of(fields, cfg)
        params = ref.params(cfg)
        state = TrainState(jnp.int32(0), params, tx.init(params))
        for step, change in enumerate((1.0, 0.0, np.inf, 1.0)):
            sums = sums_of(params, step)
            sums = sums._replace(targets=jnp.float32(COUNT if change else 0.0))
            if change == np.inf:
                sums = sums._replace(grads=jax.tree.map(lambda g: g.at[(0,) * g.ndim].set(jnp.inf), sums.grads))
            state, metrics = update(state, sums)
        ends.append(jax.device_get((state, metrics)))
    for mine, other in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=apart)
