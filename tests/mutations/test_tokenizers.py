"""Tokenizer folders with one change: the same tokens as before, or one line; an end token is always what it says."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from eve_jax.data.templates import check_template, end_id, get_template
from eve_jax.data.tokenizer import Tokenizer, load_tokenizer
from eve_jax.errors import UserError
from tests.data.synthetic import byte_tokenizer
from tests.mutations.folders import byte_changes, change_bytes, change_json, json_changes, one_line

TEXTS = ("What is it?", "A red square.<|im_end|>", "é\n\t <image> 日本")
COMPANIONS: dict[str, Any] = {
    "added_tokens.json": {"<|im_end|>": 256, "<extra>": 257},
    "tokenizer_config.json": {
        "added_tokens_decoder": {"257": {"content": "<extra>", "special": True}},
        "eos_token": "<|im_end|>",
        "model_max_length": 512,
    },
    "special_tokens_map.json": {"eos_token": {"content": "<|im_end|>", "special": True}},
}
CONFIG = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tokenizer.json and the files beside it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save(folder)
    for name, value in COMPANIONS.items():
        (folder / name).write_text(json.dumps(value))
    return folder


def ids_of(tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.encode(text) for text in TEXTS]


def check(folder: Path, whole: Path, same: bool) -> None:
    """Load `folder`: one line, or a tokenizer whose end is one token and that is the same after it was saved.

    same: also that its ids are those of the folder `whole`.
    """
    try:
        tokenizer = load_tokenizer(folder)
        check_template(tokenizer, "qwen2")
    except UserError as error:
        one_line(error)
        return
    end = get_template("qwen2").end
    assert tokenizer.encode(f"a{end}")[-1] == end_id(tokenizer, "qwen2") == tokenizer.find(end)
    assert tokenizer.decode([end_id(tokenizer, "qwen2")], skip_special=False) == end
    if same:
        assert ids_of(tokenizer) == ids_of(load_tokenizer(whole))
    saved = folder / "saved"
    tokenizer.save(saved)
    again = load_tokenizer(saved)
    assert (ids_of(again), again.fingerprint()) == (ids_of(tokenizer), tokenizer.fingerprint())


def copy_of(whole: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(whole, folder))


@CONFIG
@given(name=st.sampled_from(["tokenizer.json", *COMPANIONS]), change=byte_changes())
@example(name="tokenizer.json", change=("empty", 0.0, 1))
@example(name="added_tokens.json", change=("cut", 0.5, 1))
def test_changed_bytes(tmp_path: Path, whole: Path, name: str, change: tuple[str, float, int]) -> None:
    folder = copy_of(whole, tmp_path / "changed")
    change_bytes(folder / name, change)
    check(folder, whole, same=False)


@CONFIG
@given(name=st.sampled_from([*COMPANIONS]), change=json_changes())
def test_changed_fields_of_the_files_beside_it(
    tmp_path: Path, whole: Path, name: str, change: tuple[str, int, Any]
) -> None:
    """What tokenizer.json says stays: its tokens are never others because of a file beside it."""
    folder = copy_of(whole, tmp_path / "changed")
    change_json(folder / name, change)
    check(folder, whole, same=True)


@CONFIG
@given(within=st.sampled_from([(), ("model",), ("model", "vocab")]), change=json_changes())
@example(within=("model", "vocab"), change=("replace", 1, 0))  # two tokens of one number were taken
def test_changed_fields_of_the_tokenizer(
    tmp_path: Path, whole: Path, within: tuple[str, ...], change: tuple[str, int, Any]
) -> None:
    folder = copy_of(whole, tmp_path / "changed")
    change_json(folder / "tokenizer.json", change, within)
    check(folder, whole, same=False)
