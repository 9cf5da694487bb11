"""The two passes of `eve_jax.data.image.resample`, compiled by numba."""

import math

import numpy as np

from eve_jax.process.compiled import njit

BITS = 22  # binary places of the weights
HALF = 1 << (BITS - 1)
SUPPORT = 2.0  # of the bicubic filter, in pixels of the smaller image
CURVE = -0.5  # its parameter
ROWS = 16  # rows that a horizontal pass works on together
COLUMNS = 512  # values of a row that a vertical pass works on together


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
def across(values: np.ndarray, width: int) -> np.ndarray:
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
def down(values: np.ndarray, height: int) -> np.ndarray:
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
