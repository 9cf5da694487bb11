"""Decoded images by their bytes: made once, forgotten by use, and taken by EVE as they are."""

import io

import numpy as np
import pytest
from PIL import Image

from eve_jax import EVE
from eve_jax.data.image.rule import ImageRule
from eve_jax.infer.image_cache import ImageCache, Patches

RULE = ImageRule()
SIZE = 4 * 3072  # bytes of 64 x 64 pixels


def encoded(color: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (color, 0, 0)).save(file, "PNG")
    return file.getvalue()


def decode(raw: bytes) -> Image.Image:
    return Image.open(io.BytesIO(raw)).convert("RGB")


def test_an_image_is_decoded_once_for_a_rule():
    cache = ImageCache(2 * SIZE)
    made: list[bytes] = []

    def counting(raw: bytes) -> Image.Image:
        made.append(raw)
        return decode(raw)

    red, dark, black = encoded(255), encoded(9), encoded(0)
    first = cache.get(red, RULE, counting)
    assert first.grid == (2, 2) and first.pixels.shape == (4, 3072)
    assert cache.get(red, RULE, counting) is first
    cache.get(dark, RULE, counting)
    cache.get(red, RULE, counting)
    cache.get(black, RULE, counting)  # the dark one goes
    cache.get(red, RULE, counting)
    cache.get(dark, RULE, counting)
    assert made == [red, dark, black, dark]
    assert (cache.queries, cache.hits, cache.bytes) == (7, 3, 2 * SIZE)
    cache.get(dark, ImageRule("anyratio_ld"), counting)
    assert len(made) == 5


def test_what_cannot_be_decoded_or_kept():
    cache = ImageCache(SIZE - 1)
    with pytest.raises(OSError):
        cache.get(b"none", RULE, decode)
    cache.get(encoded(1), RULE, decode)
    assert (cache.queries, cache.hits, cache.bytes) == (2, 0, 0)


def test_eve_takes_patches_as_they_are(eve: EVE) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 40, 3), np.uint8))
    cut = Patches.of(image, eve.rule.images)
    for given in (cut, [cut]):
        prompt = eve.prompt("What is it?", given)
        expected = eve.prompt("What is it?", image)
        np.testing.assert_array_equal(prompt.patches[0], expected.patches[0])
        assert prompt.grids == expected.grids and prompt.ids.tolist() == expected.ids.tolist()
