"""Images as grids of codes of a vision tokenizer (docs/model.md#patch-embedding-by-codes).

A grid is kept as a PNG file of 16-bit gray, a pixel for each code, with the digest of its tokenizer as a text in it.
In rows a code is a patch of 2 bytes, the lower one first.
"""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from eve_jax.data.image_file import BadImage, ImageFile, image_bytes
from eve_jax.process.files import read_blocks

Coder = Callable[[np.ndarray], np.ndarray]  # uint8 [B, S, S, 3] -> int [B, h, w]
CODE_BYTES = 2  # of a code in a row
MARK = "eve_jax codes"  # key of the text in a PNG file
PNG_START = b"\x89PNG"


def digest_of_tokenizer(folder: Path) -> str:
    """Return a hash of the files of the vision tokenizer in `folder`. Raises UserError when there are none."""
    digest = hashlib.blake2b(digest_size=16)
    for file in (folder / "config.json", *sorted(folder.glob("*.safetensors"))):
        digest.update(file.name.encode() + b"\0")
        for block in read_blocks(file):
            digest.update(block)
    return digest.hexdigest()


def codes_file(codes: np.ndarray, digest: str) -> bytes:
    """Return the PNG file of a grid of codes, int [h, w] of 0 to 65535, of the tokenizer with the `digest`."""
    info = PngImagePlugin.PngInfo()
    info.add_text(MARK, digest)
    stream = io.BytesIO()
    Image.fromarray(codes.astype(np.uint16)).save(stream, "png", pnginfo=info)
    return stream.getvalue()


def stored_codes(file: ImageFile, digest: str) -> np.ndarray | None:
    """Return the codes, uint16 [h, w], in an image file; None for a file that holds an image.

    Raises `BadImage` for codes of another tokenizer than the one with the `digest`.
    """
    data = image_bytes(file)
    if not data.startswith(PNG_START) or MARK.encode() not in data[:512]:
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            found, codes = image.text.get(MARK), np.array(image)  # type: ignore[attr-defined]
    except (OSError, ValueError, SyntaxError) as error:
        raise BadImage(f"cannot be decoded ({error})", file) from None
    if found != digest:
        raise BadImage(
            "holds codes of another vision tokenizer than config.data.vision_tokenizer; convert it again", file
        )
    return codes.astype(np.uint16)


def refuse_codes(image: Image.Image, file: object) -> None:
    """Raise `BadImage` for an image that Pillow has opened from a file of codes, whose pixels are none."""
    if MARK in image.info:
        raise BadImage("holds codes of a vision tokenizer, not an image; name the images that they were made of", file)


def as_patches(codes: np.ndarray) -> np.ndarray:
    """Return codes [h, w] as patches, uint8 [h * w, 2]."""
    return codes.astype("<u2").reshape(-1, 1).view(np.uint8)


def as_codes(patches: np.ndarray) -> np.ndarray:
    """Return the codes, uint16 [n], of patches uint8 [n, 2]."""
    return np.ascontiguousarray(patches).view("<u2").reshape(-1)
