"""Whatever happens to the files of a tokenizer, texts get the tokens that the files mean, or one line tells."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given
from sentencepiece import SentencePieceProcessor
from tokenizers import processors

from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.templates import check_template, end_id
from eve_jax.data.text.tokenizer import FastTokenizer, Tokenizer
from eve_jax.errors import UserError
from tests.data.synthetic import byte_tokenizer
from tests.mutations import edits as changes
from tests.mutations.edits import ByteEdit, Edit, JsonEdit

END, BOS = "<|im_end|>", "<|bos|>"
FILE, MODEL = "tokenizer.json", "tokenizer.model"
SETTINGS = ("added_tokens.json", "tokenizer_config.json", "special_tokens_map.json")
FILES = (FILE, *SETTINGS)
TEXTS = ("hello 7", f"hello{END}", f"a é {END} USER: <image> x", "图\n  \t'")
GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of both kinds, with all files next to the tokenizer; the folder `again` is for changed copies."""
    folder = tmp_path_factory.mktemp("tokenizers")
    fast = byte_tokenizer([BOS, END, "<pad>"])
    assert isinstance(fast, FastTokenizer)
    fast.inner.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 256)])
    (folder / FILE).mkdir()
    fast.save(folder / FILE)
    _companions(folder / FILE, {BOS: 256, END: 257, "<pad>": 258})
    (folder / MODEL).mkdir()
    shutil.copy(GOLDEN / "F_v1_spm.model", folder / MODEL / MODEL)
    _companions(folder / MODEL, {END: 900, "<pad>": 901})
    return {FILE: folder / FILE, MODEL: folder / MODEL, "again": folder / "again"}


def _companions(folder: Path, tokens: dict[str, int]) -> None:
    """Write three files that agree on `tokens`."""
    entries = {str(n): {"content": token, "special": True, "lstrip": False} for token, n in tokens.items()}
    roles = {"eos_token": END, "pad_token": "<pad>"}
    (folder / "added_tokens.json").write_text(json.dumps(tokens))
    (folder / "special_tokens_map.json").write_text(json.dumps(roles))
    config = {"added_tokens_decoder": entries, "legacy": False, "add_bos_token": True, "chat_template": "x", **roles}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def ids(tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.encode(text) for text in TEXTS]


def read(path: Path) -> Any:
    """What the JSON file `path` holds, {} when it holds none."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError):
        return {}


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(inner)


def numbers_of_end(folder: Path) -> set[int]:
    """Every number that a file in `folder` gives the end token, in any of the forms."""
    said = {one["id"] for one in objects(read(folder / FILE)) if one.get("content") == END and "id" in one}
    added, decoder = read(folder / SETTINGS[0]), read(folder / SETTINGS[1]).get("added_tokens_decoder")
    said |= {int(added[END])} if END in added else set()
    entries = decoder.items() if isinstance(decoder, dict) else ()
    return said | {int(n) for n, one in entries if END in (one, one.get("content") if isinstance(one, dict) else None)}


def written(folder: Path) -> set[str]:
    """Every text in the files next to the tokenizer: what may be a token of its own, and change the texts it is in."""
    found = set()
    for name in SETTINGS:
        for one in objects(read(folder / name)):
            found |= {text for text in (*one, *one.values()) if isinstance(text, str)}
            found |= {text for texts in one.values() if isinstance(texts, list) for text in texts if text == str(text)}
    return found


def check(valid: dict[str, Path], kind: str, edits: list[Edit]) -> None:
    """Assert that the changed folder is refused in one line, or has the tokens of what its files now say."""
    folder, plain = changes.copy(valid[kind], valid["again"]), load_tokenizer(valid[kind])
    changes.apply(folder, edits)
    try:
        tokenizer = load_tokenizer(folder)
    except UserError as error:
        changes.check_refusal(error)
        assert str(folder) in str(error)
        return
    now = ids(tokenizer)
    try:
        check_template(tokenizer, "qwen2")
    except UserError as error:
        changes.check_refusal(error)
    else:
        assert numbers_of_end(folder) <= {end_id(tokenizer, "qwen2")}
        assert now[1].count(end_id(tokenizer, "qwen2")) == 1
    tokenizer.save(folder / "saved")
    assert ids(load_tokenizer(folder / "saved")) == now
    before, tokens = ids(plain), written(folder) | {END, BOS, "<pad>"}
    for text, one, other in zip(TEXTS, now, before, strict=True):
        free = not any(token and token in text for token in tokens)
        if one != other and free and "legacy" not in str(edits):
            assert one == library(folder, kind, text)
    if kind == FILE and (folder / kind).read_bytes() == (valid[kind] / kind).read_bytes():
        assert tokenizer.bos == plain.bos


def library(folder: Path, kind: str, text: str) -> list[int]:
    """The tokens of `text` according to the library and the changed file alone: what its change means."""
    raw = (folder / kind).read_bytes()
    if kind == MODEL:
        return SentencePieceProcessor(model_proto=raw).encode(text)
    inner = tokenizers.Tokenizer.from_buffer(raw.removeprefix(b"\xef\xbb\xbf"))
    inner.no_truncation()
    inner.no_padding()
    return inner.encode(text, add_special_tokens=False).ids


def token(content: str, id: int) -> dict[str, Any]:
    """An entry of `added_tokens`."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": content, **flags, "special": True}


ADDED = (3,)  # the place of `added_tokens` in the file
FAST_EDITS = changes.lists_of(
    changes.json_edits(FILES, [257, 258, "257", END, BOS, {"type": "ByteLevel"}]) | changes.byte_edits(FILES)
)
SPM_EDITS = changes.lists_of(
    changes.json_edits(SETTINGS, [900, 901, END, "</s>"])
    | changes.byte_edits(SETTINGS)
    | changes.byte_edits([MODEL], ["cut", "insert", "drop", "flip", "empty", "remove", "other"])
)


@changes.profile(150)
@given(edits=FAST_EDITS)
@example(edits=[JsonEdit(FILE, ADDED, "set", [token(END, 300)])])  # the library would number these anew
@example(edits=[JsonEdit(FILE, ADDED, "set", [token(END, 5)])])
@example(edits=[JsonEdit(FILE, ADDED, "set", [token("", 256)])])
@example(edits=[JsonEdit(FILE, (8, 8, 3), "delete", None)])  # a byte of the vocabulary
@example(edits=[JsonEdit(FILE, (8, 8, 3), "set", 5)])  # two tokens of one number
@example(edits=[JsonEdit(FILE, (6, 3), "set", {})])  # a panic of the library: a post-processor without its tokens
@example(edits=[JsonEdit(FILE, (6, 3, 0, 1), "set", [1])])  # another bos
@example(edits=[JsonEdit(FILE, (8, 1), "set", 0.5)])  # random merges
@example(edits=[JsonEdit(FILE, (8,), "set", {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "u"})])
def test_any_change_to_a_tokenizer_json(valid: dict[str, Path], edits: list[Edit]) -> None:
    check(valid, FILE, edits)


@changes.profile(150)
@given(edits=SPM_EDITS)
@example(edits=[ByteEdit(MODEL, 0.0, "flip", 43)])  # a model without <unk>
@example(edits=[JsonEdit(SETTINGS[1], (1,), "set", "x")])  # legacy
def test_any_change_to_a_sentencepiece_folder(valid: dict[str, Path], edits: list[Edit]) -> None:
    check(valid, MODEL, edits)


@pytest.mark.slow
@changes.profile(150, slow=True)
@given(edits=FAST_EDITS)
def test_many_changes_to_a_tokenizer_json(valid: dict[str, Path], edits: list[Edit]) -> None:
    check(valid, FILE, edits)


@pytest.mark.slow
@changes.profile(150, slow=True)
@given(edits=SPM_EDITS)
def test_many_changes_to_a_sentencepiece_folder(valid: dict[str, Path], edits: list[Edit]) -> None:
    check(valid, MODEL, edits)
