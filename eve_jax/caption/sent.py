"""What is sent of an image: its file as it is, or a smaller JPEG where an endpoint would not take it so."""

import base64
import hashlib
import io
from dataclasses import dataclass
from functools import cached_property, partial

from PIL import Image

from eve_jax.caption.config import ImageConfig
from eve_jax.data.image.decode import orientation
from eve_jax.data.image.patches import FORMATS, open_image
from eve_jax.data.image_file import ImageFile, StoredImage, image_bytes

AS_THEY_ARE = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}  # formats that every endpoint reads
SHALLOW = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr")  # modes of 8 bits a channel
SMALLEST = 64  # pixels of the longer side: no image is shrunk to less


@dataclass(frozen=True)
class Sent:
    """An image file that is sent: its bytes, their media type, width and height in pixels."""

    data: bytes
    media_type: str
    size: tuple[int, int]

    @cached_property
    def digest(self) -> str:
        """The hash of the bytes."""
        return hashlib.blake2b(self.data, digest_size=16).hexdigest()

    def url(self) -> str:
        """Return the image as a data URL."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"


def prepare(file: ImageFile, config: ImageConfig) -> Sent:
    """Return what is sent of an image file, which is decoded: what is broken is found before it is paid for.

    A JPEG, PNG or WebP file that is upright, of one frame and 8 bits, and within the limits of `config`, is sent as it
    is; of any other, its RGB as JPEG. Raises BadImage, before decoding for one of too many pixels.
    """
    data = image_bytes(file)
    rgb = open_image(StoredImage(str(file), partial(io.BytesIO, data)), config.max_pixels)
    with Image.open(io.BytesIO(data), formats=FORMATS) as header:
        media_type = AS_THEY_ARE.get(header.format or "", "")
        one_frame = getattr(header, "n_frames", 1) == 1
        plain = media_type and one_frame and header.mode in SHALLOW and orientation(header) == 1
    side = config.max_side or max(rgb.size)
    if plain and max(rgb.size) <= side and len(data) <= config.max_bytes:
        return Sent(data, media_type, rgb.size)
    sent = _as_jpeg(rgb, side, config.quality)
    while len(sent.data) > config.max_bytes and max(sent.size) > SMALLEST:
        sent = _as_jpeg(rgb, max(max(sent.size) * 3 // 4, SMALLEST), config.quality)
    return sent


def shrink(sent: Sent, config: ImageConfig) -> Sent | None:
    """Return the image at half the size, for an endpoint that refuses it; None for one that is tiny."""
    if max(sent.size) <= SMALLEST:
        return None
    with Image.open(io.BytesIO(sent.data), formats=FORMATS) as image:
        rgb = image.convert("RGB")
    return _as_jpeg(rgb, max(max(sent.size) // 2, SMALLEST), config.quality)


def _as_jpeg(rgb: Image.Image, side: int, quality: int) -> Sent:
    if max(rgb.size) > side:
        scale = side / max(rgb.size)
        size = max(round(rgb.width * scale), 1), max(round(rgb.height * scale), 1)
        rgb = rgb.resize(size, Image.Resampling.BICUBIC)
    data = io.BytesIO()
    rgb.save(data, "JPEG", quality=quality)
    return Sent(data.getvalue(), "image/jpeg", rgb.size)
