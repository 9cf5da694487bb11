"""Small Hugging Face folders: golden set A in several forms, and random plain LLMs."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from eve_jax.data.text.templates import get_template
from eve_jax.hf.conventions import chat_template
from eve_jax.hf.names import plain_llm
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import abstract_params
from tests import reference as ref
from tests.data.synthetic import byte_tokenizer

Tensors = dict[str, np.ndarray]
BFLOAT16 = np.dtype(jnp.bfloat16)


def write_hf(folder: Path, tensors: Tensors, config: dict[str, Any], shards: int = 1) -> Path:
    """A Hugging Face folder with a tokenizer of bytes and of the end that the model's chat template has."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    byte_tokenizer([get_template(chat_template(config)).end]).save(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": config.get("eos_token_id")}))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        save_file({n: tensors[n] for n in names[i::shards]}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(names[i::shards], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def read_hf(folder: Path) -> Tensors:
    """Every tensor of every safetensors file, read with the library of the format."""
    files = [load_file(f) for f in sorted(folder.glob("*.safetensors"))]
    out = {name: value for file in files for name, value in file.items()}
    assert len(out) == sum(map(len, files))
    return out


def golden(parts: str = "layernorm-self_attn-mlp", tied: bool = False) -> tuple[Tensors, dict[str, Any]]:
    """Weights and config.json of golden set A, as far as `parts` has them."""
    config = ref.read_json("A_config") | {"add_moe": bool(parts), "moe_part": parts, "tie_word_embeddings": tied}
    cut = {"layernorm": "layernorm", "self_attn": "self_attn", "mlp": "moe_mlp"}
    gone = [pattern for part, pattern in cut.items() if part not in parts.split("-")]
    tensors = {
        name: value
        for name, value in ref.tensors("A_weights").items()
        if not ("moe_" in name and any(g in name for g in gone)) and not (tied and name == "lm_head.weight")
    }
    return tensors, config


def as_bfloat16(tensors: Tensors) -> Tensors:
    """The same tensors, rounded."""
    return {name: value.astype(BFLOAT16) for name, value in tensors.items()}


def golden_llama(deltas: bool = True) -> tuple[Tensors, dict[str, Any]]:
    """Weights and config.json of golden set C, with or without its gated deltas."""
    weights = ref.tensors("C_weights")
    config = ref.read_json("C_config") | {"add_moe": deltas}
    return {name: value for name, value in weights.items() if deltas or "moe_" not in name}, config


def plain(kind: str, tied: bool = False) -> tuple[Tensors, dict[str, Any]]:
    """Random weights and config.json of a plain LLM of `kind` qwen2 or llama, with a head size of its own."""
    cfg = ModelConfig(
        vocab_size=320,
        hidden_size=48,
        intermediate_size=80,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        qkv_bias=kind == "qwen2",
        tie_embeddings=tied,
        parts=(),
    )
    config = {
        "model_type": kind,
        "vocab_size": 320,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-5,
        "rope_theta": 5e5,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 128,
    }
    rng = np.random.default_rng(0)
    tensors: Tensors = {}
    for entry in plain_llm(cfg):
        shape = entry.their_shape(abstract_params(cfg)[entry.ours].shape)
        centre = 1.0 if "norm" in entry.ours else 0.0
        tensors |= {name: (centre + 0.2 * rng.normal(size=shape)).astype(np.float32) for name in entry.names(cfg)}
    return tensors, config


def same(a: Tensors, b: Tensors) -> None:
    """Assert the same names, shapes, dtypes and bits."""
    assert sorted(a) == sorted(b)
    for name in a:
        assert (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape), name
        assert np.asarray(a[name]).tobytes() == np.asarray(b[name]).tobytes(), name
