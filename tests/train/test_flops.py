"""Model FLOPs of a step by formula, and the peaks of chips."""

import math
from dataclasses import replace

import numpy as np
import pytest

from configs import dt, fig2, ve
from eve_jax.batch import RowShape
from eve_jax.config.stage import Config
from eve_jax.config.stages import stage_factors, trained_groups
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import abstract_params, declared
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
    masked = replace(cfg, routing="masked")
    split_flops, masked_flops = (step_flops(c, ALL, slots(c, SHAPE, 2)) for c in (cfg, masked))
    assert masked_flops.model == split_flops.model
    assert masked_flops.again > split_flops.again


def test_attention_pairs():
    cfg = ModelConfig.from_dict(llm_sizes("tiny"))
    whole, quarters = (slots(cfg, RowShape(0, 0, 512), 3, n) for n in (1, 4))
    assert whole.pairs == 3 * 512 * 513 / 2
    assert quarters.pairs == 3 * 4 * 128 * 129 / 2
    assert whole[:4] == quarters[:4]
    flops = step_flops(cfg, ALL, whole)
    assert flops.attention == 3 * 4 * cfg.num_layers * cfg.num_heads * cfg.head_dim * whole.pairs


def test_a_vision_encoder_sees_whole_images():
    cfg = Config.of(fig2.get_config("tiny").stages.ve_0_stage1).sizes
    assert cfg.encoder is not None and cfg.encoder.cells == 6
    found = slots(cfg, RowShape(154, 2, 100), 3)
    assert found[:3] == (3 * 144, 3 * (2 + 10), 300) and found.total == 3 * 256


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


@pytest.mark.parametrize(("stage", "backward"), [("1", 0), ("2", 2), ("3", 2)])
def test_a_vision_encoder_by_arithmetic(stage, backward):
    """CLIP ViT-L/14-336 on Vicuna-7B: 23 of its 24 layers, 576 patches and the class token that all see each other."""
    config = Config.of(ve.get_config(f"stage={stage},llm=vicuna-7b"))
    counts = dict.fromkeys(("encoder", "patch_embed", "text"), 0)
    shapes, weights = abstract_params(config.sizes), declared(config.sizes)
    for name, weight in weights.items():
        counts[weight.group] += math.prod(shapes[name].shape)
    assert counts == {
        "encoder": pytest.approx(303.5e6, rel=1e-3),
        "patch_embed": 1024 * 4096 + 4096 + 4096 * 4096 + 4096,
        "text": pytest.approx(6.738e9, rel=1e-3),
    }
    images = Tokens(patches=576 * 10, specials=0, text=0, targets=0, pairs=0)
    trains = trained_groups(config.factors)
    assert ("encoder" in trains) == (backward > 0)
    found = step_flops(config.sizes, trains, images)
    attention = 4 * 1024 * 577**2 * 23
    assert found.attention == pytest.approx(10 * attention * (1 + backward))
    assert found.kernel == 0
    layers, pixels = 2 * 23 * 12 * 1024**2 * 577, 2 * 576 * 3 * 14**2 * 1024
    without = step_flops(replace(config.sizes, patch_embed="vq", encoder=None, codes=16), trains, images)
    projector = 2 * 576 * counts["patch_embed"]
    tower = layers * (1 + backward) + pixels * (1 + backward // 2)
    assert found.model - without.model == pytest.approx(10 * (tower + projector * 3), rel=1e-3)
    assert 10 * attention / (10 * (layers + pixels)) == pytest.approx(0.093, abs=0.001), "the 9% that it adds"


def test_a_vision_vocabulary_by_arithmetic():
    """16,384 codes on Vicuna-7B: a row of the table is looked up, which no product is."""
    config = Config.of(dt.get_config("stage=2,llm=vicuna-7b"))
    shapes, weights = abstract_params(config.sizes), declared(config.sizes)
    table = sum(math.prod(shapes[name].shape) for name, weight in weights.items() if weight.group == "vocabulary")
    assert table == 16_384 * 4096
    tokens = Tokens(patches=1024, specials=0, text=100, targets=100, pairs=0)
    found = step_flops(config.sizes, trained_groups(config.factors), tokens)
    layers = 32 * (4 * 4096**2 + 3 * 4096 * 11_008)
    assert found.model == pytest.approx(6 * (layers * 1124 + 32_000 * 4096 * 100))
    assert found.attention == 0
