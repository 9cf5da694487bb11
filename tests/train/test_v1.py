"""EVEv1's stages through the trainer: what trains, the aligning loss, and what a stage without it leaves behind."""

import json

import numpy as np
import pytest

from configs import demo_v1, evev1, v1_prealign, v1_pretrain, v1_sft
from eve_jax.errors import UserError
from eve_jax.hf.clip_teacher import describe_teacher
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, declared
from eve_jax.train.metrics import read_metrics
from eve_jax.train.trainer import train
from eve_jax.weights.open import load_params
from tests.data.synthetic import byte_tokenizer, write_records

SIZES = (4096, 11008, 32, 32, 32, 128, 32000)


@pytest.mark.parametrize(
    ("config", "lr", "warmup", "size", "row_tokens", "aligns", "template"),
    [
        (v1_prealign.get_config(), 4e-4, 0.03, 672, 2048, True, "plain_v1"),
        (v1_pretrain.get_config(), 4e-5, 0.01, 672, 2048, True, "plain_v1"),
        (v1_sft.get_config(), 2e-5, 0.01, 672, 2048, False, "v1"),
        (v1_sft.get_config("hd"), 2e-5, 0.01, 1344, 4096, False, "v1"),
        (v1_sft.get_config("aligned"), 2e-5, 0.01, 672, 2048, True, "v1"),
    ],
)
def test_the_papers_values(config, lr, warmup, size, row_tokens, aligns, template):
    cfg = ModelConfig.from_dict(config.model.to_dict())
    assert (config.optim.lr, config.optim.warmup) == (lr, warmup)
    assert (config.data.max_size, config.data.row_tokens, config.data.template) == (size, row_tokens, template)
    assert (cfg.aligns, cfg.align_levels) == (aligns, 9 if aligns else 0)
    assert (cfg.patch_embed, cfg.sub_patch, config.data.patch, cfg.patch_hidden, cfg.parts) == ("v1", 14, 28, 1024, ())
    heads = (cfg.num_heads, cfg.num_kv_heads, cfg.head_dim, cfg.vocab_size)
    assert (cfg.hidden_size, cfg.intermediate_size, cfg.num_layers, *heads) == SIZES


def test_recipe_in_order():
    config = evev1.get_config("llm=vicuna-7b")
    assert config.order == ("v1_prealign", "v1_pretrain", "v1_sft")
    assert [config.stages[name].stage for name in config.order] == ["1", "2.2", "3"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data.image_mode": "anyratio_hd"}, "aligning loss requires square"),
        ({"data.teacher": (112, 28)}, r"config\.data\.teacher=\(112, 28\), but config\.model\.teacher sees"),
        ({"data.patch": 28}, r"config\.data\.patch=28 is not twice config\.model\.sub_patch="),
        ({"model.align_weight": -1.0}, r"model\.align_weight=-1\.0"),
        ({"model.align_weight": float("nan")}, r"model\.align_weight=nan"),
        ({"model.patch_hidden": 60}, r"model\.patch_hidden=60"),
        ({"teacher": "nowhere"}, "nowhere"),
    ],
)
def test_what_does_not_fit_is_noticed_at_once(tmp_path, change, says):
    c = demo_v1.stage("v1_prealign", "1", "qwen2", "", 4, 3e-3, tiny=True)
    c.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=says):
        train(c, tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs" / "v1_prealign" / "plan").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"patch_size": 0}, r"config\.json: teacher\.patch_size=0"),
        ({"num_attention_heads": 0}, r"teacher\.num_heads=0"),
        ({"hidden_size": "64"}, r"teacher\.hidden_size='64'"),
        ({"image_size": [56, 56]}, r"teacher\.image_size=\[56, 56\]"),
        ({"layer_norm_eps": "x"}, "layer_norm_eps='x'"),
        ({"hidden_act": "relu"}, r"config\.json: .*relu"),
        ({"vision_config": [1]}, r"vision_config is \[1\]"),
        ({"model_type": "clip"}, "vision_config is None"),
    ],
)
def test_a_teacher_that_cannot_be(tmp_path, change, says):
    sizes = {"model_type": "clip_vision_model", "image_size": 56, "patch_size": 14, "hidden_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(sizes | change))
    with pytest.raises(UserError, match=says):
        describe_teacher(tmp_path)


@pytest.mark.slow
def test_stages(tmp_path):
    """Pre-alignment leaves the LLM as it was and the teacher in the checkpoint; fine-tuning goes on without either."""
    records = write_records(tmp_path, 24)
    byte_tokenizer().save(tmp_path / "tokenizer")
    params: dict[str, Params] = {}
    groups: dict[str, str] = {}
    before, init = {}, ""
    for name, kind in (("v1_prealign", "1"), ("v1_sft", "3")):
        c = demo_v1.stage(name, kind, "qwen2", "", 4, 3e-3, tiny=True)
        c.data.records, c.data.images, c.data.tokenizer = (
            str(records),
            str(tmp_path / "images"),
            str(tmp_path / "tokenizer"),
        )
        c.data.max_tokens = c.data.row_tokens = 1024
        c.data.max_shapes = c.data.rows = 1
        c.data.micro_batches = 2 if kind == "1" else 1
        c.optim.warmup = 0.0
        c.train.steps, c.init = 4, init
        init = str(train(c, tmp_path / "runs", quiet=True))
        cfg, params[name] = load_params(tmp_path / "runs" / name)
        groups |= {n: weight.group for n, weight in declared(cfg).items()}
        before[name] = read_metrics(tmp_path / "runs" / name)
    first, last = before["v1_prealign"], before["v1_sft"]
    assert first[-1]["align_loss"] < first[0]["align_loss"] < 1.2
    assert "align_loss" not in last[0]
    assert {g for n, g in groups.items() if n not in params["v1_sft"]} == {"align", "teacher"}
    moved = {n for n in params["v1_sft"] if not np.array_equal(params["v1_prealign"][n], params["v1_sft"][n])}
    assert {groups[n] for n in moved} == {"patch_embed", "text"}
