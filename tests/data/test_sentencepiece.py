"""SentencePiece models: every text comes back, with exact offsets; the tokens themselves are in golden set F."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.sentencepiece import SPACE, SentencePieceTokenizer
from eve_jax.errors import UserError
from tests.vocab import spm_tokenizer

MODEL = (Path(__file__).parents[1] / "golden" / "F_v1_spm.model").read_bytes()
SPECIAL = ["<s>", "</s>", "<unk>"]
characters = st.characters(codec="utf-8", exclude_characters=SPACE)
texts = st.lists(st.one_of(st.text(characters), st.sampled_from([*SPECIAL, " ", "  ", "\n", "the cat"]))).map("".join)


def folder_with(path: Path, files: dict[str, object]) -> Path:
    path.mkdir(exist_ok=True)
    (path / "tokenizer.model").write_bytes(MODEL)
    for name, content in files.items():
        (path / name).write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("legacy", [True, False])
@settings(deadline=None)
@given(text=texts)
@example(text="</s> a")
@example(text=" é😀</s>\n½<s><s>  ")
@example(text="a\0b")
@example(text="\0\0")
def test_every_text_comes_back(legacy: bool, text: str) -> None:
    tokenizer = spm_tokenizer(legacy)
    ids, offsets = tokenizer.encode_with_offsets(text)
    assert tokenizer.encode(text) == ids
    assert tokenizer.decode(ids, skip_special=False) == text
    assert tokenizer.decode(ids) == re.sub("|".join(map(re.escape, SPECIAL)), "", text)
    position = 0  # the spans are in order, overlap only where they are one character's bytes, and leave nothing out
    for (start, end), before in zip(offsets, [(0, 0), *offsets], strict=False):
        assert (start, end) == before or start == position
        position = max(position, end)
    assert position == len(text)


def test_offsets_are_characters() -> None:
    tokenizer = spm_tokenizer(legacy=True)
    ids, offsets = tokenizer.encode_with_offsets("é😀</s>3")
    assert [tokenizer.find("</s>") == id for id in ids] == [False] * 7 + [True, False, False]
    assert offsets == [(0, 0)] + [(0, 1)] * 2 + [(1, 2)] * 4 + [(2, 6), (6, 6), (6, 7)]
    assert spm_tokenizer(legacy=False).encode_with_offsets("</s>3") == ([2, ids[-1]], [(0, 4), (4, 5)])


def test_part_of_a_character() -> None:
    tokenizer = spm_tokenizer(legacy=True)
    smile = tokenizer.encode("😀")[1:]
    assert tokenizer.decode(smile) == "😀"
    assert tokenizer.decode(smile[:2]) == "\N{REPLACEMENT CHARACTER}"


def test_numbers() -> None:
    tokenizer = spm_tokenizer(legacy=True)
    assert tokenizer.vocab_size == 900
    assert [tokenizer.find(token) for token in ("<unk>", "<s>", "</s>", "<0x0A>", "<|im_end|>")] == [0, 1, 2, 13, None]
    assert tokenizer.bos == 1
    assert tokenizer.decode([1, 905, 13]) == "\n"  # a model's vocabulary may be padded past the tokenizer's
    with pytest.raises(UserError, match=r"has no token '<\|im_end\|>'"):
        tokenizer.token_id("<|im_end|>")


def test_settings_of_hugging_face(tmp_path: Path) -> None:
    files = {
        "added_tokens.json": {"<pad>": 900},
        "tokenizer_config.json": {
            "add_bos_token": False,
            "added_tokens_decoder": {
                "2": {"content": "</s>", "special": True},
                "901": {"content": "<b>", "special": 0},
            },
        },
    }
    tokenizer = load_tokenizer(folder_with(tmp_path / "a", files))
    assert tokenizer.bos is None
    assert tokenizer.vocab_size == 902
    ids, offsets = tokenizer.encode_with_offsets("<pad><b>")
    assert ids == [tokenizer.token_id("<pad>"), tokenizer.find("<b>")] == [900, 901]
    assert offsets == [(0, 5), (5, 8)]
    assert tokenizer.decode([900, 901, 2]) == "<b>"
    tokenizer.save(tmp_path / "b")
    again = load_tokenizer(tmp_path / "b")
    assert again.fingerprint() == tokenizer.fingerprint()
    assert (tmp_path / "b" / "tokenizer.model").read_bytes() == MODEL
    assert not (tmp_path / "b" / "tokenizer.json").exists()


def test_fingerprint_tells_settings_apart(tmp_path: Path) -> None:
    kinds: list[dict[str, object]] = [
        {},
        {"tokenizer_config.json": {"legacy": False}},
        {"tokenizer_config.json": {"add_bos_token": False}},
        {"added_tokens.json": {"<pad>": 900}},
    ]
    assert len({load_tokenizer(folder_with(tmp_path / str(n), k)).fingerprint() for n, k in enumerate(kinds)}) == 4
    assert load_tokenizer(tmp_path / "0").fingerprint() == spm_tokenizer(legacy=True).fingerprint()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config.json": []}, r"tokenizer_config\.json does not hold a JSON object"),
        ({"added_tokens.json": {"<pad>": None}}, r"added_tokens\.json: '<pad>' has the number None; expected a whole"),
        (
            {"tokenizer_config.json": {"added_tokens_decoder": {"1": {}}}},
            r"tokenizer_config\.json: added_tokens_decoder: 1: the content of a token is not a text",
        ),
    ],
)
def test_broken_settings(files: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_tokenizer(folder_with(tmp_path, files))


def test_broken_model(tmp_path: Path) -> None:
    for data in (b"", b"not a model", MODEL[: len(MODEL) // 2]):
        (tmp_path / "tokenizer.model").write_bytes(data)
        with pytest.raises(UserError, match=r"tokenizer\.model: not a SentencePiece model"):
            load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    (tmp_path / "tokenizer.model").write_bytes(MODEL)
    with pytest.raises(UserError, match=r"tokenizer_config\.json is not valid JSON"):
        SentencePieceTokenizer(MODEL, tmp_path)
