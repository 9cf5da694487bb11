"""The formula for a step's FLOPs against the products that the compiler is left with."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from eve_jax.batch import RowShape
from eve_jax.compile.abstract import abstract_batch
from eve_jax.compile.count import count
from eve_jax.compile.products import attention_flops
from eve_jax.config.stages import partition, stage_factors, trained_groups
from eve_jax.model import decoder, loss
from eve_jax.model.config import VARIANTS, ModelConfig
from eve_jax.model.eve import abstract_params
from eve_jax.model.llms import llm_sizes
from eve_jax.sharding import make_mesh
from eve_jax.train.flops import slots, step_flops
from eve_jax.train.step import gradient_sums

SHAPE = RowShape(60, 12, 56)


@pytest.mark.parametrize(
    ("stage", "variant", "changes", "by_targets"),
    [
        ("3", "dac", {"remat": "attention"}, False),
        ("1", "dense", {"remat": "full", "tie_embeddings": False}, True),
        ("2.1", "rep", {"remat": "none"}, False),
        ("3", "dac", {"remat": "full", "routing": "masked"}, True),
    ],
)
def test_formula_is_what_the_compiler_finds(stage, variant, changes, by_targets, monkeypatch):
    monkeypatch.setattr(loss, "VOCAB_CHUNK", 300)  # a single chunk would not be computed again
    monkeypatch.setattr(decoder, "UNROLLED", 0)  # as on accelerators: a first layer by itself is spared a product
    monkeypatch.setattr(loss, "by_targets", lambda: by_targets)
    tiny = ModelConfig.from_dict({**llm_sizes("tiny"), "parts": VARIANTS[variant], "patch_hidden": 32})
    cfg = dataclasses.replace(tiny, **changes)
    trainable, frozen = partition(cfg, abstract_params(cfg), stage_factors(stage))
    batch = abstract_batch(SHAPE, 2, make_mesh("fsdp:-1", jax.devices()[:1]))

    def gradients(trainable, frozen, batch):
        return gradient_sums(cfg, trainable, frozen, batch)

    lowered = jax.jit(gradients).lower(trainable, frozen, batch)
    text = lowered.compile({"xla_backend_optimization_level": "0"}).as_text()  # machine code is not needed
    counts = count(text or "")
    found = counts.flops - attention_flops(counts)
    expected = step_flops(cfg, trained_groups(stage_factors(stage)), slots(cfg, SHAPE, 2), logits_again=not by_targets)
    assert found == pytest.approx(expected.model + expected.again, rel=1e-6)


def test_branches_share_the_executions():
    """A switch in a loop, whose branches multiply by 64, 128 and 192 columns."""
    sizes = (64, 128, 192)

    def function(x, weight, which):
        branches = [lambda x, n=n: x @ (weight[:, :n] @ weight[:, :n].T) for n in sizes]
        return jax.lax.scan(lambda x, i: (jax.lax.switch(i, branches, x), None), x, which)[0]

    x, weight, which = jnp.ones((256, 256)), jnp.ones((256, 192)), jnp.zeros(6, jnp.int32)
    found = count(jax.jit(function).lower(x, weight, which).compile().as_text() or "").flops
    assert found == pytest.approx(6 * sum(2 * 256 * 256 * (n + 256) for n in sizes) / 3, rel=1e-6)
