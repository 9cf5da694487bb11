"""The switches of base LLMs, all thrown at once: packing, both routings, remat, the cache and the scheduler."""

from typing import Any

import jax
import numpy as np
import pytest

from eve_jax.errors import UserError
from eve_jax.infer.engine import Engine
from eve_jax.infer.heads import regrouped_sizes
from eve_jax.infer.prompt import Prompt
from eve_jax.infer.requests import Request
from eve_jax.infer.scheduler import Scheduler, SchedulerSettings
from eve_jax.infer.unthreaded import run_all
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, init_params
from eve_jax.sharding import make_mesh
from eve_jax.train.flops import Tokens, step_flops
from eve_jax.train.step import gradient_sums
from tests import reference as ref
from tests.infer.test_generate import prompts


def weights(cfg: ModelConfig) -> Params:
    """Random weights, of norms too, and vision weights other than those of text."""
    rng = np.random.default_rng(0)
    return {
        name: value + 0.1 * rng.normal(size=value.shape).astype(np.float32) if value.ndim < 3 else value
        for name, value in init_params(cfg, 0).items()
    }


SLOW = [
    pytest.param("head", "masked", marks=pytest.mark.slow),
    pytest.param("projection", "masked", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("qk_norm", "routing"), [("head", "split"), *SLOW])
def test_packed_equals_unpacked(qk_norm, routing):
    """Samples in rows of their own by the routing of training, in one row by either."""
    cfg = ref.switched(qk_norm=qk_norm, remat="attention")
    params, sums = weights(cfg), jax.jit(gradient_sums, static_argnums=0)
    alone = sums(cfg, params, {}, ref.alone())
    other = sums(ref.switched(qk_norm=qk_norm, routing=routing), params, {}, ref.distributed_run())
    np.testing.assert_allclose(other.loss, alone.loss, rtol=1e-5)
    assert other.targets == alone.targets
    for name, grad in alone.grads.items():
        assert np.linalg.norm(other.grads[name] - grad) <= 2e-5 * np.linalg.norm(grad), name
        assert np.linalg.norm(grad) > 0, name


@pytest.mark.slow
def test_cache_and_scheduler_answer_alike():
    """Turn after turn on a cache as from scratch; the scheduler, which reads prompts in pieces, as one at a time."""
    cfg = ref.switched(parts=())
    engine = Engine(cfg, weights(cfg))
    every = list(prompts().values())
    wanted = [engine.generate([prompt], 12, [])[0] for prompt in every]
    session = engine.session()
    first = engine.reply(session, [every[0]], 12, [])[0]
    assert first == wanted[0]
    second = engine.reply(session, [every[1]], 12, [])[0]
    ids = np.concatenate([every[0].ids, first, every[1].ids]).astype(np.int32)
    assert second == engine.generate([Prompt(ids, every[0].patches, every[0].grids)], 12, [])[0]
    scheduler = Scheduler(engine, SchedulerSettings(slots=2, context=128, chunk=32, block=4, prefix_bytes=2**20))
    requests = [Request(prompt, 12) for prompt in every]
    assert [ids for _, ids, _ in sorted(run_all(scheduler, requests), key=lambda one: one[0])] == wanted


def test_what_does_not_go_together():
    cases: dict[str, dict[str, Any]] = {
        "window": {"window": 0},
        "layer_kinds": {"layer_kinds": ()},
        "local_rope_theta": {"layer_kinds": ("full",), "window": 0},
        "rope_scaling": {"rope_type": "yarn"},
        "patch_token": {"patch_token": 1 << 20},
        "close_token": {"close_token": 1 << 20},
        "close_token=7 needs prefix as ": {"close_token": 7},
        "place_theta=5 needs thw as ": {"place_theta": 5.0},
        "patch_theta=7 needs conv_gelu_rope as ": {"patch_theta": 7.0, "rope": "thw"},
    }
    for field, other in cases.items():
        with pytest.raises(UserError, match=rf"config\.model\.{field}"):
            ref.switched(**other)
    mesh = make_mesh("tensor:4", [jax.devices()[0]] * 4)
    with pytest.raises(UserError, match="tensor:4 does not divide 6 query heads, which this model norms together"):
        regrouped_sizes(ref.switched(qk_norm="projection", num_heads=6, num_kv_heads=3), mesh)


def test_a_layer_counts_what_it_sees():
    tokens, everything = Tokens(0, 0, 100, 50, 5050), frozenset({"text"})
    local, full = (
        step_flops(ref.switched(layer_kinds=kinds, window=window, local_rope_theta=0.0), everything, tokens).attention
        for kinds, window in ((("local", "full"), 6), (("full",), 0))
    )
    assert local / full == pytest.approx((600 + 5050 + 600) / (3 * 5050))
