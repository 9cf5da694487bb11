"""Real vocabularies, from the files that packages of the extra `test` carry (no download)."""

import functools
import hashlib
import json
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tokenizers import AddedToken, normalizers

from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.sentencepiece import SentencePieceTokenizer
from eve_jax.data.text.tiktoken_file import bpe_from_ranks, read_ranks
from eve_jax.data.text.tokenizer import FastTokenizer, Tokenizer

QWEN2_SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"
LLAMA3_SHA256 = "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55"
QWEN2_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _package_file(package: str, path: str, sha256: str) -> Path:
    spec = find_spec(package)  # found, not imported: that would need a web client
    assert spec is not None and spec.submodule_search_locations, "pip install -e .[test]"
    file = Path(spec.submodule_search_locations[0]) / path
    assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256
    return file


@functools.cache
def qwen2_tokenizer() -> Tokenizer:
    """Qwen2's tokenizer: 151643 tokens and three special ones."""
    path = _package_file("dashscope", "resources/qwen.tiktoken", QWEN2_SHA256)
    inner = bpe_from_ranks(read_ranks(path.read_bytes(), path), QWEN2_SPLIT)
    inner.normalizer = normalizers.NFC()
    inner.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in QWEN2_SPECIAL])
    return FastTokenizer(inner)


@functools.cache
def llama3_tokenizer() -> Tokenizer:
    """LLaMA-3's tokenizer: 128000 tokens and 256 special ones."""
    return load_tokenizer(_package_file("llama_models", "llama3/tokenizer.model", LLAMA3_SHA256).parent)


@functools.cache
def spm_tokenizer(legacy: bool) -> Tokenizer:
    """The small SentencePiece model of the golden set F: LLaMA's settings, not its vocabulary."""
    golden = Path(__file__).parent / "golden"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(golden / "F_v1_spm.model", Path(folder) / "tokenizer.model")
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps({"legacy": legacy}))
        return load_tokenizer(folder)


@functools.cache
def mistral_tokenizer() -> Tokenizer | None:
    """A LLaMA-format SentencePiece model of 32,000 tokens; None without `pip install --no-deps mistral-common`."""
    spec = find_spec("mistral_common")
    if spec is None or not spec.submodule_search_locations:
        return None
    return SentencePieceTokenizer((Path(spec.submodule_search_locations[0]) / "data/tokenizer.model.v1").read_bytes())
