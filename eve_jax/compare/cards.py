"""Cards: questions with their images, answered by several checkpoints side by side (EVEv2 paper, Tables 7 to 12).

A line of the file is {"image": path, "prompt": text, "text": what is written in the image, "paper": another answer,
"marks": [[x, y, n], ..]}; all but image and prompt may be left out. Marks are numbers that are drawn into the image, at
x and y of its pixels, before it is asked about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from eve_jax.compare.text_errors import character_error_rate
from eve_jax.data.image.patches import open_image
from eve_jax.data.image_file import BadImage
from eve_jax.data.record import BadRecord
from eve_jax.data.sources.image_refs import to_image
from eve_jax.errors import UserError, shorten
from eve_jax.eval.sources.official import read_lines
from eve_jax.infer.api import EVE
from eve_jax.process.checks import encodable, known_names

FIELDS = ("image", "prompt", "text", "paper", "marks")
DISC = 0.022  # radius of a mark as a share of the image's longer side


@dataclass(frozen=True)
class Card:
    """A card; `image` is RGB with its marks drawn, `name` its path as the file has it."""

    where: str
    name: str
    image: Image.Image = field(repr=False)
    prompt: str
    text: str = ""
    paper: str = ""


def read_cards(path: Path, images: str = "") -> list[Card]:
    """Return the cards of a file; paths are relative to the folder `images`, "" = to that of the file.

    Raises UserError naming the line and the field that is wrong, or the image that cannot be read.
    """
    cards = []
    for number, line in enumerate(read_lines(path), 1):
        where = f"{path}#{number}"
        try:
            known_names(line, FIELDS, "field")
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        texts = {name: _text(line, name, where, name in ("image", "prompt")) for name in FIELDS[:-1]}
        image = _opened(texts["image"], images or str(path.parent), where)
        marks = _marks(line.get("marks"), image.size, where)
        cards.append(
            Card(where, texts["image"], marked(image, marks), *(texts[n] for n in ("prompt", "text", "paper")))
        )
    if not cards:
        raise UserError(f"{path}: holds no cards")
    return cards


def _text(line: Mapping[str, Any], name: str, where: str, required: bool) -> str:
    value = line.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {name} is {shorten(repr(value), 80)}: expected a text")
    return encodable(f"{where}: {name}", value)


def _opened(name: str, folder: str, where: str) -> Image.Image:
    try:
        return open_image(to_image(name, where, [folder]))
    except (BadRecord, BadImage) as error:
        raise UserError(f"{where}: {error}") from None


def _marks(given: Any, size: tuple[int, int], where: str) -> list[tuple[float, float, int]]:
    marks = [] if given is None else given
    for mark in marks if isinstance(marks, list) else [marks]:
        ok = isinstance(mark, list) and len(mark) == 3
        if not ok or any(isinstance(n, bool) or not isinstance(n, int | float) for n in mark) or mark[2] % 1:
            raise UserError(f"{where}: marks has {shorten(repr(mark), 80)}: expected [x, y, whole number]")
        if not (0 <= mark[0] < size[0] and 0 <= mark[1] < size[1]):
            raise UserError(
                f"{where}: mark {mark[2]} at {mark[0]}, {mark[1]} is outside of {size[0]} x {size[1]} pixels"
            )
    return [(float(x), float(y), int(n)) for x, y, n in marks]


def marked(image: Image.Image, marks: Sequence[tuple[float, float, int]]) -> Image.Image:
    """Return `image` with each number of `marks` (x, y, number) in a disc at its place; itself without marks."""
    if not marks:
        return image
    image = image.copy()
    pen, radius = ImageDraw.Draw(image), max(DISC * max(image.size), 6.0)
    font = ImageFont.load_default(1.3 * radius)
    for x, y, number in marks:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill="white", outline="black", width=1)
        pen.text((x, y), str(number), fill="black", font=font, anchor="mm")
    return image


def paper_answers(cards: Sequence[Card]) -> list[dict[str, Any] | None]:
    """Return of each card the answer that it has of its own, {"answer", "error_rate"} as for a checkpoint, or None."""
    return [{"answer": one.paper, "error_rate": _error_rate(one.paper, one)} if one.paper else None for one in cards]


def _error_rate(answer: str, card: Card) -> float | None:
    return character_error_rate(answer, card.text) if card.text else None


def answer_cards(
    eve: EVE, cards: Sequence[Card], max_new_tokens: int, label: str, quiet: bool = False
) -> list[dict[str, Any]]:
    """Return of each card the greedy answer of a checkpoint: {"answer", "grid", "tokens", "error_rate"}.

    grid: rows and columns of patches. tokens: of the image. error_rate: of characters, None for a card without text.
    Raises UserError for a model that takes no images, and for a prompt that it cannot be asked.
    """
    if not eve.sees:
        raise UserError("this checkpoint has no trained image input")
    prompts = [eve.prompt(card.prompt, card.image) for card in cards]
    answers = eve.generate_batch(
        [card.prompt for card in cards],
        [card.image for card in cards],
        rows=1,
        progress="" if quiet else f"cards to {label}",
        max_new_tokens=max_new_tokens,
    )
    return [
        {
            "answer": answer,
            "grid": list(prompt.grids[0]),
            "tokens": prompt.layout.tokens_of(*prompt.grids[0]),
            "error_rate": _error_rate(answer, card),
        }
        for card, prompt, answer in zip(cards, prompts, answers, strict=True)
    ]
