"""Prompts as data: texts with variables, of which a line without anything to say is left out.

    Describe the image in three to five sentences.
    The page it was found on calls it: {alt}
    {block}

Variables: {alt} the web's caption; {block} all that is known about the image (`eve_jax.curate.experts.block`); {tags},
{boxes}, {ocr} parts of that. A line that has variables and of which all are empty for an image is left out. `{{` and
`}}` stand for braces.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eve_jax.curate.experts.block import HEADINGS, BlockLimits, block
from eve_jax.errors import Field, FieldError
from eve_jax.process.checks import hint, near_name

BLOCK = "block"
VARIABLES = (*HEADINGS, BLOCK)
Line = list[tuple[str, str]]  # of a template: texts, each with the variable that follows it, "" for none


@dataclass(frozen=True)
class Prompt:
    """What is asked about one image: the system message ("" for none), the text next to the image."""

    system: str
    text: str


def parse_template(text: str, field: str) -> list[Line]:
    """Return the lines of a template. Raise FieldError, which names the config's `field`, for one that is broken."""
    try:
        lines = [[_piece(*parsed) for parsed in string.Formatter().parse(line)] for line in text.split("\n")]
    except ValueError as error:
        raise FieldError(Field(field), f": {error}; write {{{{ for a brace that is text") from None
    for name in (name for line in lines for _, name in line if name):
        if name not in VARIABLES:
            near = hint(near_name(name, VARIABLES))
            raise FieldError(
                Field(field), f" has {{{name}}}: expected one of {', '.join(VARIABLES)}, or {{{{ for a brace{near}"
            )
    return lines


def _piece(text: str, name: str | None, form: str | None, conversion: str | None) -> tuple[str, str]:
    if name == "" or form or conversion:
        raise ValueError("a variable is written {name}")
    return text, name or ""


def fill(lines: list[Line], values: Mapping[str, str]) -> str:
    """Return the text of a template with `values` for its variables, without lines whose variables are all empty."""
    kept = []
    for line in lines:
        names = [name for _, name in line if name]
        if not names or any(values[name] for name in names):
            kept.append("".join(text + (values[name] if name else "") for text, name in line))
    return "\n".join(kept).strip()


def fixed_text(lines: list[Line]) -> str:
    """Return the text of a template without its variables."""
    return "\n".join(" ".join(text for text, _ in line) for line in lines)


def variables(experts: Mapping[str, list[dict[str, Any]]], alt: str, limits: BlockLimits) -> dict[str, str]:
    """Return the values of all VARIABLES for an image: the web caption `alt`, and what `experts` found in it."""
    values = {name: _part({name: experts[name]} if name in experts else {}, "", name, limits) for name in HEADINGS}
    return values | {"alt": _part({}, alt, "alt", limits), BLOCK: block(dict(experts), alt, limits)}


def _part(experts: dict[str, list[dict[str, Any]]], alt: str, name: str, limits: BlockLimits) -> str:
    return block(experts, alt, limits).removeprefix(HEADINGS[name]).strip()
