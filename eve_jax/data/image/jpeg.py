"""JPEG files decoded by simplejpeg, where it is installed (the extra `jpeg`) and has Pillow's pixels.

Both are libjpeg-turbo; simplejpeg makes an array at once. A file that it does not decode without a warning is left to
Pillow, so that what becomes of broken files does not depend on it.
"""

import importlib.util
import io
from collections.abc import Iterator
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from eve_jax.errors import warn

is_wanted = True  # False: as if it were not installed, for comparisons
_one_at_a_time = Lock()


def decoded(image: Image.Image) -> np.ndarray | None:
    """Return the RGB of an opened JPEG file at the size of `image`, as it is stored, uint8 [H, W, 3].

    The size may be one of `Image.draft`. None where Pillow is to decode it: simplejpeg is not installed, or has other
    pixels, which is said once; the file is not one of RGB, has several images, is loaded already, or is broken.
    """
    if not is_wanted or image.format != "JPEG" or image.mode != "RGB" or not getattr(image, "tile", ()):
        return None
    with _one_at_a_time:
        if not _is_usable():
            return None
    stream: Any = image.fp  # type: ignore[attr-defined]
    try:
        stream.seek(0)
        return by_simplejpeg(stream.read(), *image.size)
    except Exception:  # of the file or of its source: Pillow meets it again and says what it is
        return None


def by_simplejpeg(data: bytes, width: int, height: int) -> np.ndarray | None:
    """Return the RGB of a JPEG file at a size that it decodes to, uint8 [height, width, 3]; None for another size.

    Raises what simplejpeg does for a file that it would not decode without a warning.
    """
    import simplejpeg

    rgb: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    return rgb if rgb.shape == (height, width, 3) else None


@cache
def _is_usable() -> bool:
    """Return whether simplejpeg is installed and decodes a few small files as Pillow does; warns where it does not."""
    if importlib.util.find_spec("simplejpeg") is None:
        return False
    if all(is_equal(data, part) for data in _samples() for part in (1, 2, 8)):
        return True
    warn("simplejpeg decodes to other pixels than this version of Pillow and is not used; install both anew")
    return False


def is_equal(data: bytes, part: int) -> bool:
    """Return whether simplejpeg decodes a JPEG file to Pillow's pixels, at 1/`part` of its size."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.draft(None, (image.width // part, image.height // part))
        found = by_simplejpeg(data, *image.size)
        return found is not None and np.array_equal(found, np.asarray(image))


def _samples() -> Iterator[bytes]:
    """Small files of smooth and of sharp colors, by the ways in which JPEG stores colors."""
    for number, (subsampling, progressive) in enumerate([(0, False), (1, False), (2, False), (2, True)]):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).resize((75, 51), Image.Resampling.BICUBIC)
        image = np.asarray(coarse).copy()
        image[:16, :20] = rng.integers(0, 256, (16, 20, 3), np.uint8)
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=85, subsampling=subsampling, progressive=progressive)
        yield stream.getvalue()
