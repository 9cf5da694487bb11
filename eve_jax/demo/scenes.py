"""Images as data: what is where, and how to draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from eve_jax.demo.assets import BACKGROUNDS, COLORS, Kind, fitting_size, sprite, text_font
from eve_jax.demo.settings import PATCH, DemoSettings

GROUP_CELLS = 6
_BOARD_MARGIN = 8  # pixels of a sign's width left free next to its word
_PLACES = {"row": ("left", "middle", "right"), "column": ("top", "middle", "bottom")}


@dataclass(frozen=True)
class Item:
    """One thing: its kind, center (x, y) and longest side, in pixels."""

    kind: Kind
    x: int
    y: int
    size: int


@dataclass(frozen=True)
class Sign:
    """A board of one color with a word: center (x, y), width and height in pixels."""

    word: str
    color: str
    x: int
    y: int
    width: int
    height: int
    letter_size: int


@dataclass(frozen=True)
class Scene:
    """A whole image. `layout` is single, row, column, group, mix or sign; items are in reading order."""

    layout: str
    width: int
    height: int
    items: tuple[Item, ...]
    sign: Sign | None
    background: int  # index in BACKGROUNDS
    shade: int  # levels of 255 by which the bottom is darker
    zoom: float = 1.0  # pixels for one of the image as it is laid out

    @property
    def counts(self) -> dict[Kind, int]:
        """How often each kind occurs, in reading order."""
        counts: dict[Kind, int] = {}
        for item in self.items:
            counts[item.kind] = counts.get(item.kind, 0) + 1
        return counts

    @property
    def places(self) -> dict[str, Kind]:
        """Place (left, middle, right or top, middle, bottom) -> kind, of a row or a column; empty for others."""
        if self.layout not in _PLACES:
            return {}
        names = place_names(self.layout, len(self.items))
        return {name: item.kind for name, item in zip(names, self.items, strict=True)}


def place_names(layout: str, length: int) -> tuple[str, ...]:
    """Names of the places of a row or column of 2 or 3 things."""
    names = _PLACES[layout]
    return names if length == 3 else (names[0], names[2])


class SceneMaker:
    """Lays out given contents at random places; what is in an image is the caller's choice (`split.py`)."""

    def __init__(self, settings: DemoSettings, rng: Random) -> None:
        self.settings = settings
        self.rng = rng

    def single(self, kind: Kind) -> Scene:
        """One thing."""
        return self._scene("single", 1, 1, [(kind, 0, 0)])

    def row(self, kinds: Sequence[Kind], layout: str) -> Scene:
        """Two or three different things in a `row` (left to right) or a `column` (top to bottom)."""
        if layout == "row":
            return self._scene(layout, 1, len(kinds), [(kind, 0, i) for i, kind in enumerate(kinds)])
        return self._scene(layout, len(kinds), 1, [(kind, i, 0) for i, kind in enumerate(kinds)])

    def group(self, counts: dict[Kind, int]) -> Scene:
        """Things to count, in cells of a grid of 2 x 3 or 3 x 2 whatever their number: size gives nothing away."""
        rows, columns = self.rng.choice(((2, 3), (3, 2)))
        kinds = [kind for kind, n in counts.items() for _ in range(n)]
        self.rng.shuffle(kinds)
        cells = sorted(self.rng.sample(range(GROUP_CELLS), len(kinds)))
        placed = [(kind, cell // columns, cell % columns) for kind, cell in zip(kinds, cells, strict=True)]
        return self._scene("group", rows, columns, placed, margins=False)

    def mix(self, kinds: Sequence[Kind]) -> Scene:
        """Two or three things in cells of a 2 x 2 grid."""
        order = self.rng.sample(list(kinds), len(kinds))
        cells = sorted(self.rng.sample(range(4), len(kinds)))
        placed = [(kind, cell // 2, cell % 2) for kind, cell in zip(order, cells, strict=True)]
        return self._scene("mix", 2, 2, placed, margins=False)

    def sign(self, word: str, color: str, kind: Kind | None = None) -> Scene:
        """A sign, two cells wide, alone or with a thing to its right or below it."""
        if kind is None:
            return self._scene("sign", 1, 2, [], sign=(word, color))
        if self.rng.random() < 0.5:
            return self._scene("sign", 1, 3, [(kind, 0, 2)], sign=(word, color), margins=False)
        return self._scene("sign", 2, 2, [(kind, 1, self.rng.randrange(2))], sign=(word, color), margins=False)

    def _scene(
        self,
        layout: str,
        rows: int,
        columns: int,
        placed: Sequence[tuple[Kind, int, int]],
        sign: tuple[str, str] | None = None,
        margins: bool = True,
    ) -> Scene:
        s, rng = self.settings, self.rng
        half = s.cell // 2
        extra_x, extra_y = (half if margins and rng.random() < s.margin_share else 0 for _ in range(2))
        width, height = columns * s.cell + extra_x, rows * s.cell + extra_y
        left, top = rng.choice((0, extra_x)), rng.choice((0, extra_y))
        if rng.random() < s.odd_share:
            width += rng.randint(-s.odd_pixels, s.odd_pixels)
            height += rng.randint(-s.odd_pixels, s.odd_pixels)
        sizes = range(s.object_size[0], s.object_size[1] + 1, s.size_step)

        def stray(centre: int, room: int, side: int, jitter: int) -> int:
            """The center moved by the jitter, but a thing of length `room` stays inside the side of the image."""
            return min(max(centre + rng.randint(-jitter, jitter), room // 2), side - (room + 1) // 2)

        items = []
        for kind, row, column in placed:
            size = min(rng.choice(sizes), width, height)
            x = stray(left + column * s.cell + half, size, width, s.jitter)
            y = stray(top + row * s.cell + half, size, height, s.jitter)
            items.append(Item(kind, x, y, size))
        board = None
        if sign is not None:
            w, h = min(2 * s.cell - 8, width), min(s.cell - 16, height)
            x, y = stray(left + s.cell, w, width, s.sign_jitter), stray(top + half, h, height, s.sign_jitter)
            board = Sign(*sign, x, y, w, h, fitting_size(sign[0], w - _BOARD_MARGIN, s.letter_size))
        scene = Scene(layout, width, height, tuple(items), board, rng.randrange(s.backgrounds), rng.randint(0, s.shade))
        low, high = s.zoom
        return scene if low == high == 1 else zoomed(scene, low * (high / low) ** rng.random())


def zoomed(scene: Scene, factor: float) -> Scene:
    """Return the scene with everything in it `factor` times as large, in whole pixels."""

    def scaled(length: int) -> int:
        return max(round(length * factor), 1)

    sign = scene.sign
    if sign is not None:
        x, y, width, height = map(scaled, (sign.x, sign.y, sign.width, sign.height))
        sign = Sign(sign.word, sign.color, x, y, width, height, scaled(sign.letter_size))
    items = tuple(Item(item.kind, scaled(item.x), scaled(item.y), scaled(item.size)) for item in scene.items)
    width, height = scaled(scene.width), scaled(scene.height)
    return replace(scene, width=width, height=height, items=items, sign=sign, zoom=scene.zoom * factor)


def word_map(scene: Scene) -> str:
    """The image as words, one for each patch in reading order, rows of patches as lines, `.` where nothing is.

    The text-only LLM learns to read such maps, so that a patch embedding has words to aim at. Starts with `Map:`.
    """
    side = PATCH * scene.zoom
    rows, columns = max(1, round(scene.height / side)), max(1, round(scene.width / side))
    cells = [["."] * columns for _ in range(rows)]

    def fill(x: int, y: int, width: int, words: Sequence[str]) -> None:
        first_column, first_row = round(x / side - width / 2), round(y / side - 1)
        for dy, word in enumerate(words):
            for dx in range(width):
                r, c = first_row + dy, first_column + dx
                if 0 <= r < rows and 0 <= c < columns:
                    cells[r][c] = word

    for item in scene.items:
        fill(item.x, item.y, 2, (item.kind.name, item.kind.name))
    if scene.sign is not None:
        fill(scene.sign.x, scene.sign.y, 4, (scene.sign.color, scene.sign.word))
    return "Map: " + "\n ".join(" ".join(row) for row in cells)


def draw(scene: Scene) -> Image.Image:
    """The image, RGB, `scene.width` x `scene.height` pixels. Equal scenes give equal pixels."""
    shade = np.linspace(0, scene.shade, scene.height)[:, None]
    column = np.rint(np.array(BACKGROUNDS[scene.background]) - shade).astype(np.uint8)
    pixels = np.broadcast_to(column[:, None, :], (scene.height, scene.width, 3))
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if scene.sign is not None:
        _draw_sign(image, scene.sign)
    for item in scene.items:
        thing = sprite(item.kind.char, item.size)
        image.paste(thing, (item.x - thing.width // 2, item.y - thing.height // 2), thing)
    return image


def _draw_sign(image: Image.Image, sign: Sign) -> None:
    color, ink = COLORS[sign.color], (255, 255, 255)
    pen = ImageDraw.Draw(image)
    x, y = sign.x - sign.width // 2, sign.y - sign.height // 2
    pen.rounded_rectangle((x, y, x + sign.width - 1, y + sign.height - 1), radius=8, fill=color, outline=ink, width=2)
    pen.text((sign.x, sign.y), sign.word, font=text_font(sign.letter_size), fill=ink, anchor="mm")
