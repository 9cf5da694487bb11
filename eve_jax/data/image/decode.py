"""Pixels of an image as a viewer shows them: which way is up, and RGB of any mode."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from eve_jax.data.image.deep_color import deep_channels
from eve_jax.data.image_file import BadImage

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The same of arrays [H, W, ...].
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda rgb: rgb[:, ::-1],
    3: lambda rgb: rgb[::-1, ::-1],
    4: lambda rgb: rgb[::-1],
    5: lambda rgb: rgb.swapaxes(0, 1),
    6: lambda rgb: np.rot90(rgb, -1),
    7: lambda rgb: rgb[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
ORIENTATION = int(ExifTags.Base.Orientation)  # a member of an enumeration takes longer to look up than the rest
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
WHITES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # white of a unit range and of 8, 10, 12, 14 and 16 bits
DARKEST = 1 / 16  # of white: an image that is darker all over does not use that range
OUTLIERS = 0.001  # share of a deep image's values, at each end, that its range leaves out
BLOCK = 1 << 20  # values that are scaled at a time
GRAY = 127.5  # an image of one value that says nothing about its range
WHITE_IS_ZERO = 0  # a photometric interpretation of TIFF
SAMPLE_FORMAT = 339  # tag of TIFF: 1 for unsigned integers, 2 for signed ones
NO_DATA = 42113  # tag of TIFF by GDAL: the value of missing pixels, as text


class OnlyHoles(ValueError):
    """A deep image without a finite pixel."""


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8 by the header; 1 for TIFF, which Pillow turns by itself."""
    if image.format == "TIFF":
        return 1
    try:
        exif = Image.Image.getexif(image)  # PngImageFile's own would decode the image to look behind it
        value = exif.get(ORIENTATION, 1)
    except Exception:  # a broken EXIF block is no reason to lose the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turned(rgb: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels [H, W, 3] that are stored in an EXIF orientation as a viewer shows them."""
    turn = _TURNS.get(orientation)
    return rgb if turn is None else np.ascontiguousarray(turn(rgb))


def to_rgb(image: Image.Image, file: object = "an image") -> Image.Image:
    """Return the RGB of an image of any mode, without alpha; deep pixels as `eight_bits` scales them. Loads it.

    Raises `OnlyHoles` for a deep image without a finite pixel, and `BadImage`, which names `file`, for one whose colors
    cannot be read as deep as they are.
    """
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    channels = deep_channels(image, file)
    if channels is not None:
        values, mode, scale = channels
        image = Image.frombytes(mode, values.shape[1::-1], eight_bits(values, _no_data(tags), scale=scale).tobytes())
    elif image.mode in DEEP_MODES or _is_signed(image, tags):
        inverted = tags.get(ExifTags.Base.PhotometricInterpretation) == WHITE_IS_ZERO
        image = Image.fromarray(eight_bits(_values(image, tags), _no_data(tags), inverted))
    if image.mode in ("P", "PA"):
        _check_palette(image, file)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("P", "PA") and "transparency" in image.info:  # Pillow would warn, and make the same of it
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _check_palette(image: Image.Image, file: object) -> None:
    """Raise `BadImage` for opaque pixels of colors that the palette lacks, which Pillow makes black."""
    image.load()
    palette = image.palette
    entries = len(palette.palette) // len(palette.mode) if palette is not None else 0
    numbers = np.asarray(image.getchannel(0))
    lacking = {*numbers[numbers >= entries].tolist()} - {image.info.get("transparency")}
    if lacking:
        raise BadImage(f"has pixels of the color {min(lacking)} of a palette of {entries} colors; write it anew", file)


def eight_bits(
    values: np.ndarray, no_data: float | None = None, inverted: bool = False, scale: float | None = None
) -> np.ndarray:
    """Return uint8 of `values`, [H, W] gray or [H, W, C] colors of any depth, integers or floats (docs/data.md).

    Holes (NaN, infinite, `no_data`) become black and do not count. With `low` and `high` the smallest and largest other
    values without the OUTLIERS, black is 0 and white the first of WHITES (of integers, from 255 on) that is at least
    `high`; a `high` of 0 gives way to the largest value. Where that does not fit, black is `low` and white is `high`:
    negative values, `high` above 65535, or `high` below a sixteenth of white; if these are one value, it becomes gray.
    `inverted` exchanges black and white of all but the holes. With `scale`, integers stand for floats of that many
    times their value. Raises `OnlyHoles` when there is nothing else. Needs a copy of the values next to the result.
    """
    factor, floats = 1.0 if scale is None else scale, scale is not None or values.dtype.kind == "f"
    low, high = (number * factor for number in _range(_known(values, no_data)))
    white = next((w for w in (WHITES if floats else WHITES[1:]) if w >= high), None)
    if low >= 0 and white is not None and (high >= white * DARKEST or high == 0):
        low, high = 0.0, white
    shades = np.empty(values.shape, np.uint8)
    rows = max(BLOCK // max(math.prod(values.shape[1:]), 1), 1)
    for start in range(0, len(values), rows):
        block = values[start : start + rows]
        deep = block.astype(np.float64) * factor
        seen = _seen(block, no_data)
        scaled = (deep - low) * (255.0 / (high - low)) if high > low else np.full(deep.shape, GRAY)
        scaled = np.clip(255 - scaled if inverted else scaled, 0, 255)
        shades[start : start + rows] = np.where(True if seen is None else seen, scaled + 0.5, 0).astype(np.uint8)
    return shades


def _seen(values: np.ndarray, no_data: float | None) -> np.ndarray | None:
    """Which values are no holes; None where all are."""
    seen = np.isfinite(values) if values.dtype.kind == "f" else None
    if no_data is None:
        return seen
    return values != no_data if seen is None else seen & (values != no_data)


def _known(values: np.ndarray, no_data: float | None) -> np.ndarray:
    """A copy of the values that are no holes, flat. Raises `OnlyHoles` without any."""
    seen = _seen(values, no_data)
    known = values.flatten() if seen is None else values[seen]
    if not known.size:
        raise OnlyHoles
    return known


def _range(values: np.ndarray) -> tuple[float, float]:
    """The range of `values`, which are put into another order."""
    # The number of values left out is rounded down, so that a small image loses none.
    left_out = int(values.size * OUTLIERS)
    values.partition((left_out, values.size - 1 - left_out))
    # Of a mask with a tiny object, the object is what is left out.
    return float(values[left_out]), float(values[-1 - left_out]) or float(values.max())


def _is_signed(image: Image.Image, tags: Any) -> bool:
    """Whether a gray image of 8 bits has signed values, which Pillow reads as unsigned ones."""
    return image.mode == "L" and tags.get(SAMPLE_FORMAT) == (2,)


def _values(image: Image.Image, tags: Any) -> np.ndarray:
    values = np.asarray(image)
    if image.mode == "L":
        return values.view(np.int8)
    if image.format == "FITS" and image.mode == "I;16":  # its integers of 16 bits are signed, Pillow's are not
        return values.view(np.int16)
    unsigned = tags.get(ExifTags.Base.BitsPerSample) == (32,) and tags.get(SAMPLE_FORMAT, (1,)) == (1,)
    return values.view(np.uint32) if image.mode == "I" and unsigned else values  # Pillow has no unsigned mode


def _no_data(tags: Any) -> float | None:
    try:
        return float(tags[NO_DATA].strip("\0 "))
    except (KeyError, ValueError, AttributeError):
        return None
