"""The block of a prompt, and the form of what experts found."""

from typing import Any

import pytest

from eve_jax.curate.experts.block import HEADINGS, BlockLimits, block
from eve_jax.curate.experts.form import read_findings, relative_box, write_findings
from eve_jax.errors import FieldError, UserError

CUP = {"name": "cup", "score": 0.46, "box": [0.2, 0.3, 0.6, 0.8]}
SPOON = {"name": "spoon", "score": 0.41, "box": [0.6123, 0.7, 0.65449, 0.9121]}
FOUND: dict[str, list[dict[str, Any]]] = {
    "tags": [{"name": "espresso", "score": 0.94}, {"name": "cup", "score": 0.31}],
    "boxes": [CUP, SPOON],
    "ocr": [{"text": "EXIT  ONLY", "score": 0.99, "box": [0.1, 0.0, 0.3, 0.1]}],
}


def test_the_block_has_every_part_in_order_and_small_objects_first() -> None:
    assert block(FOUND, "a cafe\nin Lisbon") == (
        "World knowledge: a cafe in Lisbon\n"
        "Objects:\n"
        "spoon: [0.612,0.700,0.654,0.912]\n"
        "cup: [0.200,0.300,0.600,0.800]\n"
        "Text in the image:\n"
        "EXIT ONLY\n"
        "Tags: espresso, cup"
    )


@pytest.mark.parametrize("name", ["alt", "tags", "boxes", "ocr"])
def test_a_part_that_is_empty_or_absent_leaves_no_heading(name: str) -> None:
    alt = None if name == "alt" else "a cafe"
    empty = block({key: [] if key == name else value for key, value in FOUND.items()}, alt)
    absent = block({key: value for key, value in FOUND.items() if key != name}, alt)
    assert empty == absent
    assert [part for part in HEADINGS if HEADINGS[part] in empty] == [part for part in HEADINGS if part != name]


def test_nothing_known_gives_no_block() -> None:
    assert block({}) == block({"ocr": []}, "  \n ") == ""


def test_the_smallest_30_boxes_are_kept_whatever_their_order() -> None:
    boxes = [{"name": f"n{k}", "score": 0.5, "box": [0, 0, (k + 1) / 50, 1]} for k in range(50)]
    expected = [f"n{k}" for k in range(30)]
    for order in (boxes, boxes[::-1]):
        lines = block({"boxes": order}).splitlines()
        assert [line.partition(":")[0] for line in lines[1:]] == expected


def test_limits_cut_lists_and_long_texts() -> None:
    limits = BlockLimits(boxes=1, lines=0, tags=1, alt_characters=10)
    expected = "World knowledge: aaaaaaaaa…\nObjects:\nspoon: [0.612,0.700,0.654,0.912]\nTags: espresso"
    assert block(FOUND, "a" * 100, limits) == expected
    with pytest.raises(FieldError, match=r"config\.experts\.block\.boxes=-1: expected a whole number"):
        BlockLimits(boxes=-1)


def test_findings_come_back_from_their_json() -> None:
    text = write_findings(FOUND)
    assert "\n" not in text
    assert read_findings(text, "a") == read_findings(FOUND, "a") == FOUND
    assert read_findings(None, "a") == read_findings("", "a") == {}
    assert read_findings({"ocr": None, "tags": []}, "a") == {"tags": []}  # a column of a table has null for absent


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "record 7: experts are not valid JSON"),
        ("[]", "record 7: experts=[]: expected an object"),
        ({"tag": []}, "record 7: unknown expert 'tag': expected one of tags, boxes, ocr"),
        ({"tags": {}}, "record 7: tags={}: expected a list"),
        ({"tags": ["cat"]}, "record 7: tags[0]='cat': expected an object with name, score"),
        ({"tags": [{"name": "cat"}]}, "record 7: tags[0]: score is missing"),
        ({"tags": [{"name": "", "score": 1}]}, "record 7: tags[0].name='': expected a text"),
        ({"tags": [{"name": "cat", "score": float("nan")}]}, "record 7: tags[0].score=nan: expected a number"),
        ({"boxes": [CUP, CUP | {"score": 1.5}]}, "record 7: boxes[1].score=1.5: expected a number from 0 to 1"),
        ({"boxes": [CUP | {"box": [0, 0, 1]}]}, "record 7: boxes[0].box=[0, 0, 1]: expected [x1, y1, x2, y2]"),
        ({"boxes": [CUP | {"box": [0, 0, 300, 20]}]}, "shares of the image"),
        ({"boxes": [CUP | {"box": [0.5, 0, 0.2, 1]}]}, "shares of the image"),
        ({"boxes": [CUP | {"box": [0, 0, 10**400, 1]}]}, "shares of the image"),
        ({"boxes": [CUP | {"box": [0, 0, "1", True]}]}, "shares of the image"),
        ('{"tags": [{"name": "cat", "score": 1e999}]}', "tags[0].score=inf: expected a number from 0 to 1"),
    ],
)
def test_other_forms_are_one_line_that_names_the_place(value: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_findings(value, "record 7")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_boxes_in_pixels_become_shares_cut_at_the_edges() -> None:
    assert relative_box([-5, 10, 50, 300], 100, 200) == [0.0, 0.05, 0.5, 1.0]
