"""Files of token ranks: LLaMA-3's tokenizer as Meta publishes it."""

import base64
from pathlib import Path

import pytest
from tokenizers import Tokenizer as InnerTokenizer
from tokenizers import processors

from eve_jax.data.record import Turn
from eve_jax.data.text.encode import IGNORE, encode_chat
from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.tiktoken_file import bpe_from_ranks
from eve_jax.data.text.tokenizer import FastTokenizer
from eve_jax.errors import UserError
from tests.vocab import llama3_tokenizer

TEXT = "  Straße\n\n 12345 it's 图片 😀\t<|eot_id|>x"


def test_llama3() -> None:
    tokenizer = llama3_tokenizer()
    assert tokenizer.vocab_size == 128_256
    assert tokenizer.bos == tokenizer.token_id("<|begin_of_text|>") == 128_000
    names = ["<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"]
    assert [tokenizer.find(name) for name in names] == [128_001, 128_006, 128_007, 128_009, 128_010]
    assert tokenizer.find("<|reserved_special_token_247|>") == 128_255
    ids, offsets = tokenizer.encode_with_offsets(TEXT)
    assert tokenizer.decode(ids, skip_special=False) == TEXT
    assert ids[-2:] == [128_009, *tokenizer.encode("x")]
    assert offsets[-2:] == [(len(TEXT) - 11, len(TEXT) - 1), (len(TEXT) - 1, len(TEXT))]
    assert tokenizer.encode("12345") == [4513, 1774]  # numbers go by three digits


def test_saved_as_json(tmp_path: Path) -> None:
    llama3_tokenizer().save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint() == llama3_tokenizer().fingerprint()
    assert loaded.bos == 128_000
    assert loaded.encode(TEXT) == llama3_tokenizer().encode(TEXT)


def test_labels_with_offsets_that_leave_out_spaces() -> None:
    """Hugging Face's tokenizer.json of LLaMA-3 trims the offsets of its tokens; the labels must not notice."""
    ours = llama3_tokenizer()
    assert isinstance(ours, FastTokenizer)
    inner = InnerTokenizer.from_str(ours.inner.to_str())
    bos = processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 128_000)])
    inner.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), bos])
    theirs = FastTokenizer(inner)
    assert theirs.encode_with_offsets("a bus")[1] != ours.encode_with_offsets("a bus")[1]
    for answer in ["The bus.", "  \n\n x \n", "\t", "3", " \n"]:
        turns = [Turn("human", "<image>\n ?\n "), Turn("gpt", answer), Turn("human", " \n"), Turn("gpt", "Yes.")]
        expected, got = (encode_chat(turns, tokenizer, "llama3", 1) for tokenizer in (ours, theirs))
        assert got.ids.tolist() == expected.ids.tolist()
        assert got.labels.tolist() == expected.labels.tolist()
        learnt = ours.decode(got.labels[got.labels != IGNORE], skip_special=False)
        assert learnt == f" {answer}<|end_of_text|> Yes.<|end_of_text|>"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([b"IQ== 0", b"???? 1"], r"tokenizer\.model:2: not a token in base64 and its rank"),
        ([b"IQ== 0", b"Ig=="], r"tokenizer\.model:2: not a token"),
        ([b"IQ== 0", b"Ig== 1"], r"2 token ranks, LLaMA-3 has 128000; of other models use the tokenizer\.json"),
        ([base64.b64encode(bytes([n])) + b" 7" for n in range(256)], "256 token ranks"),
    ],
)
def test_other_files(lines: list[bytes], message: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)


def test_token_that_no_merge_makes_is_found_whole() -> None:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"abc": 256, b"de": 257}
    inner = bpe_from_ranks(ranks, r"\w+|\W+")
    assert inner.encode("abc").ids == [256]
    assert inner.encode("abcde").ids == [97, 98, 99, 257]
