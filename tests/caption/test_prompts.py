"""Prompts are texts with variables; a line without anything to say is left out."""

import pytest

from configs import caption
from eve_jax.caption.prompts import fill, parse_template, variables
from eve_jax.curate.experts.block import BlockLimits
from eve_jax.errors import FieldError

EXPERTS = {
    "tags": [{"name": "espresso", "score": 0.9}],
    "boxes": [
        {"name": "table", "score": 0.9, "box": [0.0, 0.0, 1.0, 1.0]},
        {"name": "cup", "score": 0.5, "box": [0.1, 0.2, 0.3, 0.4]},
    ],
    "ocr": [{"text": "EXIT {alt}", "score": 0.99, "box": [0.1, 0.2, 0.3, 0.4]}],
}


def filled(text: str, alt: str = "", experts: dict | None = None) -> str:
    return fill(parse_template(text, "prompt.text"), variables(experts or {}, alt, BlockLimits()))


def test_variables_have_their_values() -> None:
    text = filled("{alt}|{tags}|{boxes}|{ocr}", "a café\nin Lisbon", EXPERTS)
    assert (
        text == "a café in Lisbon|espresso|cup: [0.100,0.200,0.300,0.400]\ntable: [0.000,0.000,1.000,1.000]|EXIT {alt}"
    )
    block = filled("{block}", "a café", EXPERTS)
    assert all(part in block for part in ("a café", "espresso", "cup: [0.100", "EXIT {alt}"))


def test_a_line_without_anything_to_say_is_left_out() -> None:
    text = "Describe it.\nThe web says {alt}.\n{block}\nIt reads {ocr}, {tags}."
    assert filled(text) == "Describe it."
    assert filled(text, "a cup").splitlines() == ["Describe it.", "The web says a cup.", "World knowledge: a cup"]
    assert filled(text, "", {"tags": EXPERTS["tags"]}).endswith("It reads , espresso.")


def test_braces_of_values_and_doubled_ones_are_text() -> None:
    assert filled('{{"caption": "{alt}"}}', "{block} {x}") == '{"caption": "{block} {x}"}'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{atl}", r"config\.prompt\.text has \{atl\}: expected one of .*; did you mean alt\?"),
        ("a { b", "config.prompt.text: .*write {{ for a brace"),
        ("{alt!r}", "a variable is written {name}"),
        ("{alt:10}", "a variable is written {name}"),
        ("{}", "a variable is written {name}"),
    ],
)
def test_templates_that_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises(FieldError, match=says):
        parse_template(text, "prompt.text")


@pytest.mark.parametrize("name", ["", "densefusion"])
def test_our_prompts(name: str) -> None:
    text = caption.get_config(name).prompt.text
    bare = filled(text)
    assert len(bare) > 300 and "{" not in bare
    told = filled(text, "a café in Lisbon", EXPERTS)
    assert "a café in Lisbon" in told and len(told) > len(bare)
    assert ("cup: [0.100" in told) == (name == "densefusion")
