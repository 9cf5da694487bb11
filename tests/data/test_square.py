"""EVEv1's preprocessing against golden set E: sizes, token counts and, to the byte, both 4-channel images."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eve_jax.data.image.patches import bicubic, patchify, resize, unpatchify
from eve_jax.data.image.rule import LARGEST, ImageRule
from eve_jax.data.image.square import CANVAS, on_canvas
from eve_jax.errors import UserError
from eve_jax.model.patch_embed import PIXEL_MEAN, PIXEL_STD

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "E_preprocess_v1.json").read_text())["images"]
SYNTHETIC = [name for name in GOLDEN if name.startswith("synth_")]


def rule(size: int) -> ImageRule:
    return ImageRule("square", max_size=size, patch=28)


def synthetic(name: str) -> Image.Image:
    width, height = map(int, name.removeprefix("synth_").split("x"))
    y, x, c = np.mgrid[:height, :width, :3]
    return Image.fromarray(((3 * x + 5 * y + 40 * c + 7 * ((x * y) // 16)) % 256).astype(np.uint8))


def digest(canvas: np.ndarray, box: tuple[int, int, int, int]) -> str:
    """sha256 of the original's tensor: normalized RGB and a mask of the box, float32 [4, S, S]."""
    pixels = ((canvas * (1 / 255)).astype(np.float32) - PIXEL_MEAN) / PIXEL_STD
    mask = np.zeros((*canvas.shape[:2], 1), np.float32)
    x1, y1, x2, y2 = box
    mask[y1:y2, x1:x2] = 1
    return hashlib.sha256(np.concatenate([pixels, mask], axis=2).transpose(2, 0, 1).tobytes()).hexdigest()


@pytest.mark.parametrize("size", [672, 1344])
@pytest.mark.parametrize("name", GOLDEN)
def test_sizes(name: str, size: int) -> None:
    expected = GOLDEN[name][f"train_{size}"]
    width, height = GOLDEN[name]["original_WH"]
    assert rule(size).resized(width, height) == tuple(expected["resized_WH"])
    h, w = rule(size).grid(width, height)
    assert [h, w] == expected["grid_hw"]
    assert 1 + h * (w + 1) == expected["n_image_tokens"]


@pytest.mark.parametrize("size", [672, 1344])
@pytest.mark.parametrize("name", SYNTHETIC)
def test_pixels(name: str, size: int) -> None:
    expected, image = GOLDEN[name][f"train_{size}"], synthetic(name)
    big = resize(image, rule(size))
    h, w = rule(size).grid(*image.size)
    assert np.array_equal(unpatchify(patchify(big, 28), h, w), big)
    canvas, box = on_canvas(big, size, size // 24)
    assert list(box) == expected["valid_box_x1y1x2y2"]
    assert digest(canvas, box) == expected["sha256_image"]
    small = bicubic(image, *(side * 336 // size for side in rule(size).resized(*image.size)))
    canvas, box = on_canvas(small, 336, 14)
    assert list(box) == expected["clip_valid_box_x1y1x2y2"]
    assert digest(canvas, box) == expected["sha256_image_clip"]
    assert CANVAS == (122, 116, 104)


def test_sizes_that_do_not_fit_the_teacher() -> None:
    with pytest.raises(UserError, match="not a multiple of the 24 patches"):
        ImageRule("square", max_size=700, patch=28)
    assert ImageRule("square", max_size=224, patch=28, teacher=(112, 14)).pool == 1
    for teacher in ((170, 14), (7, 14), (0, 14), (336, 0), (-28, -14)):
        with pytest.raises(
            UserError, match=rf"images of {teacher[0]} pixels are not a multiple of patches of {teacher[1]} pixels"
        ):
            ImageRule("square", patch=28, teacher=teacher)
    with pytest.raises(UserError, match="patch=27: expected an even number"):
        ImageRule(patch=27)


@pytest.mark.parametrize("mode", ["anyratio_ld", "anyratio_hd", "anyratio_maxl", "anyresolution", "square"])
def test_sizes_beyond_any_sense(mode: str) -> None:
    patch = 28 if mode == "square" else 32
    for size in (99_999_999, LARGEST + 1, 10**400):
        with pytest.raises(UserError, match=rf"^max_size=\d.*: expected 0 or .* at most {LARGEST}"):
            ImageRule(mode, max_size=size, patch=patch)
    largest = LARGEST // (24 * patch) * 24 * patch
    assert ImageRule(mode, max_size=largest, patch=patch).resized(largest, largest // 2)[0] <= 2 * largest
