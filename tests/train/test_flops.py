"""Model FLOPs of a step by formula, and the peaks of chips."""

import dataclasses

import numpy as np
import pytest

from eve_jax.batch import RowShape
from eve_jax.config.stages import stage_factors, trained_groups
from eve_jax.model.config import ModelConfig
from eve_jax.model.llms import llm_sizes
from eve_jax.train.flops import Tokens, add, batch_tokens, peak_flops, slots, step_flops

SHAPE = RowShape(60, 12, 56)
ALL = trained_groups(stage_factors("3"))


def test_a_text_token_of_qwen_7b_costs_six_flops_a_weight():
    """Qwen2.5-7B has 6.53 G weights in its layers, 0.545 G in its head (its model card: 6.53 G without embeddings)."""
    cfg = ModelConfig.from_dict(llm_sizes("qwen2.5-7b"))
    flops = step_flops(cfg, ALL, Tokens(patches=0, specials=0, text=1, targets=1, pairs=0))
    assert flops.model / 6 == pytest.approx(6.53e9 + 0.545e9, rel=1e-3)
    frozen = step_flops(
        cfg, trained_groups(stage_factors("1")), Tokens(patches=0, specials=0, text=1, targets=1, pairs=0)
    )
    assert frozen.model == pytest.approx(flops.model * 2 / 3)
    assert flops.useful == flops.model


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("cpu", None),
    ],
)
def test_peaks_by_device_kind(kind, peak):
    assert peak_flops(kind) == peak


def test_masked_routing_wastes_what_it_computes():
    """Model FLOPs are the routed ones either way."""
    cfg = ModelConfig.from_dict(llm_sizes("tiny"))
    masked = dataclasses.replace(cfg, routing="masked")
    split_flops, masked_flops = (step_flops(c, ALL, slots(SHAPE, 2)) for c in (cfg, masked))
    assert masked_flops.model == split_flops.model
    assert masked_flops.again > split_flops.again


def test_attention_pairs():
    cfg = ModelConfig.from_dict(llm_sizes("tiny"))
    whole, quarters = (slots(RowShape(0, 0, 512), 3, n) for n in (1, 4))
    assert whole.pairs == 3 * 512 * 513 / 2
    assert quarters.pairs == 3 * 4 * 128 * 129 / 2
    assert whole[:4] == quarters[:4]
    flops = step_flops(cfg, ALL, whole)
    assert flops.attention == 3 * 4 * cfg.num_layers * cfg.num_heads * cfg.head_dim * whole.pairs


def test_tokens_of_a_batch():
    batch = {
        "patches": np.zeros((2, 3, 3072), np.uint8),
        "special_ids": np.array([[1, 2], [0, 0]]),
        "segment": np.array([[1, 1, 2, 1, 2, 1, 0, 2], [0, 0, 0, 0, 0, 1, 1, 1]]),
        "position": np.array([[0, 1, 0, 2, 1, 3, 0, 2], [0, 0, 0, 0, 0, 0, 1, 2]]),
        "loss_weight": np.array([[1.0, 0, 0.5], [0, 0, 1.0]]),
    }
    tokens = batch_tokens(batch)
    pairs = 4 * 5 / 2 + 3 * 4 / 2 + 3 * 4 / 2
    assert tokens == Tokens(patches=3, specials=2, text=5, targets=3, pairs=pairs)
    assert tokens.total == 10
    assert add([tokens, tokens]) == Tokens(6, 4, 10, 6, 2 * pairs)
