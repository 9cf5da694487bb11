"""Pixels of a picture as a viewer shows them: which way is up, and RGB of any mode."""

import numpy as np
from PIL import ExifTags, Image

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8 by the header; 1 for TIFF, which Pillow turns by itself."""
    if image.format == "TIFF":
        return 1
    try:
        exif = Image.Image.getexif(image)  # PngImageFile's own would decode the picture to look behind it
        value = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken EXIF block is no reason to lose the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of a picture of any mode; deep pixels are scaled to 8 bit, alpha is left away."""
    if image.mode.startswith("I") or image.mode == "F":  # 16 bit and more; Pillow would clip at 255
        deep = np.asarray(image).astype(np.float64)
        top = 65535.0 if image.mode.startswith("I") else (1.0 if deep.max(initial=0) <= 1 else 255.0)
        image = Image.fromarray(np.clip(deep * (255.0 / top) + 0.5, 0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:  # Pillow would warn, and make the same of it
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")
