"""Tiny random models of `transformers` of every family that is taken as a base, in both spellings of config.json."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from eve_jax.data.text.templates import get_template
from eve_jax.hf.conventions import chat_template
from tests.data.synthetic import byte_tokenizer

VOCABULARY = 320
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"factor": 4.0, "original_max_position_embeddings": 64}


def scaled(kind: str, theta: float, **fields: Any) -> dict[str, Any]:
    """Scaled rotary positions as the config classes take them."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **fields}}


def gemma(scaling: dict[str, Any]) -> dict[str, Any]:
    """Gemma 3's fields: seven layers, of which the sixth sees all, and a window that rows are longer than."""
    full = {"rope_type": "default", "rope_theta": 1e6} | scaling
    positions = {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    sizes = {"num_hidden_layers": 7, "head_dim": 16, "num_key_value_heads": 1, "sliding_window": 5}
    return sizes | {"query_pre_attn_scalar": 24, "rope_parameters": positions}


# name -> config class of transformers, and its fields next to SIZES
BASES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2Config", scaled("default", 1e6)),
    "qwen2-yarn": ("Qwen2Config", scaled("yarn", 1e4, **YARN)),
    "qwen3": ("Qwen3Config", {"head_dim": 16, **scaled("default", 1e6)}),
    "qwen3-yarn": ("Qwen3Config", {"head_dim": 16, **scaled("yarn", 1e4, **YARN, beta_fast=16.0, truncate=False)}),
    "mistral": ("MistralConfig", {"sliding_window": None, **scaled("default", 1e6)}),
    "mistral-window": ("MistralConfig", {"sliding_window": 5, "head_dim": 16, **scaled("default", 1e4)}),
    "smollm2": ("LlamaConfig", {"tie_word_embeddings": True, **scaled("default", 1e5)}),
    "smollm3": ("SmolLM3Config", {"num_hidden_layers": 5, **scaled("default", 5e6)}),
    "llama3.2": ("LlamaConfig", {"tie_word_embeddings": True, **scaled("llama3", 5e5, **LLAMA3)}),
    "llama-linear": ("LlamaConfig", scaled("linear", 1e4, factor=4.0)),
    "olmo2": ("Olmo2Config", {"rms_norm_eps": 1e-6, **scaled("default", 5e5)}),
    "gemma3": ("Gemma3TextConfig", gemma({})),
    "gemma3-linear": ("Gemma3TextConfig", gemma({"rope_type": "linear", "factor": 8.0})),
}


def scatter(model: Any) -> None:
    """Draw the weights of a torch model anew that start at zero or one, and word embeddings small."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(0.3 * torch.randn(weight.shape))
            elif "embed_tokens" in name or "lm_head" in name:
                weight.copy_(torch.randn(weight.shape) * 0.07)


def write_base(folder: Path, name: str, old: bool) -> Any:
    """Write the base `name` to `folder`, its config.json as transformers 5 or, with `old`, 4 spells it; its model.

    Weights that start at zero or one, those of norms among them, are drawn too.
    """
    import torch
    import transformers

    kind, fields = BASES[name]
    config = getattr(transformers, kind)(**SIZES | fields)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    scatter(model)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    stated = json.loads((folder / "config.json").read_text())
    if old:
        stated = spelled_old(stated)
        (folder / "config.json").write_text(json.dumps(stated))
    template = get_template(chat_template(stated))
    byte_tokenizer([template.end, *template.tokens]).save(folder)
    return model


def spelled_old(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json of transformers 5 as transformers 4 writes it."""
    out = {name: value for name, value in config.items() if name not in ("rope_parameters", "dtype")}
    out |= {"torch_dtype": config["dtype"], "transformers_version": "4.57.1"}
    positions = config["rope_parameters"]
    local = positions.get("sliding_attention")
    if local:
        positions = positions["full_attention"]
        out["rope_local_base_freq"] = local["rope_theta"]
        out["sliding_window_pattern"] = 6
        del out["layer_types"]
    rest = {key: value for key, value in positions.items() if key != "rope_theta"}
    out["rope_scaling"] = None if rest == {"rope_type": "default"} else rest
    return out | {"rope_theta": positions["rope_theta"]}


def ids(length: int = 40) -> np.ndarray:
    """Random token ids."""
    return np.random.default_rng(1).integers(0, VOCABULARY - 2, length).astype(np.int32)
