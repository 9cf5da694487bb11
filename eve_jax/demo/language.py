"""The text side of the demo: documents that teach a small LLM the language, and the tokenizer made from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from eve_jax.data.text.templates import TEMPLATES
from eve_jax.demo.assets import Kind, a
from eve_jax.demo.compose import TrainingComposer
from eve_jax.demo.questions import DESCRIBE, NUMBERS, ORDINALS, caption, questions_about
from eve_jax.demo.scenes import word_map
from eve_jax.demo.split import Split

SYSTEM = TEMPLATES["qwen2"].system
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
Dialogue = list[tuple[str, str]]  # what the user says, what the assistant answers

# One piece a word, with the space before it; one a punctuation mark; role markers whole.
_PIECES = r" ?(?:USER|ASSISTANT|Map):| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]|\s"
_EACH_WORD = 40  # times that each kind, word and color is shown to the tokenizer next to the documents


def chat_text(dialogue: Dialogue) -> str:
    """The dialogue as the qwen2 chat template writes it, in plain text."""
    t = TEMPLATES["qwen2"]
    turns = (f"{t.human}{user}{t.human_end}{t.gpt}{t.answer_begin}{answer}{t.end}" for user, answer in dialogue)
    return "".join(t.around(t.system, False)) + "".join(turns)


def document(composer: TrainingComposer) -> str:
    """One text-only document to read: a caption, a word map with its caption, or a chat."""
    style = composer.rng.random()
    if style < 0.3:
        return caption(composer.scene(), composer.rng)
    if style < 0.8:
        scene = composer.scene()
        return f"{word_map(scene)}\n{caption(scene, composer.rng)}"
    return chat_text(text_dialogue(composer))


def text_dialogue(composer: TrainingComposer) -> Dialogue:
    """A chat without images: about word maps, one in ten about kinds and numbers."""
    if composer.rng.random() < 0.9:
        return map_dialogue(composer)
    return [knowledge(composer.split, composer.rng) for _ in range(composer.rng.randint(1, 3))]


def map_dialogue(composer: TrainingComposer) -> Dialogue:
    """A dialogue about one or two images that are given as word maps, as about real images."""
    rng = composer.rng
    if rng.random() < 0.2:
        scenes, asked = composer.pair()
        return about(numbered([word_map(scene) for scene in scenes]), [(q.text, q.answer) for q in asked])
    scene = composer.scene()
    asked = questions_about(scene, rng, composer.settings.max_count)[:3]
    dialogue = [(q.text, q.answer) for q in asked]
    if not asked or rng.random() < composer.settings.describe_share:
        dialogue.insert(0, (rng.choice(DESCRIBE), caption(scene, rng)))
    return about(f"{word_map(scene)}\n", dialogue)


def numbered(images: Sequence[str]) -> str:
    """Image markers or word maps a line each; several are called first, second."""
    if len(images) < 2:
        return "".join(f"{image}\n" for image in images)
    return "".join(f"{name.capitalize()}: {image}\n" for name, image in zip(ORDINALS, images, strict=True))


def about(prefix: str, dialogue: Dialogue) -> Dialogue:
    """The dialogue with `prefix` (image markers or maps) before what the user says first."""
    (user, answer), *rest = dialogue
    return [(prefix + user, answer), *rest]


def knowledge(split: Split, rng: Random) -> tuple[str, str]:
    """A question about kinds and numbers that needs no image, and its answer."""
    kind: Kind = rng.choice(split.kinds)
    number = rng.randint(1, 4)
    categories = sorted({k.category for k in split.kinds})
    other = rng.choice([c for c in categories if c != kind.category])
    first, second = rng.sample((kind.category, other), 2)
    return rng.choice(
        (
            (f"Name {a(kind.category)}.", kind.name),
            (f"Is {a(kind.name)} {a(first)} or {a(second)}?", kind.category),
            (f"What is {a(kind.name)}?", a(kind.category)),
            (f"What is the plural of {kind.name}?", kind.plural),
            ("Name a color.", rng.choice(split.colors)),
            (f"What comes after {NUMBERS[number]}?", NUMBERS[number + 1]),
        )
    )


def train_tokenizer(texts: Iterable[str], words: Sequence[str], size: int) -> Tokenizer:
    """A byte-level BPE tokenizer of at most `size` tokens, special ones included.

    The system sentence of the chat template is one token, and so, as far as `size` allows, is every common word with
    the space before it; each of `words` counts as common. Any text can be encoded.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    corpus = [text.replace(SYSTEM, "").replace("<|im_end|>", "\n") for text in texts]
    tokenizer.train_from_iterator([*corpus, *(f" {word}" for word in words for _ in range(_EACH_WORD))], trainer)
    tokenizer.add_tokens([AddedToken(SYSTEM, normalized=False)])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json`, and `tokenizer_config.json` for readers of Hugging Face folders."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
