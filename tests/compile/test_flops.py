"""The formula for a step's FLOPs against the products that the compiler is left with."""

import dataclasses

import jax
import numpy as np
import pytest

from eve_jax.compile.abstract import abstract_batch
from eve_jax.compile.count import count
from eve_jax.compile.flops import Tokens, add, batch_tokens, slots, step_flops
from eve_jax.compile.report import attention_flops
from eve_jax.data.shapes import RowShape
from eve_jax.model.config import VARIANTS, ModelConfig, llm_sizes
from eve_jax.model.eve import abstract_params
from eve_jax.sharding import make_mesh
from eve_jax.train import loss
from eve_jax.train.stages import partition
from eve_jax.train.step import gradient_sums

SHAPE = RowShape(60, 12, 56)


@pytest.mark.parametrize(
    ("stage", "variant", "changes"),
    [
        ("3", "dac", {"remat": "attention"}),
        ("1", "dense", {"remat": "full", "tie_embeddings": False}),
        ("2.1", "rep", {"remat": "none"}),
        ("3", "dac", {"remat": "full", "routing": "masked"}),
    ],
)
def test_formula_is_what_the_compiler_finds(stage, variant, changes, monkeypatch):
    monkeypatch.setattr(loss, "VOCAB_CHUNK", 300)  # a single chunk would not be computed again
    tiny = ModelConfig.from_dict({**llm_sizes("tiny"), "parts": VARIANTS[variant], "patch_hidden": 32})
    cfg = dataclasses.replace(tiny, **changes)
    trainable, frozen = partition(abstract_params(cfg), stage)
    batch = abstract_batch(SHAPE, 2, make_mesh("fsdp:-1", jax.devices()[:1]))

    def gradients(trainable, frozen, batch):
        return gradient_sums(cfg, trainable, frozen, batch)

    lowered = jax.jit(gradients).lower(trainable, frozen, batch)
    text = lowered.compile({"xla_backend_optimization_level": "0"}).as_text()  # machine code is not wanted
    counts = count(text or "")
    found = counts.flops - attention_flops(counts)
    expected = step_flops(cfg, stage, slots(SHAPE, 2))
    assert found == pytest.approx(expected.model + expected.again, rel=1e-6)


def test_masked_routing_wastes_what_it_computes():
    """Model FLOPs are the routed ones either way."""
    cfg = ModelConfig.from_dict(llm_sizes("tiny"))
    masked = dataclasses.replace(cfg, routing="masked")
    split_flops, masked_flops = (step_flops(c, "3", slots(SHAPE, 2)) for c in (cfg, masked))
    assert masked_flops.model == split_flops.model
    assert masked_flops.again > split_flops.again


def test_attention_pairs():
    cfg = ModelConfig.from_dict(llm_sizes("tiny"))
    whole, quarters = (slots(RowShape(0, 0, 512), 3, n) for n in (1, 4))
    assert whole.pairs == 3 * 512 * 513 / 2
    assert quarters.pairs == 3 * 4 * 128 * 129 / 2
    assert whole[:4] == quarters[:4]
    flops = step_flops(cfg, "3", whole)
    assert flops.attention == 3 * 4 * cfg.num_layers * cfg.num_heads * cfg.head_dim * whole.pairs


def test_tokens_of_a_batch():
    batch = {
        "patches": np.zeros((2, 3, 3072), np.uint8),
        "special_ids": np.array([[1, 2], [0, 0]]),
        "segment": np.array([[1, 1, 2, 1, 2, 1, 0, 2], [0, 0, 0, 0, 0, 1, 1, 1]]),
        "loss_weight": np.array([[1.0, 0, 0.5], [0, 0, 1.0]]),
    }
    tokens = batch_tokens(batch)
    pairs = 4 * 5 / 2 + 3 * 4 / 2 + 3 * 4 / 2
    assert tokens == Tokens(patches=3, specials=2, text=5, targets=3, pairs=pairs)
    assert tokens.total == 10
    assert add([tokens, tokens]) == Tokens(6, 4, 10, 6, 2 * pairs)
