"""Colors of more than 8 bits a channel, of which Pillow keeps the upper 8: read in full where that can be done.

Pillow's rawmode says the byte order of a file's 16-bit values. Decoding the file once more in the other order gives the
lower 8 bits, whatever its format and compression.
"""

import io
import re
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from eve_jax.data.image_file import BadImage

BOTH_ORDERS = re.compile(r"(?:RGB|RGBA|RGBX|CMYK|[RGBA]);16[BLN]")  # rawmodes that Pillow has in both byte orders
OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
GRAY_ALPHA = "LA;16B"  # of PNG: two values a pixel, which can be read as the four bytes of RGBA
DARK = 16  # of the upper 8 bits: an image that is darker all over does not use the range of its file
JPEG2000_SIZES = b"\xff\x4f\xff\x51"  # start of a codestream, and the marker of its sizes
COUNT, DEPTHS, STEP = 40, 42, 3  # bytes from there to the number of components, and to their depths
COLORS = ("L", "LA", "RGB", "RGBA", "RGBX", "CMYK")  # modes of 8 bits a channel
TIFF_ORDERS = {b"II": "L", b"MM": "B"}


class Tile(NamedTuple):
    """A part of an image file as Pillow describes it; up to version 10, Pillow's own is a plain tuple."""

    codec_name: str
    extents: tuple[int, int, int, int] | None
    offset: int
    args: Any


class Deep(NamedTuple):
    """`values` of 16-bit colors, uint16 [H, W, C] without alpha, of `mode` "L", "RGB" or "CMYK".

    scale: what they are to be multiplied by, as their file states a largest value; None where it states none.
    """

    values: np.ndarray
    mode: str
    scale: float | None = None


def deep_channels(image: Image.Image, file: object) -> Deep | None:
    """Return the values of an image of 16-bit colors.

    None for every other image, whose pixels are then loaded. Raises `BadImage`, which names `file`, where only the
    upper 8 bits can be read and are all but black, or where Pillow would read each byte as a value.
    """
    if image.format == "JPEG":  # as Pillow reads it, of 8 bits
        image.load()
        return None
    tiles, largest = _deep_tiles(image)
    rawmodes = [_rawmode(tile) for tile in tiles]
    if tiles and all(map(BOTH_ORDERS.fullmatch, rawmodes)) and not _has_packed_planes(image, tiles):
        values = _read(image, tiles, rawmodes).astype(np.uint16)
        values <<= 8
        values |= _read(image, tiles, [one[:-1] + OTHER_ORDER[one[-1]] for one in rawmodes])
        mode = "CMYK" if image.mode == "CMYK" else "RGB"
        return Deep(values[..., : len(mode)], mode, 65535 / largest if largest else None)
    if rawmodes == [GRAY_ALPHA]:
        both = _read(image, tiles, ["RGBA"])
        return Deep(both[..., :1].astype(np.uint16) << 8 | both[..., 1:2], "L")
    if tiles != _tiles(image):
        raise BadImage("has colors of 16 bits in planes that cannot be read; write it with one plane", file)
    is_deep = largest > 255 or any(";16" in one for one in rawmodes) or _is_deep_file(image)
    image.load()
    if is_deep and _is_dark(image):
        raise BadImage(
            "has colors of more than 8 bits, all below a sixteenth of white, and only their upper 8 bits can be read; "
            "convert it to 8 bits a channel",
            file,
        )
    return None


def _deep_tiles(image: Image.Image) -> tuple[list[Tile], int]:
    """Return the tiles of an image as 16-bit colors are read, and the largest value that its header states or 0.

    There are none where the pixels are loaded already.
    """
    tiles = _tiles(image)
    if not tiles or image.mode.startswith(("I", "F")):
        return tiles, 0
    first = tiles[0]
    tags: Any = getattr(image, "tag_v2", {})  # of a TIFF
    if first.codec_name == "SGI16":
        return tiles, 65535
    if first.codec_name in ("ppm", "ppm_plain") and isinstance(first.args, tuple):
        if first.codec_name == "ppm" and first.args[-1] > 255:
            tiles = [first._replace(codec_name="raw", args=(f"{image.mode};16B", 0, 1))]
        return tiles, first.args[-1]
    if first.codec_name == "raw" and _has_planes(tags) and _bits(tags) == 16:
        tiles = [_with_rawmode(tile, f"{_rawmode(tile)};16{TIFF_ORDERS[tags.prefix]}") for tile in tiles]
    return tiles, 0


def _tiles(image: Image.Image) -> list[Tile]:
    return [Tile(*tile) for tile in getattr(image, "tile", ())]


def _has_planes(tags: Any) -> bool:
    return bool(tags.get(ExifTags.Base.PlanarConfiguration) == 2)


def _has_packed_planes(image: Image.Image, tiles: Sequence[Tile]) -> bool:
    """Whether a TIFF has its channels in planes that libtiff unpacks, which Pillow reads in one order alone."""
    return tiles[0].codec_name == "libtiff" and _has_planes(getattr(image, "tag_v2", {}))


def _bits(tags: Any) -> int:
    """Return the largest number of bits a channel that a TIFF states, 0 for other files."""
    bits: int = max(tags.get(ExifTags.Base.BitsPerSample, ()), default=0)
    return bits


def _rawmode(tile: Tile) -> str:
    args = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    return args[0] if args and isinstance(args[0], str) else ""


def _with_rawmode(tile: Tile, rawmode: str) -> Tile:
    return tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)


def _read(image: Any, tiles: Sequence[Tile], rawmodes: Sequence[str]) -> np.ndarray:
    """Return the pixels of an image opened anew, uint8, as read by these rawmodes."""
    other: Any = Image.open(io.BytesIO(_content(image)), formats=[image.format])
    other.seek(image.tell())
    other.tile = [_with_rawmode(tile, rawmode) for tile, rawmode in zip(tiles, rawmodes, strict=True)]
    other.load()
    return np.asarray(other)


def _content(image: Any) -> bytes:
    place = image.fp.tell()
    image.fp.seek(0)
    content: bytes = image.fp.read()
    image.fp.seek(place)
    return content


def _is_deep_file(image: Any) -> bool:
    """Whether the header of an image says more than 8 bits a color, of a JPEG 2000 file or a TIFF."""
    if image.format != "JPEG2000" or not image.tile:
        return image.mode in COLORS and _bits(getattr(image, "tag_v2", {})) > 8
    content = _content(image)
    at = content.find(JPEG2000_SIZES)
    count = int.from_bytes(content[at + COUNT : at + DEPTHS], "big")
    depths = content[at + DEPTHS : at + DEPTHS + STEP * count : STEP]
    return image.mode in COLORS and at >= 0 and any((depth & 0x7F) >= 8 for depth in depths)  # stored less one


def _is_dark(image: Image.Image) -> bool:
    if image.mode not in COLORS:
        return False
    bands = image.getbands()
    colors = [band for band in bands if band not in "Aa"] if len(bands) > 1 else list(bands)
    return all(int(np.max(np.asarray(image.getchannel(band)))) < DARK for band in colors)
