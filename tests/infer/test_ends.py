"""Tokenizers that do not fit the template, or the model, are refused at every entry point before weights are read."""

import json
from pathlib import Path

import pytest

from eve_jax import EVE
from eve_jax.data.text.load import load_tokenizer
from eve_jax.errors import UserError
from eve_jax.infer.score_files import score_files
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from tests.data.synthetic import byte_tokenizer, write_records
from tests.weights import folders

END = "<|im_end|>"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imported checkpoint of the template qwen2."""
    folder = tmp_path_factory.mktemp("ends")
    return import_checkpoint(str(folders.write_hf(folder / "hf", *folders.golden())), folder / "ours", quiet=True)


@pytest.mark.parametrize(
    ("special", "files", "says"),
    [
        ((), {}, r"has no token '<\|im_end\|>', which the template qwen2 ends answers with: use a tokenizer that has"),
        (("</s>",), {}, r"has no token .*: set (config\.data\.)?template=v1 or mistral, which fits this tokenizer"),
        ((), {"added_tokens.json": {END: 300}}, r"'<\|im_end\|>' is token 300, but there is no token 256"),
        ((END,), {"added_tokens.json": {END: 300}}, r"is token 300 here, 256 in tokenizer\.json"),
        (
            (END,),
            {"special_tokens_map.json": {"additional_special_tokens": [f"<{n}>" for n in range(64)]}},
            r"has 321 tokens, the last of them '<63>', but the model's vocabulary is 320",
        ),
        ((), {"tokenizer_config.json": {"added_tokens_decoder": {"256": {"content": END, "lstrip": True}}}}, "lstrip"),
    ],
)
def test_a_tokenizer_that_does_not_fit(
    special: tuple[str, ...], files: dict[str, dict], says: str, checkpoint: Path, tmp_path: Path
) -> None:
    byte_tokenizer(special).save(checkpoint)
    for name, content in files.items():
        (checkpoint / name).write_text(json.dumps(content))
    records = write_records(tmp_path, 3)
    with pytest.raises(UserError, match=says):
        EVE.from_pretrained(checkpoint)
    with pytest.raises(UserError, match=says):
        score_files(checkpoint, str(records), tmp_path / "images", tmp_path / "out.jsonl", quiet=True)
    with pytest.raises(UserError, match=says):
        export_checkpoint(checkpoint, tmp_path / "hf", quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "records.jsonl"]


def test_an_end_that_a_file_adds(checkpoint: Path, tmp_path: Path) -> None:
    """The whole way: chat, score, and an export whose tokenizer.json is complete by itself."""
    byte_tokenizer(()).save(checkpoint)
    (checkpoint / "added_tokens.json").write_text(json.dumps({END: 256}))
    eve = EVE.from_pretrained(checkpoint, fit="shrink")
    assert eve.stop_ids == [256]
    records = write_records(tmp_path, 3)
    scores = score_files(checkpoint, str(records), tmp_path / "images", tmp_path / "out.jsonl", quiet=True)
    out = export_checkpoint(checkpoint, tmp_path / "hf", quiet=True)
    (out / "added_tokens.json").unlink()
    assert load_tokenizer(out).encode("a" + END) == [*byte_tokenizer().encode("a"), 256]
    again = score_files(out, str(records), tmp_path / "images", tmp_path / "again.jsonl", quiet=True)
    assert again.lines == scores.lines
