"""Places of images that are not written `<image>`: which are taken for one, and when."""

import json
from pathlib import Path
from typing import Any

import pytest

from eve_jax.data.record import BadRecord, Record
from eve_jax.data.sources.other_markers import OTHER_MARKER
from eve_jax.data.sources.records import open_records

MARKERS = [
    "<Image>",
    "<IMAGE>",
    "<image >",
    "<image/>",
    "<image_1>",
    "<image1>",
    "<image 1>",
    "<|image_1|>",
    "<|image|>",
]
MARKERS += ["<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>", "<img>", "<img />", "<img>a.png</img>"]
MARKERS += ["[IMG]", "[IMAGE_1]", "<ImageHere>", "<image_placeholder>", "<image_soft_token>", "<start_of_image>"]
MARKERS += ["<im_patch>", "<img><IMG_CONTEXT></img>", "<img><IMG_CONTEXT><IMG_CONTEXT></img>"]


def read(folder: Path, *texts: str, **fields: Any) -> tuple[Record, tuple[str, ...]]:
    talk = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]
    (folder / "r.jsonl").write_text(json.dumps({"conversations": talk, **fields}))
    record, found = open_records(str(folder / "r.jsonl")).read(0)
    return record, found.doubts


@pytest.mark.parametrize("marker", MARKERS)
def test_one_for_each_image_is_its_place(marker: str, tmp_path: Path) -> None:
    record, doubts = read(tmp_path, f"Left {marker}right?", f"Not {marker}.", image="a.png")
    assert [turn.text for turn in record.turns] == ["Left <image>right?", f"Not {marker}."]
    assert record.images == ("a.png",)
    assert doubts == (f"{marker} in an answer is text",)


@pytest.mark.parametrize("marker", MARKERS)
def test_it_is_text_where_the_images_have_their_places(marker: str, tmp_path: Path) -> None:
    text = f"<image>What does {marker} do?"
    assert read(tmp_path, text, "Nothing.", image="a.png")[0].turns[0].text == text
    content = [{"type": "image"}, {"type": "text", "text": f"What does {marker} do?"}]
    assert read(tmp_path, content, "Nothing.", image="a.png")[0].turns[0].text == f"<image>\nWhat does {marker} do?"  # type: ignore[arg-type]


@pytest.mark.parametrize("marker", MARKERS)
def test_without_images_it_is_text_and_counted(marker: str, tmp_path: Path) -> None:
    record, doubts = read(tmp_path, f"What is {marker}?", "A tag.")
    assert record.turns[0].text == f"What is {marker}?"
    assert doubts == (f"no image, but {marker}",)
    assert read(tmp_path, "What?", f"{marker} is a tag.")[1] == doubts


@pytest.mark.parametrize(
    ("texts", "images"),
    [
        (("<image_1> or <image_2>?", "That.", "<image_3>?", "No."), ("a.png", "b.png", "c.png")),
        (("<image_3> or <image_1>?", "That.", "<image_2>?", "No."), ("c.png", "a.png", "b.png")),
        (("[IMG0][IMG2][IMG1]?", "That."), ("a.png", "c.png", "b.png")),
        (("<img>x/b.png</img><img>a.png</img><img>c.png</img>", "That."), ("b.png", "a.png", "c.png")),
        (("<Image><image/>[IMG]?", "That."), ("a.png", "b.png", "c.png")),
    ],
)
def test_which_image_stands_where(texts: tuple[str, ...], images: tuple[str, ...], tmp_path: Path) -> None:
    record, _ = read(tmp_path, *texts, images=["a.png", "b.png", "c.png"])
    assert record.images == images
    assert sum(turn.text.count("<image>") for turn in record.turns) == 3
    assert not any(OTHER_MARKER.search(turn.text) for turn in record.turns)


def test_a_single_image_without_a_name(tmp_path: Path) -> None:
    record, _ = read(tmp_path, "<img>a.png</img> What?", "A dot.", image="data:image/png;base64,iVBORw0KGgo=")
    assert record.turns[0].text == "<image> What?"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<image_1> What?", r"1 marker '<image_1>' or the like for 2 images; write <image> where an image belongs"),
        ("<|image_pad|><|image_pad|><|image_pad|>", r"3 markers '<\|image_pad\|>' or the like for 2 images"),
        ("<image_1><image_1>", "the markers of its 2 images are <image_1>, <image_1>; write <image>"),
        ("<image_2><image_3>", "the markers of its 2 images are"),
        ("<image_1><Image>", "the markers of its 2 images are"),
        ("<img>a.png</img><img>z.png</img>", "the markers of its 2 images are"),
        ("<img>a.png</img><image_1>", "the markers of its 2 images are"),
    ],
)
def test_others_are_refused(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=reason):
        read(tmp_path, text, "No.", images=["a.png", "b.png"])


TEXTS = ["<imagery>", "[images]", "<image", "<img alt='a.png'>", "a[IMG", "<images>", "{ image }", "[a](a.png)"]
TEXTS += [
    f"\\{marker}" for marker in ("<image_1>", "<img>", "[image]", "[IMG]", "{image}", "![](a.png)", "<img src='a'>")
]


def test_text_that_is_none(tmp_path: Path) -> None:
    for text in TEXTS:
        record, doubts = read(tmp_path, f"What is {text}?", "A tag.", image="a.png")
        assert record.turns[0].text == f"What is {text}?"
        assert read(tmp_path, text, "A tag.")[1] == doubts == ()
    record, _ = read(tmp_path, "\\<image> and <Image>?", "A tag.", image="a.png")
    assert record.turns[0].text == "\\<image> and <image>?"
    assert read(tmp_path, "What?", "<image_1>", image="a.png")[0].turns[1].text == "<image_1>"


LIKELY = ["[image]", "[Image]", "[image 1]", "[Image #1]", "[img]", "{image}", "{{image}}", "{image_1}", "![](a.png)"]
LIKELY += ["![a dog](x/a.png)", '![A dog](<a.png> "A dog")', "![](https://e.org/a.png)", "[img]a.png[/img]"]
LIKELY += ["<Picture 1>", "<image:0>", "<|media_pad|>", "<IMG_CONTEXT>", "<vision_start><vision_end>", "[[image]]"]
LIKELY += ["&lt;image&gt;", "![[a.png]]", "![[x/a.png|300]]", "<|image_start|><|image_end|>"]
LIKELY += ["<img src='a.png'>", '<img alt="A dog" src="x/a.png" />']


@pytest.mark.parametrize("marker", LIKELY)
def test_what_is_likely_a_place_is_one_where_it_fits(marker: str, tmp_path: Path) -> None:
    record, doubts = read(tmp_path, f"Left {marker}right?", "Right.", image="a.png")
    assert (record.turns[0].text, record.images, doubts) == ("Left <image>right?", ("a.png",), ())
    text = f"<image>What does {marker} do?"
    record, doubts = read(tmp_path, text, "Nothing.", image="a.png")
    assert (record.turns[0].text, doubts) == (text, ())


@pytest.mark.parametrize("marker", LIKELY)
def test_what_is_likely_a_place_is_counted_without_images(marker: str, tmp_path: Path) -> None:
    record, doubts = read(tmp_path, f"Left {marker}right?", "Right.")
    shown = {"!": "![](...)", "<img ": "<img src=...>", "[img]a": "[img]...[/img]"}
    name = next((kind for start, kind in shown.items() if marker.startswith(start)), marker)
    assert record.turns[0].text == f"Left {marker}right?"
    assert doubts == (f"no image, but {name}",)
    assert read(tmp_path, "What?", f"Write {marker}.")[1] == ()


@pytest.mark.parametrize(
    ("text", "images", "doubts"),
    [
        ("[image] or [image]?", ["a.png"], ["[image]"]),
        ("{image}?", ["a.png", "b.png"], ["{image}"]),
        ("[image 1] [image 3]", ["a.png", "b.png"], ["[image 1]", "[image 3]"]),
        ("![](c.png)", ["a.png"], ["![](...)"]),
        ("![x](a.png) ![y](a.png)", ["a.png", "b.png"], ["![](...)"]),
        ("<img src='c.png'>", ["a.png"], ["<img src=...>"]),
        ("<Picture 1> or <Picture 2>?", ["a.png"], ["<Picture 1>", "<Picture 2>"]),
        ("<image:2> and <image:3>", ["a.png", "b.png"], ["<image:2>", "<image:3>"]),
        ("[img]c.png[/img]", ["a.png"], ["[img]...[/img]"]),
        ("<|image|> of [image]", ["a.png"], ["[image]"]),
        ("<image>What?</image>", ["a.png"], ["</image>"]),
    ],
)
def test_what_does_not_fit_is_text_and_counted(text: str, images: list[str], doubts: list[str], tmp_path: Path) -> None:
    record, found = read(tmp_path, text, "A dot.", image=images)
    assert record.turns[0].text == text.replace("<|image|>", "<image>")
    assert record.images == tuple(images)
    assert found == tuple(f"{doubt} in a question is text" for doubt in doubts)


@pytest.mark.parametrize(
    ("text", "expected", "images"),
    [
        ("<image>b.png</image> or <image>x/a.png</image>?", "<image> or <image>?", ("b.png", "a.png")),
        ("<image>./</image><image>./</image>", "<image><image>", ("a.png", "b.png")),
        ("(<image>./</image>)\n(<image>./</image>)\nWhat?", "<image>\n<image>\nWhat?", ("a.png", "b.png")),
        ("<image></image> or <image></image>", "<image> or <image>", ("a.png", "b.png")),
        ("<image>1</image> or <image>0</image>", "<image> or <image>", ("b.png", "a.png")),
        ("<Image>b.png</Image><Image>a.png</Image>", "<image><image>", ("b.png", "a.png")),
        ("{image_2} or {image_1}", "<image> or <image>", ("b.png", "a.png")),
        ("![](b.png) or ![](a.png)", "<image> or <image>", ("b.png", "a.png")),
    ],
)
def test_places_with_names_inside(text: str, expected: str, images: tuple[str, ...], tmp_path: Path) -> None:
    record, doubts = read(tmp_path, text, "That.", images=["a.png", "b.png"])
    assert (record.turns[0].text, record.images, doubts) == (expected, images, ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<image>a.png</image>", "1 marker '<image>a.png</image>' or the like for 2 images"),
        ("<image>a.png</image><image>c.png</image>", "the markers of its 2 images are <image>a.png</image>"),
        ("<image>a.png</image> and <image>", "both <image> and '<image>a.png</image>' in its texts"),
    ],
)
def test_names_inside_that_do_not_fit(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=reason):
        read(tmp_path, text, "No.", images=["a.png", "b.png"])
