"""Rows of a step as one image: bars of slots, images as the model gets them, text with what is learned underlined."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from eve_jax.data.view.take_apart import PAD, SPECIAL, TEXT, ShownRow, ShownSample
from eve_jax.data.view.take_apart import PATCH as PATCH_KIND
from eve_jax.data.view.typeset import LEADING, SIZE, font, shortened, wrapped, write

WIDTH, MARGIN = 1800, 40  # pixels
INNER = WIDTH - 2 * MARGIN
LEFT = MARGIN + 110  # of the bars; their names stand before them
LONG = WIDTH - MARGIN - LEFT
BAR, GAP = 34, 14  # height of a bar, room between things
COLUMNS, MAX_IMAGE, MAX_LINES = 3, 230, 14
COLOURS = ("#2f6db5", "#d9822b", "#2f9a68", "#8a5bb5", "#c9484b", "#1f98a6", "#8c6d46", "#c75d95")
INK, GREY, LINE, PAPER, PADS = "#1c1f24", "#5f6670", "#d9dce1", "#ffffff", "#eceef1"
KINDS = {PATCH_KIND: "patch", SPECIAL: "class, split", TEXT: "text", PAD: "pad"}


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float64)


def _shade(number: int, kind: int) -> tuple[int, int, int]:
    """Color of a token of sample `number` (from 1): patches full, specials dark, text light; pads gray."""
    if kind == PAD or number == 0:
        rgb = _rgb(PADS)
    else:
        base = _rgb(COLOURS[(number - 1) % len(COLOURS)])
        mixed = {PATCH_KIND: base, SPECIAL: base * 0.5, TEXT: base * 0.45 + 255 * 0.55}
        rgb = mixed[kind]
    r, g, b = (int(value) for value in rgb)
    return r, g, b


def draw_rows(rows: Sequence[ShownRow], title: str, about: str) -> Image.Image:
    """The image, RGB, 1800 pixels wide and as high as it needs."""
    parts = [_heading(title, about)]
    parts += [_row(row) for row in rows]
    height = sum(part.height for part in parts) + MARGIN
    picture = Image.new("RGB", (WIDTH, height), PAPER)
    y = 0
    for part in parts:
        picture.paste(part, (0, y))
        y += part.height
    return picture


def _heading(title: str, about: str) -> Image.Image:
    lines = wrapped([(about, False)], INNER, 3)
    height = MARGIN + 54 + LEADING * len(lines) + 50
    picture = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN), title, INK, font(34, True))
    write(draw, lines, MARGIN, MARGIN + 54, GREY, GREY)
    x, y = float(MARGIN), height - 36
    for kind, name in KINDS.items():
        draw.rectangle((x, y, x + 28, y + 22), _shade(1, kind))
        draw.text((x + 38, y + 11), name, INK, font(), "lm")
        x += 38 + font().getlength(name) + 40
    draw.rectangle((x, y + 8, x + 28, y + 13), INK)
    draw.text((x + 38, y + 11), "learned (loss)", INK, font(), "lm")
    x += 38 + font().getlength("learned (loss)") + 40
    draw.text((x, y + 11), "one color a sample", INK, font(), "lm")
    return picture


def _row(row: ShownRow) -> Image.Image:
    cards = [_card(sample, number) for number, sample in enumerate(row.samples, 1)]
    columns = _arranged(cards)
    bars = 2 * (BAR + 44) + 56
    height = GAP + bars + max((sum(card.height + GAP for card in column) for column in columns), default=0) + GAP
    picture = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.line((MARGIN, 2, WIDTH - MARGIN, 2), LINE, 2)
    draw.text((MARGIN, GAP + 4), row.title, INK, font(24, True))
    used = int((row.sample > 0).sum())
    parts = f"{row.shape.patches} patches + {row.shape.specials} specials + {row.shape.text} text"
    fill = f"{parts} = {row.shape.length} slots, {used / row.shape.length:.1%} filled"
    draw.text((WIDTH - MARGIN, GAP + 18), fill, GREY, font(), "rm")
    _memory_bar(picture, row, GAP + 46)
    _causal_bar(picture, row, GAP + 46 + BAR + 44)
    width = (INNER - GAP * (COLUMNS - 1)) // COLUMNS
    for number, column in enumerate(columns):
        y = GAP + bars
        for card in column:
            picture.paste(card, (MARGIN + number * (width + GAP), y))
            y += card.height + GAP
    return picture


def _arranged(cards: Sequence[Image.Image]) -> list[list[Image.Image]]:
    """Cards in columns, each under the one that ends highest."""
    columns: list[list[Image.Image]] = [[] for _ in range(COLUMNS)]
    for card in cards:
        min(columns, key=lambda column: sum(c.height + GAP for c in column)).append(card)
    return columns


def _strip(colours: np.ndarray, width: int, height: int) -> Image.Image:
    """Slots (uint8 [n, 3]) side by side; where a pixel holds several, their mean."""
    line = Image.fromarray(colours[None])
    enlarge = width >= len(colours)
    strip = line.resize((width, height), Image.Resampling.NEAREST if enlarge else Image.Resampling.BOX)
    if width >= 6 * len(colours):
        draw = ImageDraw.Draw(strip)
        for k in range(1, len(colours)):
            x = k * width // len(colours)
            draw.line((x, 0, x, height), PAPER)
    return strip


def _colours(row: ShownRow) -> np.ndarray:
    """uint8 [L, 3]: the color of each token in causal order."""
    pairs = zip(row.sample.tolist(), row.kind.tolist(), strict=True)
    return np.array([_shade(sample, kind) for sample, kind in pairs], np.uint8)


def _memory_bar(picture: Image.Image, row: ShownRow, y: int) -> None:
    """The blocks of the row as they lie in memory, with how much of each is used."""
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, y + BAR // 2), "memory", GREY, font(), "lm")
    colours = np.empty((row.shape.length, 3), np.uint8)
    colours[row.slots] = _colours(row)
    kind = np.empty(row.shape.length, np.int64)
    kind[row.slots] = row.kind
    blocks = [(name, size) for name, size in zip(("patches", "specials", "text"), row.shape, strict=True) if size]
    room = LONG - GAP * (len(blocks) - 1)
    x, first, free = LEFT, 0, 0.0
    for number, (name, size) in enumerate(blocks):
        last = number == len(blocks) - 1
        width = WIDTH - MARGIN - x if last else max(round(room * size / row.shape.length), 1)
        picture.paste(_strip(colours[first : first + size], width, BAR), (x, y))
        used = int((kind[first : first + size] != PAD).sum())
        draw.text((max(x, free), y + BAR + 4), f"{name} {used:,}/{size:,}", GREY, font(17))
        free = max(x, free) + font(17).getlength(f"{name} {used:,}/{size:,}") + GAP
        x, first = x + width + GAP, first + size


def _causal_bar(picture: Image.Image, row: ShownRow, y: int) -> None:
    """All tokens in the order in which they attend, with the numbers of the samples and what is learned marked."""
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, y + BAR // 2), "order", GREY, font(), "lm")
    picture.paste(_strip(_colours(row), LONG, BAR), (LEFT, y))
    marks = np.where(row.learnt[:, None], _rgb(INK), 255.0).astype(np.uint8)
    picture.paste(_strip(marks, LONG, 6), (LEFT, y + BAR + 3))
    free = 0.0
    for number in range(1, len(row.samples) + 1):
        x = LEFT + int(np.argmax(row.sample == number)) * LONG / len(row.sample)
        if x >= free:
            draw.text((x, y + BAR + 11), str(number), COLOURS[(number - 1) % len(COLOURS)], font(17, True))
            free = x + font(17, True).getlength(f"{number} ")


def _card(sample: ShownSample, number: int) -> Image.Image:
    """A sample: its number and id, counts, images and text."""
    width = (INNER - GAP * (COLUMNS - 1)) // COLUMNS
    colour = COLOURS[(number - 1) % len(COLOURS)]
    inner = width - 34
    images = _pictures(sample, inner)
    runs: list[tuple[str, bool]] = []
    n_image = 0
    for piece in sample.pieces:
        n_image += piece.image is not None
        runs.append((f"[image {n_image}] " if piece.image is not None else piece.text, piece.learnt))
    lines = wrapped(runs, inner, MAX_LINES)
    image_height = sum(max(image.height for image in line) + 10 for line in images)
    height = 66 + image_height + LEADING * len(lines) + 10
    card = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, 7, height), colour)
    name = shortened(sample.id, inner - 60, font(SIZE, True))
    draw.text((22, 4), f"{number}", colour, font(SIZE, True))
    draw.text((22 + font(SIZE, True).getlength(f"{number}  "), 4), name, INK, font(SIZE, True))
    counts = [(sample.counts.vision, "vision"), (sample.counts.text, "text"), (sample.n_learnt, "learnt")]
    about = " · ".join(f"{n:,} {what}" for n, what in counts if n or what == "learnt")
    draw.text((22, 33), about if sample.n_learnt else f"{about}: masked, it broke", GREY, font(17))
    y = 66
    for line in images:
        x = 22
        for image in line:
            card.paste(image, (x, y))
            x += image.width + 10
        y += max(image.height for image in line) + 10
    write(draw, lines, 22, y, GREY, colour)
    return card


def _pictures(sample: ShownSample, width: int) -> list[list[Image.Image]]:
    """The sample's images with their patches ruled, in lines of at most `width` pixels."""
    lines: list[list[Image.Image]] = []
    room = 0
    for piece in sample.pieces:
        if piece.image is None:
            continue
        image = _ruled(piece.image, piece.patch, width)
        if image.width + 10 > room:
            lines.append([])
            room = width + 10
        lines[-1].append(image)
        room -= image.width + 10
    return lines


def _ruled(pixels: np.ndarray, patch: int, width: int) -> Image.Image:
    """An image fitted into the card, with a fine line between patches where there is room for it."""
    image = Image.fromarray(pixels)
    scale = min(MAX_IMAGE / image.height, width / image.width, 2.5)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    fitted = image.resize(size, Image.Resampling.LANCZOS)
    side = patch * scale
    if side >= 8:
        lines = Image.new("RGBA", size)
        draw = ImageDraw.Draw(lines)
        for k in range(1, pixels.shape[1] // patch):
            draw.line((k * side, 0, k * side, size[1]), (255, 255, 255, 150))
        for k in range(1, pixels.shape[0] // patch):
            draw.line((0, k * side, size[0], k * side), (255, 255, 255, 150))
        fitted.paste(lines, mask=lines)
    return fitted
