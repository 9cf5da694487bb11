"""Records whose images take a core's time to decode without taking the core: Pillow's work is a sleep of its length.

A source for config.data.records=benchmarks.slow_images:SlowImages. So many threads and processes can be measured on few
cores; what is left is the work of this package, most of which holds Python's lock.
"""

import io
import time

import numpy as np

from eve_jax.data.image.patches import Pixels
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.image_file import ImageFile, StoredImage
from eve_jax.data.record import Fields, Record, Turn
from eve_jax.data.rows import build

DECODE = 1 / 44  # seconds: a JPEG of 1024x768 decoded and resized to 800^2, by `benchmarks.data_images`
SIDE = 800
_IMAGE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def _decoded(file: ImageFile, rule: ImageRule, grid: tuple[int, int] | None = None) -> Pixels:
    time.sleep(DECODE)
    return Pixels(_IMAGE, (SIDE, SIDE))


class SlowImages:
    """A caption of 100 words and an image each; see `eve_jax.data.record.Source`."""

    tables = None

    def __init__(self) -> None:
        build.open_pixels = _decoded

    def __len__(self) -> int:
        return 20_000

    def where(self, index: int) -> str:
        """Its number."""
        return f"slow images, {index}"

    def read(self, index: int) -> tuple[Record, Fields]:
        """Return record `index`."""
        image = StoredImage(f"{index}.png", io.BytesIO, (SIDE, SIDE))
        return Record(str(index), (image,), (Turn("gpt", "word " * 100),), self.where(index)), Fields()

    def fingerprint(self) -> str:
        """They never change."""
        return "slow images"
