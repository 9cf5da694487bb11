"""Prompts, tokens and labels against the golden set F: every conversation, with real vocabularies.

Where upstream does well, all three are identical. Where it fails (its labels are all masked, an image is lost, it
raises), `EDGE` and `EDGE_PLAIN` say what is done instead; docs/data.md has the same list in words.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eve_jax.data.markers import MARKER
from eve_jax.data.record import BadRecord, Turn
from eve_jax.data.text.encode import IGNORE, IMAGE_ID, Encoded, encode_chat
from eve_jax.data.text.templates import get_template
from eve_jax.data.text.tokenizer import Tokenizer
from tests.vocab import llama3_tokenizer, mistral_tokenizer, qwen2_tokenizer, spm_tokenizer

FOLDER = Path(__file__).parents[1] / "golden"
V2 = json.loads((FOLDER / "F_templates_v2.json").read_text())
V1 = json.loads((FOLDER / "F_templates_v1.json").read_text())
legacy_spm = functools.partial(spm_tokenizer, legacy=True)
modern_spm = functools.partial(spm_tokenizer, legacy=False)
# Version of the golden set -> the set, our template, the tokenizer.
VERSIONS: dict[str, tuple[dict[str, Any], str, Callable[[], Tokenizer]]] = {
    "qwen2": (V2, "qwen2", qwen2_tokenizer),
    "plain_qwen2_tokenizer": (V2, "plain", qwen2_tokenizer),
    "qwen2_model_max_length_30": (V2, "qwen2", qwen2_tokenizer),
    "llama3": (V2, "llama3", llama3_tokenizer),
    "plain_llama3_tokenizer": (V2, "plain", llama3_tokenizer),
    "llama3_model_max_length_30": (V2, "llama3", llama3_tokenizer),
    "v1_legacy_True": (V1, "v1", legacy_spm),
    "v1_legacy_False": (V1, "v1", modern_spm),
    "plain_legacy_True": (V1, "plain_v1", legacy_spm),
    "plain_legacy_False": (V1, "plain_v1", modern_spm),
}
# Case -> number of images given, what is learned (with "|" for the end token), or the reason of the refusal.
EDGE = {
    "system_role": (1, " The bus.|"),
    "answer_contains_role_marker": (1, " It says USER: hello ASSISTANT: hi there|"),
    "empty_answer": (1, "nothing to learn"),
    "two_images_one_turn": (2, " The first is yellow.|"),
    "image_in_two_turns": (2, " The bus.| The car.|"),
    "image_key_but_no_token": (1, " The bus.|"),
    "token_but_no_image_key": (0, "1 <image> marker for 0 images"),
    "ends_with_human": (1, " The bus.|"),
}
DIALOGUE = "a caption is one gpt turn"
EDGE_PLAIN = {
    "multi_turn": (1, DIALOGUE),
    "system_role": (1, "The bus.|"),
    "text_only": (0, DIALOGUE),
    "gpt_first": (1, DIALOGUE),
    "empty_answer": (1, "nothing to learn"),
    "two_images_one_turn": (2, "The first is yellow.|"),
    "image_in_two_turns": (2, DIALOGUE),
    "token_but_no_image_key": (0, "1 <image> marker for 0 images"),
    "ends_with_human": (1, DIALOGUE),
}
# Edge cases in one version alone.
EDGE_ONLY: dict[str, dict[str, tuple[int, str]]] = {
    "qwen2": {"qwen_pad_token_in_text": (1, " The<|endoftext|>bus.|")},
    "qwen2_model_max_length_30": {"text_only": (0, " A helpful assistant.| The main activity.|")},
    "llama3_model_max_length_30": {"text_only": (0, " A helpful assistant.| The main activity.|")},
    "v1_legacy_False": {
        "multi_turn": (1, " There are three people.| It is 10:45 in the morning.| Yes|"),
        "text_only": (0, " A helpful assistant.| The main activity.|"),
    },
    "plain_legacy_True": {"text_only_single": (0, "The quick brown fox.|"), "image_key_but_no_token": (1, "The bus.|")},
    "plain_legacy_False": {
        "text_only_single": (0, "The quick brown fox.|"),
        "image_key_but_no_token": (1, "The bus.|"),
    },
}
# Upstream's tokens are right in these, and only its labels, or nothing but the number of its images, are wrong.
RIGHT_TOKENS = {
    "answer_contains_role_marker",
    "image_in_two_turns",
    "ends_with_human",
    "qwen_pad_token_in_text",
    "multi_turn",
    "text_only",
}


def edges(version: str) -> dict[str, tuple[int, str]]:
    common = EDGE_PLAIN if version.startswith("plain") else EDGE
    return {**common, **EDGE_ONLY.get(version, {})}


CASES = [(version, name) for version, (golden, _, _) in VERSIONS.items() for name in golden["results"][version]]
REGULAR = [(version, name) for version, name in CASES if name not in edges(version)]
EDGES = [(version, name) for version, name in CASES if name in edges(version)]


def conversation(golden: dict[str, Any], name: str) -> tuple[list[Turn], int]:
    raw = golden["conversations"][name.partition("__")[0]]
    return [Turn(turn["from"], turn["value"]) for turn in raw["conversations"]], int("image" in raw)


def encode(version: str, name: str, n_images: int | None = None) -> Encoded:
    golden, template, tokenizer = VERSIONS[version]
    turns, own = conversation(golden, name)
    image_first = "__without_preprocess_multimodal" not in name
    count = own if n_images is None else n_images
    return encode_chat(turns, tokenizer(), template, count, image_first, special_text=True)


def written(ids: np.ndarray, tokenizer: Tokenizer) -> str:
    if tokenizer.bos is not None:
        assert ids[0] == tokenizer.bos
        ids = ids[1:]
    parts = np.split(ids, np.flatnonzero(ids == IMAGE_ID))
    return MARKER.join(tokenizer.decode(part[part != IMAGE_ID], skip_special=False) for part in parts)


def learnt(encoded: Encoded, version: str, other: Tokenizer | None = None) -> str:
    """The text of the targets, "|" for the end token; a first token has nothing that could predict it."""
    _, template, tokenizer = VERSIONS[version]
    labels = encoded.labels[1:]
    runs = np.split(labels, np.flatnonzero(np.diff(labels != IGNORE)) + 1)
    texts = []
    for run in (run for run in runs if run[0] != IGNORE):
        text = (other or tokenizer()).decode(run, skip_special=False)
        # Decoding takes the space before "The" for the one that SentencePiece puts before a text.
        texts.append(" " + text if template == "v1" and not text.startswith(" ") else text)
    return "".join(texts).replace(get_template(template).end, "|")


def test_every_case_is_looked_at() -> None:
    assert len(CASES) == 2 * (20 + 20 + 3) + 4 * 20
    assert len(REGULAR) == 89
    known = {name for _, name in CASES}
    assert all(name in known for version in VERSIONS for name in edges(version))


@pytest.mark.parametrize(("version", "name"), REGULAR)
def test_regular_conversation_is_identical(version: str, name: str) -> None:
    golden, _, tokenizer = VERSIONS[version]
    expected = golden["results"][version][name]
    encoded = encode(version, name)
    assert encoded.ids.tolist() == expected["input_ids"]
    assert encoded.labels.tolist() == expected["labels"]
    assert encoded.ids.dtype == encoded.labels.dtype == np.int32
    assert int((encoded.labels != IGNORE).sum()) == expected["n_target"] > 0
    if name != "unicode" or "qwen2" not in version:  # Qwen2's tokenizer normalizes its input
        assert written(encoded.ids, tokenizer()) == expected["prompt"]


@pytest.mark.parametrize(("version", "name"), EDGES)
def test_edge_case(version: str, name: str) -> None:
    golden, _, _ = VERSIONS[version]
    n_images, expected = edges(version)[name]
    if not expected.endswith("|"):
        with pytest.raises(BadRecord, match=expected):
            encode(version, name, n_images)
        return
    encoded = encode(version, name, n_images)
    assert learnt(encoded, version) == expected
    assert int((encoded.ids == IMAGE_ID).sum()) == n_images
    result = golden["results"][version][name]
    if name in RIGHT_TOKENS and "max_length" not in version:
        assert encoded.ids.tolist() == result["input_ids"]
        assert result["n_target"] == (8 if name == "image_in_two_turns" and version != "v1_legacy_False" else 0)


@pytest.mark.parametrize("version", ["qwen2", "llama3", "v1_legacy_True", "plain_qwen2_tokenizer", "plain_legacy_True"])
def test_a_second_image_is_never_taken_for_another(version: str) -> None:
    with pytest.raises(BadRecord, match="2 <image> markers for 1 image"):
        encode(version, "two_images_one_turn", 1)


@pytest.mark.parametrize("name", [name for version, name in REGULAR if version == "v1_legacy_True"])
def test_another_vocabulary_of_the_format(name: str) -> None:
    """The same prompt and the same targets, in the pieces of another SentencePiece model."""
    tokenizer = mistral_tokenizer()
    if tokenizer is None:
        pytest.skip("needs pip install --no-deps mistral-common")
    turns, own = conversation(V1, name)
    encoded = encode_chat(turns, tokenizer, "v1", own, "__without_preprocess_multimodal" not in name, special_text=True)
    assert written(encoded.ids, tokenizer) == V1["results"]["v1_legacy_True"][name]["prompt"]
    assert learnt(encoded, "v1_legacy_True", tokenizer) == learnt(encode("v1_legacy_True", name), "v1_legacy_True")
