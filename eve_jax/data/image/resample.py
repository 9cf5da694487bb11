"""Bicubic resizing of RGB images: Pillow's values, to the bit, in about a fifth of its CPU time.

Pillow resizes in two passes. The weights of the pixels that a new pixel is made of are numbers of 22 binary places,
their sum is rounded to 8 bits after each pass, and a side that keeps its length has none. Which pass comes first
depends on Pillow's version, and changes the result by rounding. So a process compares a few small images with the
Pillow that is installed; where no known order gives its values, Pillow resizes. It also resizes a process's first few
images, since loading what numba compiled takes the CPU time of as many.
"""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from threading import Lock

import numpy as np
from PIL import Image

from eve_jax.errors import warn

Order = Callable[[int, int, int, int], bool]
FEW = 24  # images of a process that Pillow resizes: loading takes 0.4 s of CPU time once it is compiled
_one_at_a_time = Lock()
_images = count()


def resized(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return `rgb`, uint8 [H, W, 3], at another size, uint8 [height, width, 3]; bicubic, antialiased when it shrinks.

    Values are those of `PIL.Image.resize`. Safe for threads, which it does not hold up.
    """
    if next(_images) < FEW:
        return by_pillow(rgb, width, height)
    with _one_at_a_time:
        vertical_first = _order()
    return by_pillow(rgb, width, height) if vertical_first is None else by_passes(rgb, width, height, vertical_first)


def by_pillow(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """`resized` by Pillow."""
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


def by_passes(rgb: np.ndarray, width: int, height: int, vertical_first: Order) -> np.ndarray:
    """`resized` by passes of our own, the vertical one first where `vertical_first` returns True."""
    from eve_jax.data.image.resample_passes import across, down  # with them numba, which takes a second to import

    rows, columns = rgb.shape[:2]
    passes = [across] * (width != columns)
    if height != rows:
        passes.insert(0 if vertical_first(columns, rows, width, height) else len(passes), down)
    values = np.ascontiguousarray(rgb).reshape(rows, columns * 3)
    for one in passes:
        values = values.view()
        values.flags.writeable = False  # numba compiles for each type, and arrays by Pillow are like this
        values = one(values, width if one is across else height)
    return values.reshape(height, width, 3)


def _shorter_first(width: int, height: int, new_width: int, new_height: int) -> bool:
    """Whether Pillow 13 begins with the vertical pass."""
    return new_height < height and height - new_height > 2 * (width - new_width)


def _never(width: int, height: int, new_width: int, new_height: int) -> bool:
    """Whether Pillow up to version 12 begins with the vertical pass."""
    return False


ORDERS: tuple[Order, ...] = (_shorter_first, _never)


@cache
def _order() -> Order | None:
    """Return the order of passes that gives the values of the installed Pillow, None where none of those known does."""
    found = order_of(by_pillow)
    if found is None:
        warn("this version of Pillow resizes by other arithmetic than is known here: images take more CPU time")
    return found


def order_of(pillow: Callable[[np.ndarray, int, int], np.ndarray]) -> Order | None:
    """Return the first of ORDERS that gives the values of `pillow`, a function as `resized`, on a few small images."""
    known = [(rgb, size, pillow(rgb, *size)) for rgb, size in _samples()]
    for order in ORDERS:
        if all(np.array_equal(by_passes(rgb, *size, order), theirs) for rgb, size, theirs in known):
            return order
    return None


def _samples() -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Images of noise and of edges, and sizes for them: smaller, larger, of one side, near where orders change."""
    for number, (width, height, *size) in enumerate(
        (
            (40, 40, 32, 24),  # 16 rows less, 8 columns less: the last where Pillow 13 begins with the columns' pass
            (40, 41, 32, 24),  # one row more
            (33, 90, 32, 28),
            (90, 33, 28, 32),
            (24, 40, 32, 32),  # larger and smaller
            (40, 24, 32, 32),
            (20, 13, 64, 32),
            (200, 150, 32, 24),
            (64, 31, 64, 64),
            (31, 64, 64, 64),
            (1, 1, 32, 32),
        )
    ):
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        yield (noise if number % 2 else np.where(noise > 127, 255, 0).astype(np.uint8)), (size[0], size[1])
