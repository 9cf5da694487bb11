"""A Hugging Face folder out of a GGUF file: a LLaMA-like LLM with a byte-level BPE vocabulary.

GGUF (llama.cpp's format) keeps the rows of q and k in the order of interleaved rotary positions, and quantized weights
in blocks; the folder has them as `transformers` requires: rotate-half order, float32.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from eve_jax.data.text.tokenizer import TOKENIZER_FILE
from eve_jax.errors import UserError
from eve_jax.hf.safetensors_io import TensorWriter

TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL, USER_DEFINED = 3, 4  # types of tokens that are recognized in text as they are written
SHARD_BYTES = 5 * 10**9


def write_folder(file: Path, folder: Path) -> Path:
    """Makes the Hugging Face folder `folder` (config.json, model.safetensors, tokenizer.json) from the GGUF `file`.

    Raises UserError for a file that is no such LLM.
    """
    from gguf import GGUFReader
    from gguf.quants import dequantize

    try:
        reader = GGUFReader(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not a GGUF file ({error})") from error
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {hf_name(tensor.name): tensor for tensor in reader.tensors}
    config = hf_config(fields, tied="lm_head.weight" not in tensors)
    folder.mkdir(parents=True, exist_ok=True)
    bpe_tokenizer(fields).save(str(folder / TOKENIZER_FILE))
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    specs = [(name, np.dtype(np.float32), tuple(t.shape[::-1].tolist())) for name, t in tensors.items()]
    with TensorWriter(folder, specs, SHARD_BYTES) as writer:
        for name, tensor in track(tensors.items(), f"read {file.name}"):
            value = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
            part = name.split(".")[-2]
            writer.write(name, rotate_half_rows(value, heads[part]) if part in heads else value)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")  # last: it says that all is there
    return folder


def hf_name(name: str) -> str:
    """The Hugging Face name of the GGUF tensor `name`; UserError for one that LLaMA does not have."""
    stem = name.removesuffix(".weight")
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if stem in TOP:
        return f"{TOP[stem]}.weight"
    if layer and layer[2] in LAYER:
        return f"model.layers.{layer[1]}.{LAYER[layer[2]]}.weight"
    raise UserError(f"GGUF tensor {name} is unknown: only LLaMA-like LLMs without biases are read")


def rotate_half_rows(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows [heads * H, D] from interleaved order (pairs 2i, 2i + 1 turn together) to rotate-half (i, i + H/2)."""
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def hf_config(fields: dict[str, Any], tied: bool) -> dict[str, Any]:
    """config.json of `transformers`' LLaMA from the metadata of a GGUF file."""
    kind = fields.get("general.architecture")
    if kind != "llama":
        raise UserError(f"GGUF file of architecture {kind!r}: only llama is read")
    if fields.get("llama.rope.scaling.type", "none") != "none":
        raise UserError("GGUF file with scaled rotary positions: not supported")
    heads, hidden = fields["llama.attention.head_count"], fields["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": hidden,
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields.get("llama.attention.head_count_kv", heads),
        "head_dim": fields.get("llama.attention.key_length", hidden // heads),
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": fields.get("llama.rope.freq_base", 10000.0),
        "max_position_embeddings": fields["llama.context_length"],
        "tie_word_embeddings": tied,
        "hidden_act": "silu",
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
        "torch_dtype": "float32",
    }


def bpe_tokenizer(fields: dict[str, Any]) -> Tokenizer:
    """The byte-level BPE tokenizer in the metadata of a GGUF file; pre-tokenization of GPT-2 or SmolLM."""
    kind, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or pre not in ("default", "gpt-2", "smollm"):
        raise UserError(f"GGUF file with a tokenizer {kind!r} of pre-tokenization {pre!r}: not supported")
    words = fields["tokenizer.ggml.tokens"]
    merges = [tuple(line.split(" ")) for line in fields["tokenizer.ggml.merges"]]
    inner = Tokenizer(models.BPE(vocab={word: id for id, word in enumerate(words)}, merges=merges))
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    single_digits = [pre_tokenizers.Digits(individual_digits=True)] if pre == "smollm" else []
    inner.pre_tokenizer = pre_tokenizers.Sequence([*single_digits, split])
    inner.decoder = decoders.ByteLevel()
    for word, type in zip(words, fields["tokenizer.ggml.token_type"], strict=True):
        if type == CONTROL:
            inner.add_special_tokens([AddedToken(word, special=True, normalized=False)])
        elif type == USER_DEFINED:
            inner.add_tokens([AddedToken(word, normalized=False)])
    return inner
