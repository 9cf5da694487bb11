"""Templates, prompts and label masks: against the golden set F (Qwen2's real vocabulary), and beyond it."""

import json
from pathlib import Path

import numpy as np
import pytest

from eve_jax.data.chat import IGNORE, IMAGE_ID, MARKER, Encoded, encode_chat, end_id, prompt_ids
from eve_jax.data.records import BadRecord, Record, Turn, parse_record
from eve_jax.data.tokenizer import Tokenizer
from eve_jax.errors import UserError
from tests.qwen_vocab import qwen2_tokenizer

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "F_templates_v2.json").read_text())
VERSIONS = {"qwen2": "qwen2", "plain": "plain_qwen2_tokenizer"}
# Where upstream fails, or takes an image for another: see the tests below for what is done instead.
EDGE = {
    "qwen2": {
        "system_role",
        "answer_contains_role_marker",
        "empty_answer",
        "two_images_one_turn",
        "image_in_two_turns",
        "image_key_but_no_token",
        "token_but_no_image_key",
        "ends_with_human",
        "qwen_pad_token_in_text",
    },
    "plain": {
        "multi_turn",
        "system_role",
        "text_only",
        "gpt_first",
        "empty_answer",
        "two_images_one_turn",
        "image_in_two_turns",
        "token_but_no_image_key",
        "ends_with_human",
    },
}
REGULAR = [
    (template, name)
    for template, version in VERSIONS.items()
    for name in GOLDEN["results"][version]
    if name.partition("__")[0] not in EDGE[template]
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return qwen2_tokenizer()


def golden_record(name: str) -> Record:
    return parse_record(GOLDEN["conversations"][name.partition("__")[0]], "F", "", name)


def encode(name: str, template: str, tokenizer: Tokenizer, n_images: int | None = None) -> Encoded:
    record = golden_record(name)
    image_first = "__without_preprocess_multimodal" not in name
    n_images = len(record.images) if n_images is None else n_images
    return encode_chat(record.turns, tokenizer, template, n_images, image_first)


def human(text: str) -> Turn:
    return Turn("human", text)


def gpt(text: str) -> Turn:
    return Turn("gpt", text)


def learnt(encoded: Encoded, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(encoded.labels[encoded.labels != IGNORE], skip_special=False)


def written(ids: np.ndarray, tokenizer: Tokenizer) -> str:
    parts = np.split(ids, np.flatnonzero(ids == IMAGE_ID))
    return MARKER.join(tokenizer.decode(part[part != IMAGE_ID], skip_special=False) for part in parts)


def test_golden_cases_are_all_looked_at() -> None:
    assert len(REGULAR) == 22


@pytest.mark.parametrize(("template", "name"), REGULAR)
def test_regular_conversation_matches_golden(template: str, name: str, tokenizer: Tokenizer) -> None:
    expected = GOLDEN["results"][VERSIONS[template]][name]
    encoded = encode(name, template, tokenizer)
    assert encoded.ids.tolist() == expected["input_ids"]
    assert encoded.labels.tolist() == expected["labels"]
    assert encoded.ids.dtype == encoded.labels.dtype == np.int32
    assert int((encoded.labels != IGNORE).sum()) == expected["n_target"]
    if name != "unicode":  # the tokenizer normalises its input
        assert written(encoded.ids, tokenizer) == expected["prompt"]


# Upstream gets the tokens right here, but blanks every label, or some images.
@pytest.mark.parametrize(
    ("name", "template", "n_images", "expected"),
    [
        ("answer_contains_role_marker", "qwen2", 1, " It says USER: hello ASSISTANT: hi there<|im_end|>"),
        ("qwen_pad_token_in_text", "qwen2", 1, " The<|endoftext|>bus.<|im_end|>"),
        ("ends_with_human", "qwen2", 1, " The bus.<|im_end|>"),
        ("image_in_two_turns", "qwen2", 2, " The bus.<|im_end|> The car.<|im_end|>"),
    ],
)
def test_labels_that_upstream_loses(
    name: str, template: str, n_images: int, expected: str, tokenizer: Tokenizer
) -> None:
    encoded = encode(name, template, tokenizer, n_images)
    assert encoded.ids.tolist() == GOLDEN["results"]["qwen2"][name]["input_ids"]
    assert learnt(encoded, tokenizer) == expected
    assert int((encoded.ids == IMAGE_ID).sum()) == n_images


def test_system_turn_replaces_the_sentence(tokenizer: Tokenizer) -> None:
    text = written(encode("system_role", "qwen2", tokenizer).ids, tokenizer)
    assert text == "You are a helpful assistant. USER: <image>\nWhat is it? ASSISTANT: The bus.<|im_end|>"


def test_two_images_of_a_turn_both_stay(tokenizer: Tokenizer) -> None:
    turns = [human("Compare <image> with <image>."), gpt("Alike.")]
    in_place = encode_chat(turns, tokenizer, "qwen2", 2)
    assert written(in_place.ids, tokenizer).endswith("USER: Compare <image> with <image>. ASSISTANT: Alike.<|im_end|>")
    moved = encode_chat(turns, tokenizer, "qwen2", 2, image_first=True)
    assert written(moved.ids, tokenizer).endswith("USER: <image>\n<image>\nCompare  with . ASSISTANT: Alike.<|im_end|>")
    plain = encode_chat(turns, tokenizer, "plain", 2)
    assert plain.ids[:2].tolist() == [IMAGE_ID, IMAGE_ID]
    assert learnt(plain, tokenizer) == "Alike.\n"


def test_images_without_markers_go_first(tokenizer: Tokenizer) -> None:
    encoded = encode("image_key_but_no_token", "qwen2", tokenizer)
    same = encode("answer_with_outer_spaces", "qwen2", tokenizer)
    assert written(encoded.ids, tokenizer).endswith("USER: <image>\nWhat is it? ASSISTANT: The bus.<|im_end|>")
    assert (encoded.ids[: len(same.ids) - 8] == same.ids[:-8]).all()
    lone = encode_chat([gpt("A bus.")], tokenizer, "plain", 1)
    assert written(lone.ids, tokenizer) == "<image>A bus.\n"


def test_image_inside_an_answer_is_not_a_target(tokenizer: Tokenizer) -> None:
    encoded = encode_chat([gpt("First <image> then <image> last")], tokenizer, "plain", 2)
    assert written(encoded.ids, tokenizer) == "First <image> then <image> last\n"
    assert (encoded.labels[encoded.ids == IMAGE_ID] == IGNORE).all()
    assert (encoded.labels[encoded.ids != IMAGE_ID] == encoded.ids[encoded.ids != IMAGE_ID]).all()


def test_empty_answer_is_read_but_not_learnt(tokenizer: Tokenizer) -> None:
    encoded = encode_chat([human("a?"), gpt(""), human("b?"), gpt("Yes")], tokenizer, "qwen2", 0)
    assert learnt(encoded, tokenizer) == " Yes<|im_end|>"
    assert written(encoded.ids, tokenizer).endswith("USER: a? ASSISTANT:<|im_end|>USER: b? ASSISTANT: Yes<|im_end|>")


@pytest.mark.parametrize(
    ("turns", "template", "n_images", "reason"),
    [
        ([human("<image>\nWhat?"), gpt("A bus.")], "qwen2", 0, "1 <image> markers for 0 images"),
        ([human("<image>\nWhat?"), gpt("A bus.")], "qwen2", 2, "1 <image> markers for 2 images"),
        ([human("<image><image>"), gpt("A bus.")], "plain", 1, "2 <image> markers for 1 images"),
        ([human("What?"), gpt("")], "qwen2", 0, "nothing to learn"),
        ([human("<image>"), gpt(" \n ")], "plain", 1, "nothing to learn"),
        ([human("What?")], "qwen2", 0, "nothing to learn"),
        ([human("What?")], "plain", 0, "one gpt turn"),
        ([gpt("A bus.")], "qwen2", 0, "no human turn"),
        ([human("a"), human("b"), gpt("c")], "qwen2", 0, "alternate"),
        ([human("a"), gpt("b"), Turn("system", "s"), gpt("c")], "qwen2", 0, "alternate"),
        ([human("a"), gpt("b"), human("c"), gpt("d")], "plain", 0, "longer conversation"),
    ],
)
def test_unusable_conversations_say_why(
    turns: list[Turn], template: str, n_images: int, reason: str, tokenizer: Tokenizer
) -> None:
    with pytest.raises(BadRecord, match=reason):
        encode_chat(turns, tokenizer, template, n_images)


@pytest.mark.parametrize("name", ["single_turn", "multi_turn", "text_only", "unicode", "image_in_two_turns"])
def test_prompt_is_the_text_up_to_the_answer(name: str, tokenizer: Tokenizer) -> None:
    record = golden_record(name)
    n_images = sum(turn.text.count(MARKER) for turn in record.turns)
    full = encode_chat(record.turns, tokenizer, "qwen2", n_images)
    prompt = prompt_ids(record.turns, tokenizer, "qwen2", n_images)
    assert prompt.tolist() == full.ids[: len(prompt)].tolist()
    assert written(prompt, tokenizer).endswith(" ASSISTANT:")
    asked = prompt_ids(record.turns[:-1], tokenizer, "qwen2", n_images)
    assert asked.tolist() == prompt.tolist()
    assert (full.labels[: len(prompt)] != IGNORE).any() == (len(record.turns) > 2)
    assert (full.labels[len(prompt) :] != IGNORE).all()


def test_prompt_of_a_caption_is_its_images(tokenizer: Tokenizer) -> None:
    assert prompt_ids([human("<image>\nDescribe it.")], tokenizer, "plain", 1).tolist() == [IMAGE_ID]
    with pytest.raises(UserError, match="empty prompt"):
        prompt_ids([human("Hello")], tokenizer, "plain", 0)


def test_end_of_an_answer(tokenizer: Tokenizer) -> None:
    assert end_id(tokenizer, "qwen2") == tokenizer.token_id("<|im_end|>") == 151645
    assert tokenizer.decode([end_id(tokenizer, "plain")]) == "\n"


def test_unknown_template_names_the_known_ones(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"'qwen3' is not one of plain, qwen2"):
        encode_chat([human("a"), gpt("b")], tokenizer, "qwen3", 0)
