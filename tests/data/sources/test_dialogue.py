"""Conversations in the forms of LLaVA, ShareGPT, OpenAI, transformers and ms-swift, and their image parts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from eve_jax.data.record import BadRecord, Record, Turn
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError

ASKED = (Turn("human", "What?"), Turn("gpt", "A dot."))
MESSAGES = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A dot."}]


def record_of(folder: Path, **fields: Any) -> Record:
    (folder / "r.jsonl").write_text(json.dumps(fields))
    return open_records(str(folder / "r.jsonl"))[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": MESSAGES},
        {"conversations": MESSAGES},
        {"messages": [{"from": "Human", "value": "What?"}, {"from": "chatgpt", "value": "A dot."}]},
        {"conversations": None, "messages": MESSAGES},
        {"messages": [{"from": turn["role"], "value": turn["content"], **turn} for turn in MESSAGES]},
        {"messages": [{"from": "", "value": None, **turn} for turn in MESSAGES]},
        {
            "conversations": [{"from": "user", "value": "What?"}, {"from": "bot", "value": "A dot."}],
            "messages": MESSAGES,
        },
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}]}, MESSAGES[1]]},
        {"messages": [{"role": "user", "content": ["Wh", {"text": "at?"}]}, MESSAGES[1]]},
        {"query": "What?", "response": "A dot."},
        {"query": "What?", "response": "A dot.", "history": []},
    ],
)
def test_forms(fields: dict[str, Any], tmp_path: Path) -> None:
    assert record_of(tmp_path, **fields).turns == ASKED


def test_history_and_system(tmp_path: Path) -> None:
    turns = record_of(tmp_path, query="What?", response="A dot.", history=[["Hi", "Hello."]], system="Be brief.").turns
    assert turns == (Turn("system", "Be brief."), Turn("human", "Hi"), Turn("gpt", "Hello."), *ASKED)
    assert record_of(tmp_path, system="Be brief.", conversations=MESSAGES).turns == (turns[0], *ASKED)
    own = {"role": "developer", "content": "Be long."}
    assert record_of(tmp_path, system="Be brief.", messages=[own, *MESSAGES]).turns == (
        Turn("system", "Be long."),
        *ASKED,
    )


IMAGE = {"type": "image"}
TEXT = {"type": "text", "text": "What?"}


@pytest.mark.parametrize(
    ("content", "fields", "text", "images"),
    [
        ([IMAGE, TEXT], {"image": "a.png"}, "<image>\nWhat?", ("a.png",)),
        ([TEXT, IMAGE], {"image": "a.png"}, "What?\n<image>", ("a.png",)),
        ([IMAGE, IMAGE, TEXT], {"images": ["a.png", "b.png"]}, "<image>\n<image>\nWhat?", ("a.png", "b.png")),
        (
            [{**IMAGE, "index": 1, "text": None}, TEXT, {**IMAGE, "index": 0}],
            {"images": ["a.png", "b.png"]},
            "<image>\nWhat?\n<image>",
            ("b.png", "a.png"),
        ),
        ([{**IMAGE, "image": "a.png"}, TEXT], {}, "<image>\nWhat?", ("a.png",)),
        ([{"image": "a.png"}, {"text": "What?"}], {"images": ["a.png"]}, "<image>\nWhat?", ("a.png",)),
        ([{"type": "image_url", "image_url": {"url": "a.png"}}, TEXT], {}, "<image>\nWhat?", ("a.png",)),
        ([{"type": "input_image", "image_url": "a.png"}, TEXT], {}, "<image>\nWhat?", ("a.png",)),
        (  # where parts place the images, the tag in a text is text
            [IMAGE, {"type": "text", "text": "What is <image>?"}],
            {"image": "a.png"},
            "<image>\nWhat is \\<image>?",
            ("a.png",),
        ),
        (
            [IMAGE, {"type": "text", "text": r"Is it <image>, \<image> or \\<image>?"}],
            {"image": "a.png"},
            "<image>\n" + r"Is it \<image>, \<image> or \\\<image>?",
            ("a.png",),
        ),
        ([{"type": "text", "text": "<image>\nWhat?"}], {"image": "a.png"}, "<image>\nWhat?", ("a.png",)),
        *(  # a line break that is there is the one next to the image
            ([{"text": "See:\n"}, IMAGE, {"text": text}], {"image": "a.png"}, f"See:\n<image>{text}", ("a.png",))
            for text in ("\nWhat?", "\n\nWhat?")
        ),
    ],
)
def test_image_parts(content: list, fields: dict, text: str, images: tuple, tmp_path: Path) -> None:
    record = record_of(tmp_path, messages=[{"role": "user", "content": content}, MESSAGES[1]], **fields)
    assert record.turns[0] == Turn("human", text)
    assert record.images == images


@pytest.mark.parametrize(
    ("content", "fields", "reason"),
    [
        ([IMAGE, TEXT], {}, "1 image part in its texts for 0 images"),
        ([IMAGE, TEXT], {"images": ["a.png", "b.png"]}, "1 image part in its texts for 2 images"),
        ([{**IMAGE, "image": "a.png"}], {"image": "b.png"}, "image and the image parts of its texts are different"),
        ([{**IMAGE, "image": "a.png"}, IMAGE], {}, "some image parts of its texts hold an image"),
        ([{**IMAGE, "index": 3}], {"image": "a.png"}, r"indices \[3\]"),
        ([{"type": "video", "video": "a.mp4"}], {}, "part 1 of turn 1 is of type 'video', not text or image"),
        ([{"type": "image_url", "image_url": {"url": "https://e.org/a"}}], {}, "an image is a URL"),
        ([{**IMAGE, "source": {"data": "AAAA"}}], {}, "an image without any of image, image_url, .* but with source"),
        *(
            ([{**TEXT, **image}], {}, "part 1 of turn 1 is a text with an image; make the image a part of its own")
            for image in ({"image": "a.png"}, {"image_url": {"url": "a.png"}}, {"url": "a.png"}, {"path": "a.png"})
        ),
        ([{"type": "text", "content": "Why?"}], {}, "part 1 of turn 1 has its text under content; name it text"),
        (
            [{"type": "text", "text": "", "value": "Why?"}],
            {},
            "part 1 of turn 1 has its text under value; name it text",
        ),
        (
            [{**IMAGE, "image": "a.png", "image_url": {"url": "b.png"}}, TEXT],
            {},
            "part 1 of turn 1 names different images under image and image_url; keep one of them",
        ),
        ([{**IMAGE, "text": "caption it"}], {}, "part 1 of turn 1 is an image with a text; make the text a part"),
        (
            [{**IMAGE, "image": "a.png", "bbox": [0, 0, 9, 9]}],
            {},
            "part 1 of turn 1 has bbox, which is not read; apply it to the image",
        ),
        ([3], {}, "part 1 of turn 1 is neither a text nor an object"),
        ([{"type": "text"}, {"type": "text", "text": 3}], {}, "part 2 of turn 1 is not a text but int"),
    ],
)
def test_parts_that_are_refused(content: list, fields: dict, reason: str, tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=reason):
        record_of(tmp_path, messages=[{"role": "user", "content": content}, MESSAGES[1]], **fields)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"messages": MESSAGES, "conversations": MESSAGES[:1]}, "conversations and messages hold different texts"),
        (
            {"messages": [{"role": "user", "from": "gpt", "value": "x"}]},
            "role and from of turn 1 differ; keep one of them",
        ),
        ({"messages": [{"role": "user", "content": "x", "value": "y"}]}, "content and value of turn 1 differ"),
        ({"caption": "A", "text": "B"}, "caption and text hold different texts; keep one of them"),
        ({"question": "What?"}, "no conversations, messages or caption, but the fields 'question'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "turn 1 is from 'tool', calls of tools and their"),
        (
            {"messages": [{"role": "assistant", "content": [IMAGE]}], "image": "a.png"},
            "turn 1 is an answer with an image",
        ),
        ({"query": "What?"}, "response 1 is not a text but NoneType"),
        ({"query": "What?", "response": "A", "history": ["What?"]}, "history is not a list"),
        ({"messages": "What?"}, "messages is not a list"),
        ({"messages": MESSAGES, "system": ["Be brief."]}, "system is not a text but list"),
        ({"messages": MESSAGES, "system": {"text": "Be brief."}}, "system is not a text but dict"),
        ({"caption": "A", "system": 3}, "system is not a text but int"),
        ({"query": "What?", "response": "A", "system": False}, "system is not a text but bool"),
        (
            {"data": [{"messages": MESSAGES}]},
            "but the fields 'data'; 'data' holds a list of records: write an array of",
        ),
        ({"r1": {"caption": "A"}, "r2": {"caption": "B"}}, "'r1' holds a record"),
    ],
)
def test_texts_that_are_refused(fields: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        record_of(tmp_path, **fields)


LEARNED = [{}, {"weight": 1}, {"weight": 1.0}, {"loss": True}, {"loss": None}, {"mask": False}, {"train": 1}]
NOT_LEARNED = [
    {"weight": 0},
    {"weight": 0.5},
    {"Weight": "0"},
    {"loss_weight": 0.0},
    {"loss": False},
    {"loss_mask": 0},
    {"train": False},
    {"mask": True},
    {"mask": [0, 1]},
    {"loss_scale": 0},
    {"training": False},
    {"train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]},
]


@pytest.mark.parametrize("key", LEARNED)
def test_turns_that_are_learned_as_they_say(key: dict[str, Any], tmp_path: Path) -> None:
    human = {"role": "user", "content": "What?", "weight": 0, "loss": False, "mask": True}
    assert record_of(tmp_path, messages=[human, {**MESSAGES[1], **key}]).turns == ASKED


@pytest.mark.parametrize("key", NOT_LEARNED)
def test_an_answer_that_is_not_to_be_learned_is_refused(key: dict[str, Any], tmp_path: Path) -> None:
    more = [*MESSAGES, MESSAGES[0], {**MESSAGES[1], **key}]
    ((name, value),) = key.items()
    with pytest.raises(BadRecord, match=rf"turn 4 has {name} {re.escape(repr(value))}, but every answer .* remove"):
        record_of(tmp_path, conversations=more)


def test_a_question_to_be_learned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match="turn 1 has loss True, but every answer of a record is learned"):
        record_of(tmp_path, messages=[{**MESSAGES[0], "loss": True}, MESSAGES[1]])


PLAIN = [
    *({"weight": 1}, {"weight": [1.0, 1]}, {"sample_weight": 1.0}, {"loss_mask": [0, 1]}, {"loss_mask": [False, True]}),
    *(
        {"train": True},
        {"train": None},
        {"Train": 1},
        {"mask_prompt": True},
        {"train_on_inputs": False},
        {"mask": [1, 0]},
    ),
    *(
        {"loss": 0.37},
        {"mask": "none"},
        {"mask": [[1, 2], [3, 4]]},
        {"mask_history": True},
        {"weight": [0, 1]},
        {"skip": False},
        {"ignore": "a"},
    ),
]
OTHERWISE = [
    *({"train": False}, {"train": "no"}, {"Train": 0}, {"trainable": False}, {"loss": False}, {"loss": 0}),
    *({"weight": 0}, {"weight": 0.5}, {"weight": 2}, {"loss_weight": "1"}, {"sampleWeight": 0.1}, {"weights": [1, 0]}),
    *({"loss_mask": 0}, {"loss_mask": [1, 1]}, {"loss_mask": [0, 0]}, {"loss_mask": [0, 0, 1, 1, 1]}, {"weight": [1]}),
    *({"mask": True}, {"masked": True}, {"mask": [0, 1]}, {"train_on_inputs": True}, {"mask_prompt": False}),
    *({"skip": True}, {"exclude": 1}, {"is_trained": False}),
]


@pytest.mark.parametrize("key", PLAIN)
def test_a_record_that_asks_for_what_is_done(key: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(json.dumps({"messages": MESSAGES, **key}))
    record, fields = open_records(str(tmp_path / "r.jsonl")).read(0)
    assert record.turns == ASKED
    assert fields.unused == tuple(name for name, value in key.items() if value is not None)


@pytest.mark.parametrize("key", OTHERWISE)
def test_a_record_that_asks_for_other_targets_is_refused(key: dict[str, Any], tmp_path: Path) -> None:
    ((name, value),) = key.items()
    about = rf"r\.jsonl:1\): the record has {name} {re.escape(repr(value))}, but every answer .* remove '{name}'"
    with pytest.raises(BadRecord, match=about):
        record_of(tmp_path, messages=MESSAGES, **key)


def test_a_record_that_learns_its_last_answer_alone(tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match="the record has mask_history True, but every answer"):
        record_of(tmp_path, messages=[*MESSAGES, *MESSAGES], mask_history=True)


@pytest.mark.parametrize("more", [{"loss": False}, {"weight": 0.5}, {"train": 0}])
def test_a_part_that_is_not_to_be_learned_is_refused(more: dict[str, Any], tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": [{"type": "text", "text": "A dot.", **more}]}
    with pytest.raises(BadRecord, match=f"a part of turn 2 has {next(iter(more))} "):
        record_of(tmp_path, messages=[MESSAGES[0], answer])
