"""What the first product on pixels has learned, as images."""

import math

import numpy as np

from eve_jax.checkpoint.adapters import without_adapters
from eve_jax.checkpoint.vision_copies import ParamSource
from eve_jax.model.eve import declared

ROWS, COLUMNS = 6, 16
GAP = 1  # pixels between filters


def filters_of(source: ParamSource) -> np.ndarray | None:
    """Return the first filters of the patch embedding, uint8 [n, s, s, 3], of the pixels' own order and colors.

    They are the first ones of the matrix that pixels are multiplied with, none chosen, each stretched to 0..255 around
    the gray of zero. None for a model without such a matrix.
    """
    source = without_adapters(source)
    for name, weight in declared(source.cfg).items():
        if name.startswith("patch_embed.") and weight.role == "matrix" and not weight.input_grad:
            if name not in source.shapes:
                continue
            kernel = next(iter(source.pieces(name))).astype(np.float32)
            blocked = kernel.shape[0] == source.cfg.patch_bytes and weight.group != "encoder"
            return _stretched(_pixels(kernel[:, : ROWS * COLUMNS].T, blocked))
    return None


def _pixels(rows: np.ndarray, blocked: bool) -> np.ndarray:
    """Rows [n, 3 s^2] as [n, s, s, 3]; `blocked`: pixels are in the order of a patch (`patchify`), by 2 x 2 blocks."""
    side = math.isqrt(rows.shape[1] // 3)
    if not blocked:
        return rows.reshape(-1, side, side, 3)
    half = side // 2
    return rows.reshape(-1, 2, 2, half, half, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, side, side, 3)


def _stretched(filters: np.ndarray) -> np.ndarray:
    most = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    scaled = 0.5 + 0.5 * filters / np.where(most > 0, most, 1)
    return np.round(255 * scaled).astype(np.uint8)


def sheet(filters: np.ndarray) -> np.ndarray:
    """Return the filters in rows of COLUMNS, white between them: uint8 [H, W, 3]."""
    count, side = len(filters), filters.shape[1]
    rows = -(-count // COLUMNS)
    size = side + GAP
    out = np.full((rows * size - GAP, COLUMNS * size - GAP, 3), 255, np.uint8)
    for number, one in enumerate(filters):
        y, x = number // COLUMNS * size, number % COLUMNS * size
        out[y : y + side, x : x + side] = one
    return out
