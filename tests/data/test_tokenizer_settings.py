"""Settings that change tokens in transformers: followed, named in a warning, or without effect."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import decoders, normalizers

from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.tokenizer import FastTokenizer
from eve_jax.errors import UserError, warn
from tests.data.synthetic import byte_tokenizer

SPM = Path(__file__).parent.parent / "golden" / "F_v1_spm.model"


def folder_of(folder: Path, kind: str, settings: dict[str, Any], normalizer: Any = None) -> Path:
    warn.cache_clear()
    if kind == "tokenizer.json":
        tokenizer = byte_tokenizer()
        assert isinstance(tokenizer, FastTokenizer)
        if normalizer is not None:
            tokenizer.inner.normalizer = normalizer
        tokenizer.save(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / kind).write_bytes(SPM.read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


# The settings of public checkpoints: Qwen2.5, SmolLM2, LLaMA-3; Vicuna and LLaMA-2.
PUBLIC: dict[str, list[dict[str, Any]]] = {
    "tokenizer.json": [
        {"add_prefix_space": False, "add_bos_token": False, "split_special_tokens": False, "errors": "replace"},
        {"add_prefix_space": False, "clean_up_tokenization_spaces": False, "model_max_length": 8192},
        {"clean_up_tokenization_spaces": True, "tokenizer_class": "PreTrainedTokenizerFast"},
    ],
    "tokenizer.model": [
        {"add_bos_token": True, "add_eos_token": False, "legacy": False, "sp_model_kwargs": {}, "pad_token": None},
        {
            "clean_up_tokenization_spaces": False,
            "legacy": True,
            "add_prefix_space": True,
            "use_default_system_prompt": False,
        },
        {"add_bos_token": False, "add_prefix_space": None},
    ],
}
OTHERWISE: dict[str, list[tuple[dict[str, Any], str]]] = {
    "tokenizer.json": [
        ({"do_lower_case": True}, "do_lower_case is true, but the tokenizer does not make letters lower case"),
        ({"strip_accents": True}, "strip_accents is true, but the tokenizer keeps accents"),
        ({"add_prefix_space": True}, "add_prefix_space is true, but the tokenizer puts no space before a text"),
        ({"add_bos_token": True}, "add_bos_token is true, but the tokenizer puts no bos token before a text"),
        ({"add_eos_token": True}, "add_eos_token is true, but the template alone ends an answer"),
        ({"split_special_tokens": True}, "split_special_tokens is true, but special tokens in a text are read as such"),
    ],
    "tokenizer.model": [
        ({"do_lower_case": True}, "do_lower_case is true, but the tokenizer does not make letters lower case"),
        ({"add_prefix_space": False}, "add_prefix_space is false, but the tokenizer puts a space before a text"),
        ({"add_eos_token": True}, "add_eos_token is true, but the template alone ends an answer"),
        (
            {"sp_model_kwargs": {"enable_sampling": True, "alpha": 0.1}},
            "sp_model_kwargs has enable_sampling, alpha, which",
        ),
    ],
}


@pytest.mark.parametrize(("kind", "settings"), [(kind, one) for kind, several in PUBLIC.items() for one in several])
def test_public_checkpoints_load_without_a_line(
    kind: str, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_tokenizer(folder_of(tmp_path, kind, settings))
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "settings", "says"), [(kind, *one) for kind, several in OTHERWISE.items() for one in several]
)
def test_what_is_not_followed_is_named(
    kind: str, settings: dict[str, Any], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = load_tokenizer(folder_of(tmp_path / "plain", kind, {})).encode("Caf\u00e9 A")
    assert load_tokenizer(folder_of(tmp_path / "set", kind, settings)).encode("Caf\u00e9 A") == plain
    (line,) = capsys.readouterr().err.splitlines()
    assert f"set/tokenizer_config.json: {says}" in line


@pytest.mark.parametrize("said", [True, False])
def test_the_normalizer_of_the_file_itself_decides(
    said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    settings = {"do_lower_case": said, "strip_accents": said}
    tokenizer = load_tokenizer(folder_of(tmp_path, "tokenizer.json", settings, normalizer))
    assert tokenizer.decode(tokenizer.encode("Caf\u00e9 A")) == "cafe a"
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("json: ")[2].partition(",")[0] for line in lines] == (
        [] if said else ["do_lower_case is false", "strip_accents is false"]
    )


@pytest.mark.parametrize("name", ["do_lower_case", "add_prefix_space", "add_eos_token"])
def test_settings_of_other_types_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"tokenizer_config\.json: {name} is 'yes', not true or false"):
        load_tokenizer(folder_of(tmp_path, "tokenizer.json", {name: "yes"}))


@pytest.mark.parametrize("decoder", [None, decoders.WordPiece(), decoders.Metaspace(), decoders.Fuse()])
def test_a_decoder_that_leaves_tokens_as_they_are_is_refused(decoder: Any, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    assert isinstance(tokenizer, FastTokenizer)
    tokenizer.save(tmp_path)
    said = json.loads((tmp_path / "tokenizer.json").read_text())
    said["decoder"] = None if decoder is None else json.loads(decoder.__getstate__())
    (tmp_path / "tokenizer.json").write_text(json.dumps(said))
    kind = "null" if decoder is None else type(decoder).__name__
    with pytest.raises(
        UserError, match=rf"tokenizer\.json: decoder is {kind}, which leaves '\u0120' of tokens in answers"
    ):
        load_tokenizer(tmp_path)
