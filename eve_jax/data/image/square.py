"""Square canvases: what EVEv1's teacher (docs/model.md#patch-aligning-layer) and a vision encoder see of an image
(docs/model.md#patch-embedding-by-a-vision-encoder)."""

import numpy as np
from PIL import Image

CANVAS = (122, 116, 104)  # CLIP's mean color
Box = tuple[int, int, int, int]  # x1, y1, x2, y2
LARGEST_SQUARE = 8192  # pixels along a side of a square that is filled before it is resized: 0.2 GB


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


def padded(image: Image.Image | np.ndarray, side: int) -> np.ndarray:
    """The RGB `image`, or its pixels, on a square of CLIP's mean color, resized to uint8 [side, side, 3] (LLaVA-1.5).

    The square has the longer side of the image, which is in its middle, an odd rest below or right. It is resized as
    a whole (bicubic), so that the image's edges blend with the color. Of images whose square would be larger
    than LARGEST_SQUARE the longer side is first reduced to that.
    """
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if max(image.size) > LARGEST_SQUARE:
        shrink = LARGEST_SQUARE / max(image.size)
        sizes = (max(round(length * shrink), 1) for length in image.size)
        image = image.resize(tuple(sizes), Image.Resampling.BICUBIC)  # type: ignore[arg-type]
    longer = max(image.size)
    square = Image.new("RGB", (longer, longer), CANVAS)
    square.paste(image, ((longer - image.width) // 2, (longer - image.height) // 2))
    return np.asarray(square.resize((side, side), Image.Resampling.BICUBIC))
