"""The block of a caption prompt that says what is known about the image from elsewhere (docs/curation.md#experts).

    World knowledge: a cafe in Lisbon, 2019
    Objects:
    spoon: [0.612,0.700,0.655,0.912]
    cup: [0.214,0.301,0.622,0.810]
    Text in the image:
    EXIT
    Tags: espresso, cup

Parts without anything to say are absent, and so is the block when all are. The order of the parts, boxes in 0..1 with
three decimals and small objects first are those of DenseFusion (arXiv 2407.08303, section 3.2 and appendix).
"""

from dataclasses import dataclass
from typing import ClassVar

from eve_jax.curate.experts.form import Findings, area
from eve_jax.process.section import Section, setting

# What each part begins with: text that no caption has, so that one which repeats it can be told.
HEADINGS = {
    "alt": "World knowledge:",
    "boxes": "Objects:",
    "ocr": "Text in the image:",
    "tags": "Tags:",
}


@dataclass(frozen=True)
class BlockLimits(Section):
    """The section `experts.block` of a config for captions: how much of what experts found enters the prompt.

    Attributes:
        boxes: the most boxes, of which the smallest are kept.
        lines: the most lines of OCR, the first in reading order.
        tags: the most tags, the most certain ones.
        alt_characters: the longest web caption; a longer one loses its end.
        line_characters: the same of a line of OCR.
    """

    PATH: ClassVar[str] = "experts.block."

    boxes: int = setting(30, low=0)
    lines: int = setting(40, low=0)
    tags: int = setting(10, low=0)
    alt_characters: int = setting(600, low=0)
    line_characters: int = setting(200, low=1)


def block(experts: Findings, alt: str | None = None, limits: BlockLimits | None = None) -> str:
    """Return the block for an image of which `experts` found something (docs/curation.md#experts), "" for nothing.

    experts: what `read_findings` returns; `alt`: the web caption, None or "" for none. Names, lines and the caption
    each stay on one line, whatever they hold.
    """
    limits = BlockLimits() if limits is None else limits
    parts = []
    if limits.alt_characters and (world := _one_line(alt or "", limits.alt_characters)):
        parts.append(f"{HEADINGS['alt']} {world}")
    smallest = sorted(experts.get("boxes", ()), key=lambda found: (area(found), -found["score"], found["name"]))
    boxes = [_box_line(found["name"], found["box"]) for found in smallest[: limits.boxes]]
    lines = [_one_line(found["text"], limits.line_characters) for found in experts.get("ocr", ())[: limits.lines]]
    for name, entries in (("boxes", boxes), ("ocr", lines)):
        if entries:
            parts.append("\n".join([HEADINGS[name], *entries]))
    if tags := experts.get("tags", ())[: limits.tags]:
        parts.append(f"{HEADINGS['tags']} {', '.join(_one_line(found['name'], 100) for found in tags)}")
    return "\n".join(parts)


def _box_line(name: str, box: list[float]) -> str:
    return f"{_one_line(name, 100)}: [{','.join(f'{at:.3f}' for at in box)}]"


def _one_line(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"
