"""The tokenizer's layer: no surprises, and a clear word when something is missing."""

from pathlib import Path

import pytest

from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.tokenizer import FastTokenizer
from eve_jax.errors import UserError
from tests.data.synthetic import byte_tokenizer


def test_round_trip(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    assert isinstance(tokenizer, FastTokenizer)
    tokenizer.inner.enable_truncation(3)
    tokenizer.save(tmp_path / "a")
    (tmp_path / "a" / "tokenizer_config.json").write_text('{"x": 1}')
    loaded = load_tokenizer(tmp_path / "a")
    text = "Straße 😀 <|im_end|>"
    ids = loaded.encode(text)
    assert len(ids) == len("Straße 😀 ".encode()) + 1
    assert loaded.decode(ids) == "Straße 😀 "
    assert loaded.decode(ids, skip_special=False) == text
    assert loaded.vocab_size == 257
    loaded.save(tmp_path / "b")
    loaded.save(tmp_path / "a")
    assert load_tokenizer(tmp_path / "b").fingerprint() == loaded.fingerprint()
    assert (tmp_path / "b" / "tokenizer_config.json").read_text() == '{"x": 1}'


def test_offsets_are_characters() -> None:
    ids, offsets = byte_tokenizer().encode_with_offsets("aé😀<|im_end|>")
    assert len(ids) == 8
    assert offsets == [(0, 1)] + [(1, 2)] * 2 + [(2, 3)] * 4 + [(3, 13)]


def test_special_token_numbers() -> None:
    assert byte_tokenizer().token_id("<|im_end|>") == byte_tokenizer().find("<|im_end|>") == 256
    assert byte_tokenizer().find("<|eot|>") is None
    with pytest.raises(UserError, match=r"has no token '<\|eot\|>'"):
        byte_tokenizer().token_id("<|eot|>")


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.json and no tokenizer\.model"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer"):
        load_tokenizer(tmp_path)
