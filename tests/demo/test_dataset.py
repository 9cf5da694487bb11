"""The dataset on disk: record files, images, tokenizer; written again or kept as it should be."""

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from eve_jax.data.sources.records import open_records
from eve_jax.data.text.encode import encode_chat
from eve_jax.data.text.load import load_tokenizer
from eve_jax.demo import dataset
from eve_jax.demo.assets import all_kinds
from eve_jax.demo.dataset import MARKER, RECORD_FILES, read_records, write_dataset
from eve_jax.demo.language import SPECIAL_TOKENS, SYSTEM, chat_text, numbered
from eve_jax.demo.questions import TASKS
from eve_jax.demo.settings import TINY
from eve_jax.demo.split import Split
from eve_jax.errors import UserError

TEMPLATE = {
    "llm": "plain",
    "llm_chat": "qwen2",
    "captions": "plain",
    "questions": "qwen2",
    "sft": "qwen2",
    "heldout": "qwen2",
}
NOUNS = {noun: kind for kind in all_kinds() for noun in (kind.name, kind.plural)}


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _images(record: dict) -> list[str]:
    image = record.get("image", [])
    return [image] if isinstance(image, str) else image


def test_numbers_of_records(tiny: Path) -> None:
    numbers = {name: len(read_records(tiny / f"{name}.jsonl")) for name in RECORD_FILES}
    assert numbers == {
        "llm": TINY.documents,
        "llm_chat": TINY.chats,
        "captions": TINY.caption_images,
        "questions": TINY.question_images + TINY.question_pairs,
        "sft": TINY.sft_images + TINY.sft_pairs + TINY.sft_texts,
        "heldout": TINY.heldout_per_task * len(TASKS),
    }
    assert json.loads((tiny / MARKER).read_text())["records"] == numbers
    with Image.open(tiny / "examples.png") as sheet:
        assert sheet.width > 1000


@pytest.mark.parametrize("name", RECORD_FILES)
def test_records_are_sound(tiny: Path, name: str) -> None:
    records = read_records(tiny / f"{name}.jsonl")
    assert len({record["id"] for record in records}) == len(records)
    sizes = set()
    for record in records:
        markers = sum(turn["value"].count("<image>") for turn in record["conversations"])
        assert markers == len(_images(record)), record["id"]
        for image in _images(record):
            with Image.open(tiny / "images" / image) as opened:
                opened.load()
                assert opened.mode == "RGB"
                sizes.add(opened.size)
    assert len(sizes) > 5 or name.startswith("llm")


@pytest.mark.parametrize("name", RECORD_FILES)
def test_records_encode(tiny: Path, name: str) -> None:
    tokenizer = load_tokenizer(tiny / "tokenizer")
    for record in open_records(str(tiny / f"{name}.jsonl"), tiny / "images"):
        encoded = encode_chat(record.turns, tokenizer, TEMPLATE[name], len(record.images))
        learnt = tokenizer.decode(encoded.labels[encoded.labels >= 0])
        answers = [turn.text for turn in record.turns if turn.role == "gpt"]
        if not name.startswith("llm"):
            assert learnt.split() == " ".join(answers).split()


def test_mixture_of_records(tiny: Path) -> None:
    numbers = {name: {len(_images(r)) for r in read_records(tiny / f"{name}.jsonl")} for name in RECORD_FILES}
    assert numbers == {
        "llm": {0},
        "llm_chat": {0},
        "captions": {1},
        "questions": {1, 2},
        "sft": {0, 1, 2},
        "heldout": {1, 2},
    }


def test_heldout_records(tiny: Path) -> None:
    records = read_records(tiny / "heldout.jsonl")
    assert {record["category"] for record in records} == set(TASKS)
    for record in records:
        human, gpt = record["conversations"]
        assert gpt["value"] == record["answer"]
        assert human["value"] == numbered(["<image>"] * len(_images(record))) + record["question"]
    trained = {
        image for name in RECORD_FILES[:-1] for r in read_records(tiny / f"{name}.jsonl") for image in _images(r)
    }
    assert not trained & {image for record in records for image in _images(record)}


def test_no_held_out_composition_in_the_training_files(tiny: Path) -> None:
    """Read from the texts, as a reader of the files would: what is named together in one record."""
    split = Split(TINY)
    seen_kinds, seen_words = set(), set()
    for name in RECORD_FILES[:-1]:
        for record in read_records(tiny / f"{name}.jsonl"):
            text = " ".join(turn["value"] for turn in record["conversations"])
            words = text.replace("<|im_end|>", " ").replace(".", " ").replace("?", " ").replace(",", " ").split()
            if not _images(record) and "Map:" not in words:
                continue  # a caption alone or general knowledge: several records' worth of things may be named
            kinds = {NOUNS[word] for word in words if word in NOUNS}
            signs = {word for word in words if word in split.words}
            assert not split.any_held(kinds), record["id"]
            assert all(split.held_color(word) not in words for word in signs), record["id"]
            seen_kinds |= kinds
            seen_words |= signs
    assert seen_kinds == set(split.kinds) and seen_words == set(split.words)


def test_tokenizer(tiny: Path) -> None:
    tokenizer = load_tokenizer(tiny / "tokenizer")
    assert tokenizer.vocab_size <= TINY.vocabulary
    assert [tokenizer.token_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2]
    assert len(tokenizer.encode(SYSTEM)) == 1
    split = Split(TINY)
    for word in (*(k.name for k in split.kinds), *(k.plural for k in split.kinds), *split.words, *split.colors):
        assert len(tokenizer.encode(f" {word}")) == 1, word
    for text in ("A cat.", "naïve 東京 😀\n\n  two  spaces ", chat_text([("What is a cat?", "an animal")])):
        assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == text


def test_same_seed_same_bytes(tiny: Path, tmp_path: Path) -> None:
    again = write_dataset(tmp_path / "again", "tiny")
    assert _hashes(again) == _hashes(tiny)
    other = write_dataset(tmp_path / "other", "tiny", seed=1)
    assert _hashes(other)["heldout.jsonl"] != _hashes(tiny)["heldout.jsonl"]


def test_a_finished_dataset_is_kept_and_other_settings_replace_it(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", "tiny")
    before = (folder / "llm.jsonl").stat().st_mtime_ns
    assert write_dataset(folder, "tiny") == folder
    assert (folder / "llm.jsonl").stat().st_mtime_ns == before
    write_dataset(folder, "tiny", seed=3)
    assert json.loads((folder / MARKER).read_text())["seed"] == 3


def test_interrupted_writing_starts_again(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "draw_examples", stop)
        with pytest.raises(KeyboardInterrupt):
            write_dataset(folder, "tiny")
    assert not folder.exists()
    assert _hashes(write_dataset(folder, "tiny")) == _hashes(tiny)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_wrong_folder_and_wrong_size(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no demo dataset"):
        write_dataset(tmp_path, "tiny")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(UserError, match="expected one of full, tiny"):
        write_dataset(tmp_path / "data", "huge")
