"""Images as the engine takes them, and an LRU of them by the bytes that they were decoded from."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from eve_jax.data.image.patches import cut, patchify, resize
from eve_jax.data.image.rule import CODES, ImageRule


@dataclass(frozen=True)
class Patches:
    """A resized image cut into patches (of pixels, or of codes): uint8 [h w, B], and its grid (h, w)."""

    pixels: np.ndarray
    grid: tuple[int, int]

    @classmethod
    def of(cls, image: Image.Image, rule: ImageRule) -> "Patches":
        """`image`, RGB and upright, resized by `rule`."""
        if rule.mode == CODES:
            pixels, codes_grid = cut(image, rule)
            return cls(pixels, codes_grid)
        resized = resize(image, rule)
        grid = resized.shape[0] // rule.patch, resized.shape[1] // rule.patch
        return cls(patchify(resized, rule.patch), grid)


class ImageCache:
    """Patches of images, up to `most_bytes`; those that were not asked for longest go first. Safe for threads.

    `queries` and `hits` count calls of `get`.
    """

    def __init__(self, most_bytes: int):
        self.most_bytes, self.bytes = most_bytes, 0
        self.queries = self.hits = 0
        self._kept: OrderedDict[Hashable, Patches] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, raw: bytes, rule: ImageRule, decode: Callable[[bytes], Image.Image]) -> Patches:
        """The patches of the image that `raw` holds, decoded and resized by `rule` unless they are there.

        What `decode` raises passes through; nothing is kept of it.
        """
        key = hashlib.sha256(raw).digest(), rule
        with self._lock:
            self.queries += 1
            if key in self._kept:
                self.hits += 1
                self._kept.move_to_end(key)
                return self._kept[key]
        made = Patches.of(decode(raw), rule)
        with self._lock:
            if key not in self._kept and made.pixels.nbytes <= self.most_bytes:
                self._kept[key] = made
                self.bytes += made.pixels.nbytes
            while self.bytes > self.most_bytes:
                self.bytes -= self._kept.popitem(last=False)[1].pixels.nbytes
        return made
