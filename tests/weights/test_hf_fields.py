"""Fields of config.json: rotary positions and all else that changes the model is understood or refused by name."""

from pathlib import Path
from typing import Any

import pytest

from eve_jax.errors import UserError
from eve_jax.hf.config import model_config
from eve_jax.hf.tensors import HfSource
from eve_jax.model.config import ModelConfig
from tests import reference as ref
from tests.weights import folders

PATCH = {"patch_embed": "v2", "patch_hidden": 64, "sub_patch": 16}
SCALED = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LLAMA3 = {"rope_type": "llama3", **SCALED}
VALUES = tuple(SCALED.values())
DEFAULT = {"rope_type": "default", "rope_theta": 1e6}


def read(kind: str = "qwen2", **fields: Any) -> ModelConfig:
    """The sizes that a plain LLM's config.json with `fields` means; without rope_theta unless they have it."""
    config = {k: v for k, v in folders.plain(kind)[1].items() if k != "rope_theta"} | fields
    return model_config({k: v for k, v in config.items() if v != "drop"}, Path("FOLDER"), **PATCH)


UNDERSTOOD: dict[str, tuple[dict[str, Any], float, tuple[float, ...]]] = {
    "alone": ({"rope_theta": 5e5}, 5e5, ()),
    "of the config class": ({}, 1e4, ()),
    "null": ({"rope_theta": 5e5, "rope_scaling": None, "rope_parameters": None}, 5e5, ()),
    "empty": ({"rope_theta": 5e5, "rope_scaling": {}}, 5e5, ()),
    "parameters": ({"rope_parameters": DEFAULT}, 1e6, ()),
    "both places": ({"rope_theta": 1e6, "rope_parameters": DEFAULT}, 1e6, ()),
    "theta next to parameters": ({"rope_theta": 1e6, "rope_parameters": {"rope_type": "default"}}, 1e6, ()),
    "nulls within": ({"rope_parameters": DEFAULT | {"factor": None, "beta_fast": None}}, 1e6, ()),
    "whole heads": ({"rope_theta": 1e6, "partial_rotary_factor": 1.0}, 1e6, ()),
    "by kind of layer": ({"rope_parameters": {"full_attention": DEFAULT}}, 1e6, ()),
    "same for all kinds": ({"rope_parameters": {"full_attention": DEFAULT, "sliding_attention": DEFAULT}}, 1e6, ()),
    "a kind without": ({"rope_parameters": {"full_attention": DEFAULT, "sliding_attention": None}}, 1e6, ()),
    "llama3": ({"rope_theta": 5e5, "rope_scaling": LLAMA3}, 5e5, VALUES),
    "llama3 by its older name": ({"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **SCALED}}, 5e5, VALUES),
    "llama3 by both names": ({"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **LLAMA3}}, 5e5, VALUES),
    "llama3 in parameters": ({"rope_parameters": {"rope_theta": 5e5, **LLAMA3}}, 5e5, VALUES),
    "llama3 by kind of layer": ({"rope_parameters": {"full_attention": {"rope_theta": 5e5, **LLAMA3}}}, 5e5, VALUES),
    "off": ({"rope_theta": 1e6, "use_mrope": False, "rope_local_base_freq": None}, 1e6, ()),
}


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("case", UNDERSTOOD)
def test_positions_understood(kind, case):
    fields, theta, scaling = UNDERSTOOD[case]
    cfg = read(kind, **fields)
    assert (cfg.rope_theta, cfg.rope_scaling) == (theta, scaling)


def scaled(kind: str, **fields: Any) -> dict:
    return {"rope_theta": 1e6, "rope_scaling": {"rope_type": kind, **fields}}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "linear without factor": (scaled("linear"), "rope_scaling of type linear has no field 'factor'"),
    "dynamic": (scaled("dynamic", factor=4.0), "rope_scaling of type 'dynamic'"),
    "yarn without factor": (scaled("yarn"), "rope_scaling of type yarn has no field 'factor'"),
    "yarn turned around": (scaled("yarn", factor=4.0, beta_fast=1), "rope_scaling.beta_fast is 1, not above beta_slow"),
    "yarn's ends": (scaled("yarn", factor=4.0, truncate=1), "rope_scaling.truncate is 1: expected true or false"),
    "yarn's mscale": (scaled("yarn", factor=4.0, mscale=0, mscale_all_dim=1), "rope_scaling.mscale is 0: expected a"),
    "longrope": (scaled("longrope", short_factor=[1.0], long_factor=[1.0]), "rope_scaling of type 'longrope'"),
    "proportional": (scaled("proportional"), "rope_scaling of type 'proportional'"),
    "mrope": (scaled("mrope", mrope_section=[1, 1, 2]), "rope_scaling of type 'mrope'"),
    "sections": (scaled("default", mrope_section=[1, 1, 2]), "rope_scaling.mrope_section is [1, 1, 2]"),
    "a factor without type": ({"rope_theta": 1e6, "rope_scaling": {"factor": 4.0}}, "rope_scaling.factor is 4.0"),
    "unknown of llama3": ({"rope_scaling": LLAMA3 | {"attention_factor": 1.2}}, "rope_scaling.attention_factor is 1.2"),
    "two types": ({"rope_scaling": LLAMA3 | {"type": "default"}}, "rope_scaling.rope_type is llama3, but"),
    "missing in llama3": ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "no field 'low_freq_factor'"),
    "text in llama3": ({"rope_scaling": LLAMA3 | {"factor": "8"}}, "rope_scaling.factor is '8'"),
    "turned around": ({"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "rope_scaling.low_freq_factor is 4.0"),
    "two contexts": (
        {"rope_scaling": LLAMA3, "original_max_position_embeddings": 4096},
        "original_max_position_embeddings is 8192, but",
    ),
    "two thetas": ({"rope_theta": 1e4, "rope_parameters": DEFAULT}, "rope_parameters.rope_theta is 1000000.0, but"),
    "two scalings": (
        {"rope_scaling": LLAMA3, "rope_parameters": DEFAULT},
        "rope_parameters is (), but rope_scaling is",
    ),
    "no theta": ({"rope_parameters": {"rope_type": "default"}}, "rope_parameters has no rope_theta"),
    "no theta by kind": (
        {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
        "rope_parameters.full_attention has no rope_theta",
    ),
    "kinds differ": (
        {"rope_parameters": {"full_attention": DEFAULT, "sliding_attention": DEFAULT | {"rope_theta": 1e4}}},
        "rope_parameters.sliding_attention is not the same",
    ),
    "no full attention": ({"rope_parameters": {"sliding_attention": DEFAULT}}, "has no field 'full_attention'"),
    "unknown kind": ({"rope_parameters": {"global": DEFAULT}}, "rope_parameters.global is not understood"),
    "flat and by kind": (
        {"rope_parameters": DEFAULT | {"full_attention": DEFAULT}},
        "rope_parameters.rope_type is not understood next to rope_parameters.full_attention",
    ),
    "part of a head": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    "part of a head, within": (
        {"rope_parameters": DEFAULT | {"partial_rotary_factor": 0.5}},
        "rope_parameters.partial_rotary_factor is 0.5",
    ),
    "local base": ({"rope_local_base_freq": 1e4}, "rope_local_base_freq is 10000.0"),
    "use_mrope": ({"use_mrope": True}, "use_mrope is True"),
    "rotary_pct": ({"rotary_pct": 0.25}, "rotary_pct is 0.25"),
    "dynamic ntk": ({"use_dynamic_ntk": True}, "use_dynamic_ntk is True"),
    "ntk_alpha": ({"ntk_alpha": 8.0}, "ntk_alpha is 8.0"),
    "yarn of its own": ({"yarn": {"factor": 4}}, "yarn is {'factor': 4}"),
    "long factors": ({"long_factor": [1.0, 2.0]}, "long_factor is [1.0, 2.0]"),
    "a factor of positions": ({"position_scaling_factor": 2.0}, "position_scaling_factor is 2.0"),
    "encoding": ({"positional_encoding": "alibi"}, "positional_encoding is 'alibi'"),
    "embedding": ({"pos_embedding": "learned"}, "pos_embedding is 'learned'"),
    "no positions": ({"use_rope": False}, "use_rope is False"),
    "no rotary": ({"rotary": False}, "rotary is False"),
    "no rotary embeddings": ({"use_rotary_embeddings": False}, "use_rotary_embeddings is False"),
    "xpos": ({"xpos": True}, "xpos is True"),
    "theta": ({"rope_theta": 1e6, "theta": 1e4}, "theta is 10000.0"),
    "freq_base": ({"rope_theta": 1e6, "freq_base": 5e5}, "freq_base is 500000.0"),
    "rotary_emb_base": ({"rope_theta": 1e6, "rotary_emb_base": 1e4}, "rotary_emb_base is 10000.0"),
    "interpolation": ({"seq_len_interpolation_factor": 2.0}, "seq_len_interpolation_factor is 2.0"),
    "scaled context": ({"context_scaling": 4}, "context_scaling is 4"),
    "length": ({"seq_length_scale": 4}, "seq_length_scale is 4"),
    "frequencies": ({"low_freq_factor": 1.0, "high_freq_factor": 4.0}, "high_freq_factor is 4.0"),
    "betas": ({"beta_fast": 32}, "beta_fast is 32"),
    "mscale": ({"mscale": 0.7}, "mscale is 0.7"),
    "layers without": ({"nope_layers": [1]}, "nope_layers is [1]"),
    "logn": ({"use_logn_attn": True}, "use_logn_attn is True"),
    "kinds of no layer": (
        {"rope_parameters": {"main": DEFAULT}},
        "rope_parameters.main is not understood; known kinds of layers: full_attention, ",
    ),
    "no object": ({"rope_scaling": ["linear", 2.0]}, "rope_scaling is ['linear', 2.0]: expected an object"),
    "false": ({"rope_parameters": False}, "rope_parameters is False: expected an object"),
    "text": ({"rope_theta": "1e6"}, "rope_theta is '1e6': expected a number above 0"),
    "zero": ({"rope_theta": 0}, "rope_theta is 0: expected a number above 0"),
    "infinite": ({"rope_theta": float("inf")}, "rope_theta is inf: expected a number above 0"),
    "larger than a float": ({"rope_theta": 10**400}, "000: expected a number above 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_positions_refused(case):
    fields, message = REFUSED[case]
    refused(message, **fields)


def refused(message: str, kind: str = "qwen2", **fields: Any) -> None:
    with pytest.raises(UserError) as error:
        read(kind, **fields)
    assert message in str(error.value)
    assert str(error.value).startswith("FOLDER/config.json")
    assert "\n" not in str(error.value)


FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "window": ({"use_sliding_window": True, "sliding_window": 64}, "use_sliding_window is True"),
    "kinds of layers": ({"layer_types": ["full_attention", "sliding_attention"]}, "'sliding_attention' in layer_types"),
    "too few kinds": ({"layer_types": ["full_attention"]}, "layer_types is not a list of one entry a layer"),
    "chunks": ({"attention_chunk_size": 64}, "attention_chunk_size is 64"),
    "attention_bias": ({"attention_bias": True}, "attention_bias"),
    "mlp_bias": ({"mlp_bias": True}, "mlp_bias is True"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    "qk_norm": ({"qk_norm": True}, "qk_norm is True"),
    "softcapping": ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
    "scale_emb": ({"scale_emb": 12}, "scale_emb is 12"),
    "attention_scaling": ({"attention_scaling": 0.5}, "attention_scaling is 0.5"),
    "a factor that is true": ({"scale_emb": True}, "scale_emb is True"),
    "a number that is true": ({"num_experts": True}, "num_experts is True"),
    "a size that is true": ({"num_key_value_heads": True}, "num_key_value_heads is True"),
    "temperature": ({"attn_temperature_tuning": True}, "attn_temperature_tuning is True"),
    "experts": ({"num_experts": 8}, "num_experts is 8"),
    "quantized": ({"quantization_config": {"quant_method": "gptq"}}, "quantized weights"),
    "load_in_8bit": ({"load_in_8bit": True}, "quantized weights (load_in_8bit is True)"),
    "load_in_4bit": ({"load_in_4bit": True}, "quantized weights (load_in_4bit is True)"),
    "quantized by another name": ({"quantize": "int8"}, "quantized weights (quantize is 'int8')"),
    "activation_function": ({"activation_function": "gelu"}, "another activation (activation_function is 'gelu')"),
    "act_fn": ({"act_fn": "relu"}, "another activation (act_fn is 'relu')"),
    "norm_type": ({"norm_type": "layernorm"}, "another norm (norm_type is 'layernorm')"),
    "normalization": ({"normalization": "LayerNorm"}, "another norm (normalization is 'LayerNorm')"),
    "bias": ({"bias": True}, "biases (bias is True)"),
    "biases of products": ({"add_bias_linear": True}, "biases (add_bias_linear is True)"),
    "norm_eps": ({"norm_eps": 1e-3}, "norm_eps is 0.001, but rms_norm_eps is 1e-05"),
    "layer_norm_epsilon": ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06, but rms_norm_eps is 1e-05"),
    "norm_eps alone": ({"rms_norm_eps": "drop", "norm_eps": 1e-3}, "norm_eps is 0.001, but rms_norm_eps is 1e-06"),
    "a flag in text": ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false': expected true or false"),
    "a section of text": ({"text_config": {"hidden_size": 4}}, "multimodal model of another family"),
    "heads": ({"head_dim": "drop", "num_attention_heads": 5}, "hidden_size 48 is no multiple of num_attention_heads 5"),
    "odd heads": ({"head_dim": 15}, "heads of size 15"),
    "groups": ({"num_key_value_heads": 3}, "num_key_value_heads=3"),
    "no groups": ({"num_key_value_heads": 0}, "num_key_value_heads is 0"),
    "a size in text": ({"vocab_size": "320"}, "vocab_size is '320'"),
    "eps": ({"rms_norm_eps": "1e-6"}, "rms_norm_eps is '1e-6'"),
    "null size": ({"hidden_size": None}, "hidden_size is None"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_fields_refused(case):
    fields, message = FIELDS[case]
    refused(message, **fields)


def eve(kind: str, **fields: Any) -> ModelConfig:
    """The sizes of golden A's (EVEv2) or D1's (EVEv1) config.json with `fields`."""
    config = ref.read_json("A_config") if kind == "v2" else ref.read_json("D1_config")["model"]
    return model_config(config | fields, Path("FOLDER"))


IMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "padded": ({"image_aspect_ratio": "pad"}, "images that are padded or cut (image_aspect_ratio is 'pad')"),
    "cut": ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio is 'anyres'"),
    "grids": ({"image_grid_pinpoints": [[336, 672]]}, "image_grid_pinpoints is [[336, 672]]"),
    "start and end": ({"mm_use_im_start_end": True}, "tokens around an image (mm_use_im_start_end is True)"),
    "in text": ({"mm_use_im_start_end": "true"}, "mm_use_im_start_end is 'true': expected true or false"),
    "a patch token": ({"mm_use_im_patch_token": True}, "mm_use_im_patch_token is True"),
    "merged": ({"mm_patch_merge_type": "spatial_unpad"}, "mm_patch_merge_type is 'spatial_unpad'"),
    "resampled": ({"mm_resampler_type": "perceiver"}, "mm_resampler_type is 'perceiver'"),
    "class token": ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature is 'cls_patch'"),
}
IMAGES_V1: dict[str, tuple[dict[str, Any], str]] = {
    "projector": ({"mm_projector_type": "linear"}, "another projector (mm_projector_type is 'linear')"),
    "layer": ({"mm_vision_select_layer": -1}, "another layer of the teacher (mm_vision_select_layer is -1)"),
}


@pytest.mark.parametrize(
    ("kind", "case"), [*(("v1", c) for c in IMAGES | IMAGES_V1), *(("v2", c) for c in IMAGES)], ids=str
)
def test_fields_of_images_refused(kind, case):
    fields, message = (IMAGES | IMAGES_V1)[case]
    with pytest.raises(UserError, match=r"^FOLDER/config\.json: ") as error:
        eve(kind, **fields)
    assert message in str(error.value)


def test_fields_of_images_that_change_nothing(tmp_path, capsys):
    same = {"image_aspect_ratio": "square", "image_grid_pinpoints": None, "mm_use_im_start_end": None}
    training = {"tune_mm_mlp_adapter": True, "freeze_mm_mlp_adapter": False, "mm_projector_lr": 1e-5}
    fields = same | training | {"mm_use_im_patch_token": False, "mm_patch_merge_type": "flat"}
    for kind in ("v1", "v2"):
        assert eve(kind, **fields) == eve(kind)
    assert eve("v2", mm_projector_type="linear", mm_vision_select_layer=-1) == eve("v2")  # of EVEv1's modules
    tensors, config = folders.golden()
    HfSource(folders.write_hf(tmp_path / "hf", tensors, config | fields))
    assert capsys.readouterr().err == ""
    HfSource(folders.write_hf(tmp_path / "other", tensors, config | {"mm_newline_position": "grid"}))
    assert (
        "other/config.json: fields that are not understood are ignored: mm_newline_position" in capsys.readouterr().err
    )


def test_window_of_llama():
    refused("sliding_window is 64", "llama", sliding_window=64)
    read("llama", sliding_window=128, max_position_embeddings=128)
    read("llama", sliding_window=64, use_sliding_window=False)
    read("qwen2", sliding_window=64)  # Qwen2 has one only with use_sliding_window


def test_what_changes_nothing():
    plain = read(rope_theta=5e5)
    same: dict[str, Any] = {
        "quantization_config": {},
        "text_config": {},
        "eve_jax": None,
        "layer_types": ["full_attention"] * 2,
        "hidden_act": "silu",
        "num_experts": None,
        "logit_scale": 1.0,
        "pretraining_tp": 2,  # sums in another order
        "_name_or_path": "somewhere",
        "sliding_window": 4096,
        "max_window_layers": 1,
        "tie_word_embeddings": None,
        "rms_norm_eps": 1e-5,
        "norm_eps": 1e-5,
        "norm_type": "RMSNorm",
        "activation_function": "silu",
        "bias": False,
        "qkv_bias": True,  # as Qwen2 has them
        "no_bias": True,
        "load_in_8bit": False,
        "theta": 5e5,
        "rotary_pct": 1.0,
        "ntk_alpha": 1.0,
        "yarn": {},
        "nope_layers": [],
        "use_dynamic_ntk": False,
        "use_rope": True,
        "rotary_emb": True,
        "positional_encoding": "rope",
        "n_positions": 2048,
    }
    for name, value in same.items():
        assert read(rope_theta=5e5, **{name: value}) == plain, name


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_missing_fields_are_those_of_the_config_class(kind):
    cfg = read(kind, tie_word_embeddings="drop", rms_norm_eps="drop", num_key_value_heads="drop", head_dim="drop")
    assert (cfg.tie_embeddings, cfg.rms_norm_eps, cfg.num_kv_heads, cfg.head_dim) == (False, 1e-6, 4, 12)


def test_unknown_fields_are_named(tmp_path, capsys):
    tensors, config = folders.plain("qwen2")
    HfSource(folders.write_hf(tmp_path / "hf", tensors, config | {"depth_of_thought": 3, "mtp": True, "unset": None}))
    assert capsys.readouterr().err.endswith(
        "hf/config.json: fields that are not understood are ignored: depth_of_thought, mtp\n"
    )
    HfSource(folders.write_hf(tmp_path / "eve", *folders.golden()))
    HfSource(folders.write_hf(tmp_path / "llama", *folders.golden_llama()))
    assert capsys.readouterr().err == ""
