"""Bicubic resizing of RGB images: Pillow's values, to the bit, in about a fifth of its CPU time.

Pillow resizes in two passes. The weights of the pixels that a new pixel is made of are numbers of BITS binary places,
their sum is rounded to 8 bits after each pass, and a side that keeps its length has none. Which pass comes first
depends on Pillow's version, and changes the result by rounding. So a process compares a few small images with the
Pillow that is installed; where no known order gives its values, Pillow resizes. It also resizes a process's first few
images, since loading what numba compiled takes the CPU time of as many.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from threading import Lock

import numpy as np
from PIL import Image

from eve_jax.errors import warn
from eve_jax.process.compiled import njit

BITS = 22
HALF = 1 << (BITS - 1)
SUPPORT = 2.0  # of the bicubic filter, in pixels of the smaller image
CURVE = -0.5  # its parameter
ROWS = 16  # rows that a horizontal pass works on together
COLUMNS = 512  # values of a row that a vertical pass works on together

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
    """`resized` by the functions below, with the vertical pass first where `vertical_first` says so."""
    rows, columns = rgb.shape[:2]
    passes = [_across] * (width != columns)
    if height != rows:
        passes.insert(0 if vertical_first(columns, rows, width, height) else len(passes), _down)
    values = np.ascontiguousarray(rgb).reshape(rows, columns * 3)
    for one in passes:
        values = values.view()
        values.flags.writeable = False  # numba compiles for each type, and arrays by Pillow are like this
        values = one(values, width if one is _across else height)
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


@njit
def _weights(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the first old pixel of each of `new` ones, how many follow, and their weights, int32 [new, most]."""
    scale = old / new
    stretch = max(scale, 1.0)
    support = SUPPORT * stretch
    most = math.ceil(support) * 2 + 1
    first, number = np.zeros(new, np.int32), np.zeros(new, np.int32)
    weights, own = np.zeros((new, most), np.int32), np.zeros(most)
    for pixel in range(new):
        center = (pixel + 0.5) * scale
        start = max(int(center - support + 0.5), 0)
        end = min(int(center + support + 0.5), old)
        total = 0.0
        for k in range(end - start):
            x = abs((k + start - center + 0.5) * (1.0 / stretch))
            if x < 1.0:
                own[k] = ((CURVE + 2.0) * x - (CURVE + 3.0)) * x * x + 1
            elif x < 2.0:
                own[k] = (((x - 5) * x + 8) * x - 4) * CURVE
            else:
                own[k] = 0.0
            total += own[k]
        for k in range(end - start):
            share = own[k] / total if total != 0.0 else own[k]
            weights[pixel, k] = int(-0.5 + share * (1 << BITS)) if share < 0 else int(0.5 + share * (1 << BITS))
        first[pixel], number[pixel] = start, end - start
    return first, number, weights


@njit
def _across(values: np.ndarray, width: int) -> np.ndarray:
    """Return rows of pixels, uint8 [H, 3 W], at another width, [H, 3 width]."""
    height, old = values.shape[0], values.shape[1] // 3
    first, number, weights = _weights(old, width)
    lanes = ROWS * 3
    out = np.empty((height, width * 3), np.uint8)
    tile = np.empty((old, lanes), np.int16)  # a pixel's channels of ROWS rows: neighbors in memory are independent sums
    total = np.empty(lanes, np.int32)
    made = np.empty((width, lanes), np.uint8)
    for top in range(0, height, ROWS):
        rows = min(ROWS, height - top)
        for r in range(rows):
            row = values[top + r]
            for x in range(old):
                tile[x, r], tile[x, ROWS + r], tile[x, 2 * ROWS + r] = row[3 * x], row[3 * x + 1], row[3 * x + 2]
        for pixel in range(width):
            start = first[pixel]
            for i in range(lanes):
                total[i] = HALF
            for k in range(number[pixel]):
                weight, column = weights[pixel, k], tile[start + k]
                for i in range(lanes):
                    total[i] += np.int32(column[i]) * weight
            own = made[pixel]
            for i in range(lanes):
                own[i] = np.uint8(min(max(total[i] >> BITS, 0), 255))
        for r in range(rows):
            row = out[top + r]
            for x in range(width):
                row[3 * x], row[3 * x + 1], row[3 * x + 2] = made[x, r], made[x, ROWS + r], made[x, 2 * ROWS + r]
    return out


@njit
def _down(values: np.ndarray, height: int) -> np.ndarray:
    """Return columns of values, uint8 [H, N], at another height, [height, N]."""
    old, n = values.shape
    first, number, weights = _weights(old, height)
    out = np.empty((height, n), np.uint8)
    total = np.empty(COLUMNS, np.int32)
    for pixel in range(height):
        start = first[pixel]
        for left in range(0, n, COLUMNS):
            size = min(COLUMNS, n - left)
            for i in range(size):
                total[i] = HALF
            for k in range(number[pixel]):
                weight, row = weights[pixel, k], values[start + k, left : left + size]
                for i in range(size):
                    total[i] += np.int32(row[i]) * weight
            own = out[pixel, left : left + size]
            for i in range(size):
                own[i] = np.uint8(min(max(total[i] >> BITS, 0), 255))
    return out
