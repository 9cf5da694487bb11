"""The table of base LLMs by name: their sizes and switches, facts of their public config.json files."""

from typing import Any

from eve_jax.errors import UserError
from eve_jax.model.config import ModelFields


def _llm(hidden: int, ffn: int, layers: int, heads: int, kv_heads: int, vocab: int, **other: Any) -> dict[str, Any]:
    """Sizes of an LLM; what `other` does not say is as in Qwen2.5."""
    sizes = {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": hidden // heads,
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-6,
        "tie_embeddings": False,
    }
    return sizes | {name: getattr(ModelFields, name) for name in SWITCHES} | other


# Fields that an LLM decides next to its sizes, with the values of Qwen2.5 as their defaults.
SWITCHES = (
    "rope_scaling",
    "rope_type",
    "local_rope_theta",
    "layer_kinds",
    "window",
    "norms",
    "norm_plus_one",
    "qk_norm",
    "attention_size",
    "activation",
    "scale_embeddings",
    "qkv_bias",
)
_LLAMA: dict[str, Any] = {"qkv_bias": False, "rms_norm_eps": 1e-5, "rope_theta": 1e4}
_MISTRAL = _LLAMA | {"rope_theta": 1e6}
_LLAMA3 = _LLAMA | {"rope_theta": 5e5}
_LLAMA32 = _LLAMA3 | {"rope_scaling": (32.0, 1.0, 4.0, 8192), "tie_embeddings": True}
_QWEN3: dict[str, Any] = {"qkv_bias": False, "qk_norm": "head", "head_dim": 128}
_SMOLLM2 = _LLAMA | {"rope_theta": 1e5, "tie_embeddings": True}
_SMOLLM3: dict[str, Any] = {
    "qkv_bias": False,
    "rope_theta": 5e6,
    "tie_embeddings": True,
    "layer_kinds": ("full", "full", "full", "nope"),
}
_OLMO2: dict[str, Any] = {"qkv_bias": False, "qk_norm": "projection", "norms": "after", "rope_theta": 5e5}
_GEMMA3: dict[str, Any] = {
    "qkv_bias": False,
    "qk_norm": "head",
    "norms": "both",
    "norm_plus_one": True,
    "activation": "gelu_tanh",
    "scale_embeddings": True,
    "layer_kinds": (*["local"] * 5, "full"),
    "local_rope_theta": 1e4,
    "head_dim": 256,
    "tie_embeddings": True,
}
# Gemma 4 12B Unified, whose layers, patch embedding and attention within images belong together.
_GEMMA4: dict[str, Any] = {
    "qkv_bias": False,
    "qk_norm": "head",
    "norms": "both",
    "activation": "gelu_tanh",
    "scale_embeddings": True,
    "attention_size": 1.0,
    "layer_kinds": (*["local"] * 5, "full"),
    "window": 1024,
    "local_rope_theta": 1e4,
    "rope_type": "proportional",
    "rope_scaling": (0.25,),
    "head_dim": 256,
    "tie_embeddings": True,
    "wide_head_dim": 512,
    "wide_kv_heads": 1,
    "key_values": "full",
    "value_norm": True,
    "layer_scale": True,
    "logit_cap": 30.0,
    "patch_embed": "ln_linear_pos_norm",
    "image_attention": "image",
    "sub_patch": 24,
    "patch_hidden": 3840,
    "patch_sides": 1120,
}
# SAIL-7B: Mistral's sizes; its six further tokens are the last ones, their order is not known without its folder.
_SAIL: dict[str, Any] = {
    "patch_embed": "linear",
    "image_attention": "prefix",
    "rope": "sections",
    "index_rule": "max+1",
    "patch_token": 32_769,
    "close_token": 32_770,
}

LLMS: dict[str, dict[str, Any]] = {
    "qwen2.5-7b": _llm(3584, 18944, 28, 28, 4, 152064),
    "qwen2.5-3b": _llm(2048, 11008, 36, 16, 2, 151936, tie_embeddings=True),
    "qwen2.5-1.5b": _llm(1536, 8960, 28, 12, 2, 151936, tie_embeddings=True),
    "qwen2.5-0.5b": _llm(896, 4864, 24, 14, 2, 151936, tie_embeddings=True),
    "qwen3-0.6b": _llm(1024, 3072, 28, 16, 8, 151936, **_QWEN3, tie_embeddings=True),
    "qwen3-1.7b": _llm(2048, 6144, 28, 16, 8, 151936, **_QWEN3, tie_embeddings=True),
    "qwen3-4b": _llm(2560, 9728, 36, 32, 8, 151936, **_QWEN3, tie_embeddings=True),
    "qwen3-8b": _llm(4096, 12288, 36, 32, 8, 151936, **_QWEN3),
    "qwen3-14b": _llm(5120, 17408, 40, 40, 8, 151936, **_QWEN3),
    "llama3-8b": _llm(4096, 14336, 32, 32, 8, 128256, **_LLAMA3),
    "llama3.1-8b": _llm(4096, 14336, 32, 32, 8, 128256, **_LLAMA3, rope_scaling=(8.0, 1.0, 4.0, 8192)),
    "llama3.2-1b": _llm(2048, 8192, 16, 32, 8, 128256, **_LLAMA32),
    "llama3.2-3b": _llm(3072, 8192, 28, 24, 8, 128256, **_LLAMA32),
    "mistral-7b": _llm(4096, 14336, 32, 32, 8, 32768, **_MISTRAL),  # v0.3, without a window
    "smollm2-135m": _llm(576, 1536, 30, 9, 3, 49152, **_SMOLLM2),
    "smollm2-360m": _llm(960, 2560, 32, 15, 5, 49152, **_SMOLLM2),
    "smollm2-1.7b": _llm(2048, 8192, 24, 32, 32, 49152, **_SMOLLM2 | {"rope_theta": 1.3e5}),
    "smollm3-3b": _llm(2048, 11008, 36, 16, 4, 128256, **_SMOLLM3),
    "olmo2-7b": _llm(4096, 11008, 32, 32, 32, 100352, **_OLMO2),
    "olmo2-13b": _llm(5120, 13824, 40, 40, 40, 100352, **_OLMO2),
    "gemma3-270m": _llm(640, 2048, 18, 4, 1, 262144, **_GEMMA3, window=512),
    "gemma3-1b": _llm(1152, 6912, 26, 4, 1, 262144, **_GEMMA3, window=512),
    "gemma4-12b": _llm(3840, 15360, 48, 16, 8, 262144, **_GEMMA4),
    "sail-7b": _llm(4096, 14336, 32, 32, 8, 32774, **_MISTRAL, **_SAIL),
    "demo": _llm(192, 512, 6, 6, 2, 1024, tie_embeddings=True, rope_theta=1e4),
    "vicuna-7b": _llm(4096, 11008, 32, 32, 32, 32000, **_LLAMA),
    "tiny": _llm(64, 160, 2, 4, 2, 1024, tie_embeddings=True),
    "demo-llama": _llm(192, 512, 6, 6, 6, 1024, tie_embeddings=True, **_LLAMA),
    "tiny-llama": _llm(64, 160, 4, 4, 4, 1024, tie_embeddings=True, **_LLAMA),
}


def llm_sizes(name: str) -> dict[str, Any]:
    """Sizes and switches of the base LLM `name`; UserError listing the known ones."""
    if name not in LLMS:
        raise UserError(f"unknown LLM {name!r}; known: {', '.join(LLMS)}, or the folder of a Hugging Face LLM")
    return LLMS[name]
