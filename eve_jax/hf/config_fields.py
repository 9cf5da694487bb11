"""Fields of a Hugging Face config.json that the sizes do not say: what changes the model is refused, by name.

Every field is one that is read, one that changes nothing here, one that must have the value of the implemented model,
or unknown; of unknown ones a line on stderr tells.
"""

import re
from pathlib import Path
from typing import Any

from eve_jax.errors import UserError, warn
from eve_jax.hf.families import GELU, Family
from eve_jax.hf.rope import ROPE_NAMES, SECTIONS, SINGLE, about_positions

# field -> (the values that it may have next to null, what another one asks for)
REQUIRED: dict[str, tuple[tuple[Any, ...], str]] = {
    "hidden_act": (("silu", "swish"), "another activation"),
    "hidden_activation": (("silu", "swish"), "another activation"),
    "use_sliding_window": ((False,), "sliding-window attention"),
    "attention_chunk_size": ((), "attention within chunks"),
    "mlp_bias": ((False,), "biases in the feed-forward"),
    "attention_out_bias": ((False,), "a bias of the attention's output"),
    "o_proj_bias": ((False,), "a bias of the attention's output"),
    "lm_head_bias": ((False,), "a bias of the head"),
    "qk_norm": ((False,), "norms of queries and keys"),
    "use_qk_norm": ((False,), "norms of queries and keys"),
    "qk_layernorm": ((False,), "norms of queries and keys"),
    "clip_qkv": ((), "clipped queries, keys and values"),
    "logit_softcapping": ((), "capped logits"),
    "logits_soft_cap": ((), "capped logits"),
    "attn_logit_softcapping": ((), "capped attention"),
    "final_logit_softcapping": ((), "capped logits"),
    "logit_scale": ((1,), "scaled logits"),
    "logits_scaling": ((1,), "scaled logits"),
    "scale_emb": ((1,), "scaled embeddings"),
    "embedding_multiplier": ((1,), "scaled embeddings"),
    "scale_depth": ((), "scaled residuals"),
    "residual_multiplier": ((1,), "scaled residuals"),
    "dim_model_base": ((), "scaled logits"),
    "attention_multiplier": ((), "scaled attention"),
    "attention_scaling": ((1,), "scaled attention"),
    "attention_factor": ((1,), "scaled attention"),
    "query_pre_attn_scalar": ((), "scaled attention"),
    "attn_temperature_tuning": ((False,), "scaled attention"),
    "attn_scale": ((), "scaled attention"),
    "scale_attn_weights": ((True,), "attention that is not scaled"),
    "alibi": ((False,), "positions by ALiBi"),
    "position_embedding_type": (ROPE_NAMES, "other positions"),
    "parallel_attn": ((False,), "attention next to the feed-forward"),
    "use_parallel_residual": ((False,), "attention next to the feed-forward"),
    "attention_sinks": ((False,), "attention sinks"),
    "use_bidirectional_attention": ((False,), "attention to later tokens"),
    "is_encoder_decoder": ((False,), "an encoder"),
    "add_cross_attention": ((False,), "cross attention"),
    "num_experts": ((0, 1), "experts"),
    "num_local_experts": ((0, 1), "experts"),
    "n_routed_experts": ((0,), "experts"),
    "num_nextn_predict_layers": ((0,), "layers that predict further tokens"),
    "quantization_config": (({},), "quantized weights"),
    "compression_config": (({},), "quantized weights"),
    "quantization": (({},), "quantized weights"),
    "no_bias": ((True,), "biases"),
    "rmsnorm": ((True,), "another norm"),
    "use_rmsnorm": ((True,), "another norm"),
    # Of EVE and the LLaVA that it descends from. "square" is the default that LLaVA's training writes for "as it is".
    "image_aspect_ratio": (("square",), "images that are padded or cut"),
    "image_grid_pinpoints": (([],), "images that are cut"),
    "mm_use_im_start_end": ((False,), "tokens around an image"),
    "mm_use_im_patch_token": ((False,), "a token for a patch, which the vocabulary would grow by"),
    "mm_patch_merge_type": (("flat",), "merged patches"),
    "mm_resampler_type": ((), "a resampler"),
    "mm_vision_select_feature": (("patch",), "the teacher's class token"),
}
# The same, where they mean something for EVEv1 alone.
REQUIRED_V1: dict[str, tuple[tuple[Any, ...], str]] = {
    "mm_projector_type": (("mlp2x_gelu",), "another projector"),
    "mm_vision_select_layer": ((-2,), "features of another layer of the teacher"),
}
# The same, for an LLM whose feed-forward has a GELU (Gemma), which reads `hidden_activation` alone.
REQUIRED_GELU: dict[str, tuple[tuple[Any, ...], str]] = {
    "hidden_activation": ((GELU,), "another activation"),
    "hidden_act": ((GELU, "silu", "gelu"), "another activation"),
}
# Names that other libraries have for the same, each with what it may be next to null, false and nothing.
PATTERNS: tuple[tuple[re.Pattern[str], tuple[str, ...], str], ...] = (
    (
        re.compile(r"(\w+_)?act(ivation)?(_?(fn|func|function|type))?"),
        ("silu", "swish", "swiglu"),
        "another activation",
    ),
    (
        re.compile(r"(\w+_)?(norm|normalization|layer_?norm)(_?(type|class|layer|fn))?"),
        ("rmsnorm", "rms_norm", "rms", "llamarmsnorm", "qwen2rmsnorm"),
        "another norm",
    ),
    (re.compile(r"(use_|with_|add_|has_)?(\w+_)?bias(es)?(_linear)?"), ("none",), "biases"),
    (re.compile(r"load_in_\dbit|(use_)?(\w+_)?quanti[sz](e|ed|ation)(_\w+)?"), ("none",), "quantized weights"),
)
EPSILON = re.compile(r"(\w+_)?eps(ilon)?")
QKV_BIAS = re.compile(r"(use_|with_|add_|has_)?(attn_|attention_)?(qkv|q_k_v)_bias")
FLAGS = ("tie_word_embeddings", "attention_bias", "add_moe", *(n for n, (ok, _) in REQUIRED.items() if ok == (False,)))

# Read elsewhere, or without effect on what the model computes when it is not trained by `transformers`.
HARMLESS = {*SECTIONS, *SINGLE} | set(
    re.findall(
        r"\w+",
        """
    model_type vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim rms_norm_eps tie_word_embeddings attention_bias layer_types sliding_window
    sliding_window_pattern cache_implementation no_rope_layers no_rope_layer_interval
    max_window_layers max_position_embeddings original_max_position_embeddings max_sequence_length
    model_max_length seq_length tokenizer_model_max_length tokenizer_padding_side architectures auto_map dtype
    torch_dtype transformers_version attn_implementation initializer_range attention_dropout hidden_dropout
    resid_pdrop embd_pdrop use_cache pretraining_tp unsloth_version unsloth_fixed add_moe moe_part init_moe
    requires_cliploss eve_jax eve_jax_version bos_token_id eos_token_id pad_token_id sep_token_id
    unk_token_id decoder_start_token_id task_specific_params tokenizer_class prefix problem_type finetuning_task
    id2label label2id num_labels pruned_heads gradient_checkpointing chunk_size_feed_forward return_dict
    output_hidden_states output_attentions torchscript use_bfloat16 tf_legacy_loss is_decoder
    cross_attention_hidden_size tie_encoder_decoder max_length min_length max_new_tokens do_sample
    early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p typical_p
    repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
    mm_vision_tower mm_vision_tower_clip mm_hidden_size mm_patch_size mm_projector_type mm_projector_lr
    mm_vision_select_layer mm_vision_tower_lr tune_mm_mlp_adapter freeze_mm_mlp_adapter tune_mm_vision_resampler
    freeze_mm_vision_resampler unfreeze_mm_vision_tower tune_vision_tower use_mm_proj
    """,
    )
)


def refuse_wrapper(hf: dict[str, Any]) -> None:
    """Raise UserError when config.json `hf` is of a multimodal model of another family."""
    for name in ("text_config", "vision_config"):
        if isinstance(hf.get(name), dict) and hf[name]:
            raise UserError(
                f"has a section {name}: {hf.get('model_type')} is a multimodal model of another family; save its "
                "language model on its own"
            )


def check_fields(hf: dict[str, Any], family: Family | None, v1: bool = False) -> None:
    """Raise UserError, without the file's name, when config.json `hf` asks for what the model does not do.

    `family` is that of a plain LLM without patch embedding, `v1` is True for EVEv1.
    """
    required = REQUIRED | (REQUIRED_V1 if v1 else {})
    if family and family.fixed["activation"] != "silu":
        required |= REQUIRED_GELU
    read = family.defaults if family else {}
    for name in FLAGS:
        if hf.get(name) is not None and not isinstance(hf[name], bool):
            raise UserError(f"{name} is {hf[name]!r}: expected true or false")
    for name, (accepted, what) in required.items():
        if hf.get(name) is not None and name not in read and not any(_is_same(hf[name], ok) for ok in accepted):
            raise UserError(f"asks for {what} ({name} is {hf[name]!r}), which eve_jax does not have")
    if family and hf.get("attention_bias"):
        raise UserError("asks for attention_bias, which eve_jax does not have: Qwen2 has q, k and v biases, LLaMA none")
    for name, value in hf.items():
        if not _is_known(name) and not about_positions(name):
            _check_other_name(hf, name, value)
    if family is None or "local" not in family.kinds:
        _check_attention(hf)


def _is_same(value: Any, other: Any) -> bool:
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _check_other_name(hf: dict[str, Any], name: str, value: Any) -> None:
    """Raise UserError when the field `name`, which this model's config.json does not have, asks for another model."""
    if value is None or value is False or value in ({}, [], ""):
        return
    if EPSILON.fullmatch(name.lower()):
        ours = 1e-6 if hf.get("rms_norm_eps") is None else hf["rms_norm_eps"]
        if value != ours:
            raise UserError(f"{name} is {value!r}, but rms_norm_eps is {ours!r}; make them the same, or remove {name}")
        return
    if QKV_BIAS.fullmatch(name.lower()) and value is True and "qwen2" in str(hf.get("model_type")):
        return
    for pattern, accepted, what in PATTERNS:
        if pattern.fullmatch(name.lower()) and not (isinstance(value, str) and value.lower() in accepted):
            raise UserError(f"asks for {what} ({name} is {value!r}), which eve_jax does not have")


def _is_known(name: str) -> bool:
    return name in HARMLESS or name in REQUIRED or name.startswith("_")


def _check_attention(hf: dict[str, Any]) -> None:
    """Raise UserError unless every layer attends to all tokens before."""
    layers = hf.get("layer_types")
    if layers is not None:
        if not isinstance(layers, list) or len(layers) != hf.get("num_hidden_layers"):
            raise UserError("layer_types is not a list of one entry a layer (num_hidden_layers)")
        other = next((kind for kind in layers if kind != "full_attention"), None)
        if other is not None:
            raise UserError(f"asks for {other!r} in layer_types, which eve_jax does not have")
    window, longest = hf.get("sliding_window"), hf.get("max_position_embeddings")
    if window is None or "use_sliding_window" in hf or "qwen" in str(hf.get("model_type")):
        return  # Qwen2 and Qwen3 have a window only where use_sliding_window is true
    if not (isinstance(window, int) and isinstance(longest, int) and window >= longest):
        raise UserError(
            f"asks for sliding-window attention (sliding_window is {window!r}), which eve_jax does not have"
        )


def warn_unknown(hf: dict[str, Any], file: Path) -> None:
    """Print a line on stderr, once, that names the fields of config.json `hf` that are not known."""
    if unknown := [n for n, v in sorted(hf.items()) if v not in (None, {}, []) and not _is_understood(n)]:
        warn(f"{file}: fields that are not understood are ignored: {', '.join(unknown)}")


def _is_understood(name: str) -> bool:
    other = (EPSILON, *(pattern for pattern, _, _ in PATTERNS))
    return _is_known(name) or about_positions(name) or any(pattern.fullmatch(name.lower()) for pattern in other)
