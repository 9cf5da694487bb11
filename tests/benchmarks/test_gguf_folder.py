"""A tiny GGUF file, written here, as a Hugging Face folder: weights, sizes, vocabulary."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import pre_tokenizers

from benchmarks.gguf_folder import rotate_half_rows, write_folder
from eve_jax.data.text.load import load_tokenizer
from eve_jax.errors import UserError
from eve_jax.hf.safetensors_io import open_tensors
from eve_jax.weights.open import open_checkpoint

gguf = pytest.importorskip("gguf")
from gguf.quants import dequantize, quantize  # noqa: E402

HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, SIZE = 64, 96, 2, 4, 2, 16
SPECIAL = ("<|endoftext|>", "<|im_end|>")


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k as llama.cpp keeps them, the slow way: i and i + H/2 of each head become neighbors."""
    out = np.empty_like(weight)
    half = len(weight) // heads // 2
    for head in range(heads):
        for i in range(half):
            for which in (0, 1):
                out[(head * half + i) * 2 + which] = weight[(head * 2 + which) * half + i]
    return out


def words() -> list[str]:
    """Two control tokens, the 256 bytes, and a pair that is merged."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*SPECIAL, *letters, "he", "12"]


def write_gguf(file: Path, architecture: str = "llama", pre: str = "smollm") -> dict[str, np.ndarray]:
    """A random LLM; returns its weights under Hugging Face's names, as they are after quantization."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(words())
    writer.add_token_merges(["h e", "1 2"])
    writer.add_token_types([3, 3] + [1] * (len(words()) - 2))
    writer.add_eos_token_id(1)
    expected = {}

    def add(theirs: str, name: str, shape: tuple[int, ...], heads: int = 0) -> None:
        value = rng.normal(size=shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0 if len(shape) == 2 else gguf.GGMLQuantizationType.F32
        raw = quantize(interleaved(value, heads) if heads else value, kind)
        writer.add_tensor(theirs, raw, raw_dtype=kind)
        # A block of Q8_0 lies in one row, so rows may change places before or after.
        expected[name] = dequantize(quantize(value, kind), kind)

    add("token_embd.weight", "model.embed_tokens.weight", (len(words()), HIDDEN))
    add("output_norm.weight", "model.norm.weight", (HIDDEN,))
    for i in range(LAYERS):
        ours, their = f"model.layers.{i}.", f"blk.{i}."
        add(f"{their}attn_norm.weight", f"{ours}input_layernorm.weight", (HIDDEN,))
        add(f"{their}attn_q.weight", f"{ours}self_attn.q_proj.weight", (HEADS * SIZE, HIDDEN), HEADS)
        add(f"{their}attn_k.weight", f"{ours}self_attn.k_proj.weight", (KV_HEADS * SIZE, HIDDEN), KV_HEADS)
        add(f"{their}attn_v.weight", f"{ours}self_attn.v_proj.weight", (KV_HEADS * SIZE, HIDDEN))
        add(f"{their}attn_output.weight", f"{ours}self_attn.o_proj.weight", (HIDDEN, HEADS * SIZE))
        add(f"{their}ffn_norm.weight", f"{ours}post_attention_layernorm.weight", (HIDDEN,))
        add(f"{their}ffn_gate.weight", f"{ours}mlp.gate_proj.weight", (FFN, HIDDEN))
        add(f"{their}ffn_up.weight", f"{ours}mlp.up_proj.weight", (FFN, HIDDEN))
        add(f"{their}ffn_down.weight", f"{ours}mlp.down_proj.weight", (HIDDEN, FFN))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def test_weights_and_sizes(tmp_path):
    expected = write_gguf(tmp_path / "m.gguf")
    folder = write_folder(tmp_path / "m.gguf", tmp_path / "hf")
    tensors = open_tensors(folder)
    assert sorted(tensors) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name].read(), value, err_msg=name)
    cfg = open_checkpoint(folder).cfg
    sizes = (cfg.hidden_size, cfg.intermediate_size, cfg.num_layers, cfg.num_heads, cfg.num_kv_heads, cfg.head_dim)
    assert sizes == (HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, SIZE)
    assert (cfg.vocab_size, cfg.rope_theta, cfg.tie_embeddings, cfg.qkv_bias) == (len(words()), 1e5, True, False)
    np.testing.assert_allclose(cfg.rms_norm_eps, 1e-5, rtol=1e-6)
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == 1


@pytest.mark.parametrize("heads", [1, 3])
def test_rows_of_heads(heads):
    weight = np.arange(heads * 8 * 2, dtype=np.float32).reshape(heads * 8, 2)
    np.testing.assert_array_equal(rotate_half_rows(interleaved(weight, heads), heads), weight)
    assert not np.array_equal(interleaved(weight, heads), weight)


def test_vocabulary(tmp_path):
    write_gguf(tmp_path / "m.gguf")
    tokenizer = load_tokenizer(write_folder(tmp_path / "m.gguf", tmp_path / "hf"))
    assert tokenizer.vocab_size == len(words())
    ids = tokenizer.encode("he said 12é<|im_end|>")
    named = [words()[id] for id in ids]
    assert named == ["he", "Ġ", "s", "a", "i", "d", "Ġ", "1", "2", "Ã", "©", "<|im_end|>"]  # digits stay single
    assert tokenizer.decode(ids) == "he said 12é"
    write_gguf(tmp_path / "g.gguf", pre="gpt-2")
    merged = load_tokenizer(write_folder(tmp_path / "g.gguf", tmp_path / "gpt2")).encode("12")
    assert [words()[id] for id in merged] == ["12"]


def test_what_is_not_read(tmp_path):
    (tmp_path / "no.gguf").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"no\.gguf: not a GGUF file"):
        write_folder(tmp_path / "no.gguf", tmp_path / "hf")
    write_gguf(tmp_path / "q.gguf", architecture="qwen2")
    with pytest.raises(UserError, match="architecture 'qwen2'"):
        write_folder(tmp_path / "q.gguf", tmp_path / "hf")
    write_gguf(tmp_path / "p.gguf", pre="deepseek-llm")
    with pytest.raises(UserError, match="pre-tokenization 'deepseek-llm'"):
        write_folder(tmp_path / "p.gguf", tmp_path / "hf")
    assert not (tmp_path / "hf" / "config.json").exists()
