"""EVEv1's square canvas: what its teacher sees of an image (docs/model.md#patch-aligning-layer)."""

import numpy as np

CANVAS = (122, 116, 104)  # CLIP's mean color
Box = tuple[int, int, int, int]  # x1, y1, x2, y2


def on_canvas(rgb: np.ndarray, side: int, step: int) -> tuple[np.ndarray, Box]:
    """An image uint8 [H, W, 3] whose longer side is `side`, in the middle of a square, uint8 [side, side, 3]; its box.

    Its place along the shorter side is a multiple of `step` pixels, as its size is; what is left over is behind it.
    """
    height, width = rgb.shape[:2]
    y, x = ((side - length) // step // 2 * step for length in (height, width))
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:] = CANVAS
    canvas[y : y + height, x : x + width] = rgb
    return canvas, (x, y, x + width, y + height)
