"""Records that ask, in fields that are not read, for other targets, images or texts than they become."""

import re
from pathlib import Path
from typing import Any

import pytest

from eve_jax.data.image_file import BadImage
from eve_jax.data.record import BadRecord, Turn, UnreadMedia
from tests.data.sources import test_same_images
from tests.data.sources.test_dialogue import ASKED, IMAGE, MESSAGES, TEXT, record_of
from tests.data.sources.test_other_markers import read
from tests.data.sources.test_same_images import BLUE, RED, images_of, of_json, of_parquet, of_tar

folder = test_same_images.folder

TURN = [{"skip": True}, {"ignore": 1}, {"Excluded": "true"}, {"compute_loss": False}, {"train_on_turn": False}]
TURN += [{"computeLoss": 0}, {"no_loss": True}, {"label": False}, {"weight": True}, {"rejected": True}]


@pytest.mark.parametrize("key", TURN)
def test_a_turn_that_is_left_out_is_refused(key: dict[str, Any], tmp_path: Path) -> None:
    ((name, value),) = key.items()
    about = rf"turn 2 has {name} {re.escape(repr(value))}, but every answer .* remove '{name}'"
    with pytest.raises(BadRecord, match=about):
        record_of(tmp_path, messages=[MESSAGES[0], {**MESSAGES[1], **key}])
    answer = {"role": "assistant", "content": [{"type": "text", "text": "A dot.", **key}]}
    with pytest.raises(BadRecord, match=rf"a part of turn 2 has {name} "):
        record_of(tmp_path, messages=[MESSAGES[0], answer])


@pytest.mark.parametrize(
    "key", [{"skip": False}, {"ignore": ""}, {"compute_loss": True}, {"label": "dog"}, {"label": 0}]
)
def test_a_turn_that_is_not_left_out(key: dict[str, Any], tmp_path: Path) -> None:
    assert record_of(tmp_path, messages=[MESSAGES[0], {**MESSAGES[1], **key}]).turns == ASKED
    assert record_of(tmp_path, messages=[{**MESSAGES[0], "compute_loss": False}, MESSAGES[1]]).turns == ASKED


RECORD = [{"label": False}, {"kto_tag": False}, {"is_rejected": True}, {"skip": [False, True]}, {"compute_loss": False}]
RECORD += [{"weight": float("nan")}, {"weight": [0, float("nan")]}, {"loss_mask": float("nan")}, {"weight": True}]


@pytest.mark.parametrize("key", RECORD)
def test_a_record_that_is_not_to_be_learned_is_refused(key: dict[str, Any], tmp_path: Path) -> None:
    ((name, value),) = key.items()
    with pytest.raises(BadRecord, match=rf"the record has {name} {re.escape(repr(value))}, but every answer"):
        record_of(tmp_path, messages=MESSAGES, **key)


def test_a_turn_without_a_number_for_its_weight_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match="turn 2 has weight nan, but every answer"):
        record_of(tmp_path, messages=[MESSAGES[0], {**MESSAGES[1], "weight": float("nan")}])


@pytest.mark.parametrize("key", [{"label": True}, {"label": 0}, {"label": "cat"}, {"loss": float("nan")}, {"skip": []}])
def test_a_record_with_a_label(key: dict[str, Any], tmp_path: Path) -> None:
    assert record_of(tmp_path, messages=MESSAGES, **key).turns == ASKED


EDITS: list[dict[str, Any]] = [{"crop": [0, 0, 8, 8]}, {"rotate": 90}, {"flip": True}, {"image_crop": {"x": 3}}]
EDITS += [{"rotation": "90"}, {"flip": "horizontal"}, {"cropBox": [[1, 2, 3, 4]]}, {"hflip": 1}, {"resize": [8, 8]}]
NO_EDITS: list[dict[str, Any]] = [
    {"crop": "wheat"},
    {"rotate": 0},
    {"flip": "none"},
    {"crop": [0, None]},
    {"crop_id": 3},
]
NO_EDITS += [{"flip": False}, {"bbox": [0, 0, 8, 8]}, {"zoom": 3}, {"clip": 0.3}, {"mask": "none"}]


@pytest.mark.parametrize("key", EDITS)
def test_a_record_that_asks_for_an_edit_is_refused(key: dict[str, Any], tmp_path: Path) -> None:
    ((name, _),) = key.items()
    with pytest.raises(BadRecord, match=f"the record has {name}, which is not read; apply it to the image file"):
        record_of(tmp_path, image="a.png", caption="A dot.", **key)
    assert record_of(tmp_path, caption="A dot.", **key).images == ()
    with pytest.raises(BadRecord, match=f"turn 1 has {name}, which is not read; apply it to the image file"):
        record_of(tmp_path, image="a.png", messages=[{**MESSAGES[0], **key}, MESSAGES[1]])


@pytest.mark.parametrize("key", NO_EDITS)
def test_a_record_that_asks_for_no_edit(key: dict[str, Any], tmp_path: Path) -> None:
    assert record_of(tmp_path, image="a.png", caption="A dot.", **key).images == ("a.png",)


@pytest.mark.parametrize(
    ("box", "names"),
    [
        ({"x": 1, "y": 2, "w": 3, "h": 4}, "x and y"),
        ({"x": 0, "y": 0, "width": 3, "height": 4}, "x and y"),
        ({"X1": 0, "Y1": 0, "X2": 3, "Y2": 4}, "X1 and Y1"),
        ({"xmin": 0.1, "ymin": 0.1, "xmax": 0.5, "ymax": 0.5}, "xmin and ymin"),
        ({"left": 1, "top": 2, "right": 3, "bottom": 4}, "left and top"),
        ({"x_min": 1, "y_min": 2}, "x_min and y_min"),
    ],
)
def test_an_image_with_the_edges_of_a_part_is_refused(box: dict[str, Any], names: str, tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=f"image has {names} of a part of it, which is not cut out"):
        record_of(tmp_path, image={"path": "a.png", **box}, caption="A dot.")
    with pytest.raises(BadRecord, match=f"part 1 of turn 1 has {names} of a part of it"):
        content = [{"type": "image", "image": "a.png", **box}, TEXT]
        record_of(tmp_path, messages=[{"role": "user", "content": content}, MESSAGES[1]])


@pytest.mark.parametrize("box", [{"x": 0, "y": 0}, {"width": 640, "height": 480}, {"left": 3}, {"x": None, "y": None}])
def test_an_image_without_the_edges_of_a_part(box: dict[str, Any], tmp_path: Path) -> None:
    assert record_of(tmp_path, image={"path": "a.png", **box}, caption="A dot.").images == ("a.png",)


def test_a_factor_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match="image has zoom, which is not read"):
        record_of(tmp_path, image={"path": "a.png", "zoom": True}, caption="A dot.")


@pytest.mark.parametrize("value", [True, "1", 0.5, -1, {"of": 1}])
@pytest.mark.parametrize("key", ["index", "image_index"])
def test_an_index_that_is_no_number_is_refused(key: str, value: Any, tmp_path: Path) -> None:
    content = [{**IMAGE, key: value}, TEXT, {**IMAGE, key: 0}]
    with pytest.raises(BadRecord, match=rf"{key} of part 1 of turn 1 is {re.escape(repr(value))}, not the number of"):
        record_of(tmp_path, messages=[{"role": "user", "content": content}, MESSAGES[1]], images=["a.png", "b.png"])


def test_which_image_of_the_record_a_part_is(tmp_path: Path) -> None:
    content = [{**IMAGE, "image_index": 1.0}, TEXT, {**IMAGE, "image_index": 0}]
    messages = [{"role": "user", "content": content}, MESSAGES[1]]
    assert record_of(tmp_path, messages=messages, images=["a.png", "b.png"]).images == ("b.png", "a.png")
    content = [{**IMAGE, "image": "b.png", "index": 1}, {**IMAGE, "image": "a.png", "index": 0}]
    with pytest.raises(BadRecord, match="has an image and the index 1 of another; keep one"):
        record_of(tmp_path, messages=[{"role": "user", "content": content}, MESSAGES[1]])
    content = [{**IMAGE, "image": "b.png", "index": 0}, {**TEXT, "index": 1}]
    assert record_of(tmp_path, messages=[{"role": "user", "content": content}, MESSAGES[1]]).images == ("b.png",)


@pytest.mark.parametrize("field", ["path", "file", "source_image", "meta"])
@pytest.mark.parametrize(("path", "same"), [("red.png", True), ("sub/red.png", True), ("blue.png", False)])
def test_a_path_next_to_an_image(field: str, path: str, same: bool, folder: Path) -> None:
    value: Any = {"at": path} if field == "meta" else path
    for image in ("red.png", {"bytes": list(RED)}, {"bytes": list(RED), "path": "red.png"}):
        records = of_json(folder, image=image, **{field: value})
        if same:
            assert images_of(records) == [RED]
            continue
        with pytest.raises(UnreadMedia, match=f"jsonl:1.*the field '{field}' looks like an image, but is not read"):
            records[0]


def test_a_path_of_another_folder_next_to_an_image(folder: Path) -> None:
    (folder / "images" / "other").mkdir()
    (folder / "images" / "other" / "red.png").write_bytes(BLUE)
    with pytest.raises(UnreadMedia, match="the field 'path' looks like an image"):
        of_json(folder, image="red.png", path="other/red.png")[0]
    assert images_of(of_json(folder, image="red.png", path="gone/red.png")) == [RED]
    with pytest.raises(UnreadMedia, match="the field 'path' looks like an image"):
        of_parquet(folder, image={"bytes": RED, "path": "x.png"}, path="y.png")[0]
    assert images_of(of_tar(folder, {"a.png": RED}, {"path": "coco/0017.png"})) == [RED]


def test_bytes_and_the_file_at_their_path(folder: Path) -> None:
    for path in ("red.png", "sub/red.png", "gone.png"):
        assert images_of(of_parquet(folder, image={"bytes": RED, "path": path})) == [RED]
    about = "the bytes of image and the file at their path are different images; keep one of them"
    with pytest.raises(BadRecord, match=rf"jsonl:1\): {about}"):
        of_json(folder, image={"bytes": list(RED), "path": "blue.png"})[0]
    with pytest.raises(BadImage, match=about):
        images_of(of_parquet(folder, image={"bytes": RED, "path": "blue.png"}))


ANOTHER: list[tuple[dict[str, Any], str]] = [
    ({"query": "Why?", "response": "A dot."}, "query"),
    ({"query": "What?", "response": "A cat."}, "response"),
    ({"response": "A cat."}, "response"),
    ({"query": 3, "response": "A dot."}, "query"),
    ({"query": "What?", "response": "A dot.", "history": [["Hi", "Hello."]]}, "history"),
]


@pytest.mark.parametrize(("fields", "name"), ANOTHER)
def test_a_query_next_to_another_dialogue_is_refused(fields: dict[str, Any], name: str, tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=f"messages and {name} hold different texts; keep one of them"):
        record_of(tmp_path, messages=MESSAGES, **fields)
    same = {"query": "<image>What?", "response": "A dot. ", "history": []}
    assert record_of(tmp_path, conversations=MESSAGES, **same).turns == ASKED


@pytest.mark.parametrize(
    ("question", "answer", "fields", "about"),
    [
        (
            "<ref-object>?",
            "<bbox>",
            {"objects": {"bbox": [[0, 0, 8, 8]]}},
            "human turn has <ref-object>, which",
        ),
        ("Where is <ref-object>?", "Here.", {"objects": {"ref": ["dot"]}}, "human turn has <ref-object>"),
        (
            "Where?",
            "At <bbox>.",
            {"bboxes": [[0, 0, 8, 8]]},
            "gpt turn has <bbox>, which stands for an entry of bboxes",
        ),
    ],
)
def test_texts_that_are_to_be_filled_in_are_refused(
    question: str, answer: str, fields: dict[str, Any], about: str, tmp_path: Path
) -> None:
    with pytest.raises(BadRecord, match=about):
        read(tmp_path, question, answer, image="a.png", **fields)
    assert read(tmp_path, "What is <bbox>?", "A tag.")[0].turns[0] == Turn("human", "What is <bbox>?")


MEDIA = ["<video>", "<audio>", "<|video_pad|>", "<|audio_1|>", "<Video>", "[VIDEO]", "<speech>"]
MEDIA += ["<|vision_start|><|video_pad|><|vision_end|>"]


@pytest.mark.parametrize("tag", MEDIA)
def test_the_place_of_a_video_or_audio(tag: str, tmp_path: Path) -> None:
    for text in (f"{tag}\nWhat is it?", f"What is it?\n {tag}"):
        for fields in ({}, {"image": "a.png"}):
            with pytest.raises(
                BadRecord, match=re.escape(f"a human turn has {tag} on a line of its own, which is not")
            ):
                read(tmp_path, text, "A dot.", **fields)
    record, doubts = read(tmp_path, f"What is {tag}?", f"{tag}\nA tag.")
    assert (record.turns[0].text, doubts) == (f"What is {tag}?", (f"{tag} in a question is text",))


def test_texts_about_videos(tmp_path: Path) -> None:
    for text in ("What is \\<video>?", "<video>\n<source src='a'>\n</video>", "<videos>", "[video]"):
        assert read(tmp_path, text, "A tag.")[0].turns[0].text == text
