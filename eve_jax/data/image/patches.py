"""Images: what size they get, how they are read, and how they become patches.

file -> image_size (header only, for planning) -> ImageRule.resized -> grid of patches (32x32 pixels; EVEv1: 28x28)
file -> open_pixels (RGB as a viewer shows it) -> bicubic -> patchify -> uint8 [h * w, 3072]

A file is a path, or a `StoredImage` that a source of records (a tar, a Parquet file ...) keeps inside.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile as LazyImage
from PIL.JpegImagePlugin import JpegImageFile

from eve_jax.data.image import jpeg
from eve_jax.data.image.codes import as_patches, refuse_codes, stored_codes
from eve_jax.data.image.decode import UPRIGHT, OnlyHoles, orientation, to_rgb, turned
from eve_jax.data.image.resample import resized
from eve_jax.data.image.rule import CANVASES, CODES, MAX_PIXELS, PATCH, PILLOW_PIXELS, ImageRule
from eve_jax.data.image.square import padded
from eve_jax.data.image_file import BadImage, ImageFile, StoredImage, one_line, open_binary
from eve_jax.process.hush import tiff_error, tiff_errors_begin

# Formats of photos and of deep pixels; the plug-ins of all others, which few have looked at, are never asked.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF", "SGI", "FITS")
AT_ONCE = 1 << 24  # bytes: most files in one call of the decoder, which then starts no row of blocks twice
RUNS_A_PROGRAM = "EPS"  # a format that Pillow hands to an interpreter (Ghostscript): never from somebody's data set
EPS_STARTS = (b"%!PS", b"\xc5\xd0\xd3\xc6")


def image_size(file: ImageFile, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height in pixels as a viewer shows the image, from the header alone.

    Raises `BadImage`, also for one of more than `max_pixels` pixels.
    """
    if isinstance(file, StoredImage) and file.size is not None:
        return file.size
    with _opened(file, max_pixels) as image:
        return _upright_size(image, orientation(image))


def open_image(file: ImageFile, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame as RGB, upright by its EXIF tag, without alpha, deep pixels scaled to 8 bit.

    Raises `BadImage`, for one of more than `max_pixels` pixels before it is decoded.
    """
    with _opened(file, max_pixels) as image:
        return _upright_rgb(image, file, orientation(image))


class Pixels(NamedTuple):
    """An image's `rgb`, uint8 [H, W, 3], and its size (width, height) as a viewer shows it; W and H may be less."""

    rgb: np.ndarray
    size: tuple[int, int]

    @classmethod
    def of(cls, image: "Image.Image | Pixels") -> "Pixels":
        """Return the pixels of an RGB image."""
        return image if isinstance(image, Pixels) else cls(np.asarray(image), image.size)


def open_pixels(file: ImageFile, rule: ImageRule, grid: tuple[int, int] | None = None) -> Pixels:
    """Return the pixels of `open_image`, for patches at `grid` (h, w) or under `rule`.

    With `rule.draft`, a JPEG image is decoded to a half, a quarter or an eighth of its sides where neither gets shorter
    than that of its patches. Raises `BadImage`.
    """
    with _opened(file, rule.max_pixels) as image:
        refuse_codes(image, file)
        turn = orientation(image)
        upright = _upright_size(image, turn)
        if rule.draft:
            h, w = grid or rule.grid(*upright)
            side = (w * rule.patch, h * rule.patch)
            image.draft(None, side[::-1] if turn >= 5 else side)
        rgb = jpeg.decoded(image)
        return Pixels(np.asarray(_upright_rgb(image, file, turn)) if rgb is None else turned(rgb, turn), upright)


class Reduced(NamedTuple):
    """An image at a reduced size, and what its file says: width and height as a viewer shows it, and the format."""

    image: Image.Image
    size: tuple[int, int]
    format: str


def open_reduced(file: ImageFile, side: int, max_pixels: int = MAX_PIXELS) -> Reduced:
    """Return what `open_image` does of a file, at a smaller size where its format decodes to one at less cost.

    Of JPEG that is a half, a quarter or an eighth, with no side below `side` pixels; all of the file is read, so that
    one that is cut is noticed as well. Raises `BadImage`.
    """
    try:
        return _reduced(file, side, max_pixels, AT_ONCE)
    except BadImage:  # to say of it what others do: how many bytes are missing depends on how many are read at a time
        return _reduced(file, side, max_pixels)


def _reduced(file: ImageFile, side: int, max_pixels: int, block: int = 0) -> Reduced:
    """Return `open_reduced`, with JPEG decoded `block` bytes at a time."""
    with _opened(file, max_pixels) as image:
        turn = orientation(image)
        upright = _upright_size(image, turn)
        image.draft(None, (side, side))
        if block and isinstance(image, JpegImageFile):
            image.decodermaxblock = block
        return Reduced(_upright_rgb(image, file, turn), upright, image.format or "")


def _upright_size(image: Image.Image, turn: int) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if turn >= 5 else (width, height)


def shown(image: Image.Image, name: str) -> Image.Image:
    """Return what `open_image` makes of a file, for an image that Pillow has opened, at its frame of now.

    `name` is for messages. The image is not changed, but that Pillow loads its pixels. Raises `BadImage`.
    """
    _check_header(image, name, PILLOW_PIXELS)
    if isinstance(image, LazyImage) and image.tile and image.fp is None:
        raise BadImage("was closed before its pixels were read", name)
    return _upright_rgb(image, name, orientation(image))


def _upright_rgb(image: Image.Image, file: object, turn: int) -> Image.Image:
    tiff_errors_begin()
    try:
        rgb = to_rgb(image, file)
        return rgb.transpose(UPRIGHT[turn]) if turn in UPRIGHT else rgb
    except BadImage:
        raise
    except OnlyHoles:
        raise BadImage("has no finite pixel", file) from None
    except Exception as e:  # Pillow's decoders raise whatever a broken file leads them to
        more = f"; {said}" if (said := tiff_error()) else ""
        raise BadImage(f"cannot be decoded ({one_line(e)}{more})", file) from None


def _check_header(image: Image.Image, file: object, max_pixels: int) -> None:
    if image.format == RUNS_A_PROGRAM:
        raise _a_program(file)
    if image.width * image.height > max_pixels:
        raise _too_large(file, max_pixels)
    if min(image.size) < 1:
        raise BadImage("has no pixels", file)


def _a_program(file: object) -> BadImage:
    return BadImage(f"{RUNS_A_PROGRAM} is no image but a program that draws one", file)


def _too_large(file: object, max_pixels: int) -> BadImage:
    return BadImage(f"has more than {max_pixels:,} pixels, the most that are decoded (config.data.max_pixels)", file)


def load_patches(
    file: ImageFile, rule: ImageRule, grid: tuple[int, int] | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Patches uint8 [h*w, patch_bytes] of an image file, at `grid` (h, w) or under `rule`, and the grid of `rule`.

    Raises `BadImage`.
    """
    if rule.mode == CODES and (codes := stored_codes(file, rule.vocabulary)) is not None:
        side = rule.size // rule.patch
        if codes.shape != (side, side):
            raise BadImage(
                f"holds {codes.shape[0]} x {codes.shape[1]} codes, not {side} x {side}; convert it again", file
            )
        return as_patches(codes), (side, side)
    if rule.mode == CODES and rule.coder is None:
        raise BadImage("is an image: make codes of the records by launch.prepare_data convert --config=...", file)
    return cut(open_pixels(file, rule, grid), rule, grid)


def cut(
    image: Image.Image | Pixels, rule: ImageRule, grid: tuple[int, int] | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """`load_patches` of an RGB image, or of its pixels; with a rule for codes, it has to have a `coder`."""
    image = Pixels.of(image)
    natural = rule.grid(*image.size)
    if rule.mode == CODES:
        return as_patches(made_codes(image, rule)), natural
    h, w = grid or natural
    return patchify(_at_size(image.rgb, rule, w * rule.patch, h * rule.patch), rule.patch), natural


def made_codes(image: Image.Image | Pixels, rule: ImageRule) -> np.ndarray:
    """The codes, int [h, w], of an RGB image, or of its pixels, by the `coder` of a rule."""
    assert rule.coder is not None
    return rule.coder(padded(Pixels.of(image).rgb, rule.size)[None])[0]


def resize(image: Image.Image, rule: ImageRule) -> np.ndarray:
    """The RGB `image` at the size of `rule`, uint8 [H, W, 3], by its filter, antialiased when it shrinks."""
    return _at_size(image, rule, *rule.resized(*image.size))


def _at_size(image: Image.Image | np.ndarray, rule: ImageRule, width: int, height: int) -> np.ndarray:
    return padded(image, width) if rule.mode in CANVASES else resampled(image, width, height, rule.filter)


def bicubic(image: Image.Image | np.ndarray, width: int, height: int) -> np.ndarray:
    """The RGB `image`, uint8 [H, W, 3] if it is an array, at another size, uint8 [height, width, 3]."""
    return resampled(image, width, height, "BICUBIC")


def resampled(image: Image.Image | np.ndarray, width: int, height: int, by: str) -> np.ndarray:
    """`bicubic`, by another filter of Pillow's."""
    if by == "BICUBIC":
        return resized(np.asarray(image), width, height)
    pillow = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    return np.asarray(pillow.resize((width, height), Image.Resampling[by]))


def patchify(rgb: np.ndarray, patch: int = PATCH) -> np.ndarray:
    """Cuts uint8 [H, W, 3] (sides multiples of `patch`) into patches uint8 [h*w, 3 patch^2], row by row.

    A patch holds its four blocks one after the other (top left, top right, bottom left, bottom right), each as
    (y, x, channel): [2, 2, patch / 2, patch / 2, 3] flattened.
    """
    sub = patch // 2
    h, w = rgb.shape[0] // patch, rgb.shape[1] // patch
    blocks = rgb.reshape(h, 2, sub, w, 2, sub, 3).transpose(0, 3, 1, 4, 2, 5, 6)
    return blocks.reshape(h * w, 3 * patch**2)


def unpatchify(patches: np.ndarray, h: int, w: int) -> np.ndarray:
    """The image uint8 [h * patch, w * patch, 3] whose patches uint8 [h*w, 3 patch^2] `patchify` made."""
    sub = math.isqrt(patches.shape[1] // 12)
    blocks = patches.reshape(h, w, 2, 2, sub, sub, 3).transpose(0, 2, 4, 1, 3, 5, 6)
    return blocks.reshape(h * 2 * sub, w * 2 * sub, 3)


@contextmanager
def _opened(file: ImageFile, max_pixels: int) -> Iterator[Image.Image]:
    with open_binary(file) as stream:
        yield _identified(stream, file, max_pixels)


def _identified(stream: BinaryIO, file: ImageFile, max_pixels: int) -> Image.Image:
    tiff_errors_begin()
    try:
        head = stream.read(4)
        if not head:
            raise BadImage("empty file", file)
        if head in EPS_STARTS:
            raise _a_program(file)
        stream.seek(0)
        image = Image.open(stream, formats=FORMATS)
        _check_header(image, file, max_pixels)
        return image
    except BadImage:
        raise
    except Image.DecompressionBombError:
        raise _too_large(file, max_pixels) from None
    except Image.UnidentifiedImageError:
        raise BadImage("not an image of a format that is read", file) from None
    except OSError as e:
        raise BadImage(f"cannot be read ({e.strerror or one_line(e)})", file) from None
    except Exception as e:  # a broken header, by any of the plug-ins
        raise BadImage(f"broken header ({one_line(e)})", file) from None
