"""Image sizes and pixels against the golden set E; files as bad as they come."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file

from eve_jax.data.image import resample
from eve_jax.data.image.patches import open_image, patchify, resize
from eve_jax.data.image.rule import FITS, MODES, PATCH, ImageRule
from eve_jax.errors import UserError

GOLDEN_DIR = Path(__file__).parents[1] / "golden"
GOLDEN = json.loads((GOLDEN_DIR / "E_preprocess_v2.json").read_text())
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
SYNTHETIC = [name for name in GOLDEN["images"] if name.startswith("synth_")]
BY_SIZE = {800: "anyratio_ld", 1600: "anyratio_hd"}
UPSTREAM = {"train": "shrink", "infer": "fill"}


def upstream_rule(kind: str, max_size: int) -> ImageRule:
    return ImageRule(BY_SIZE[max_size], UPSTREAM[kind], max_aspect=0)


def synthetic(name: str) -> Image.Image:
    """The image that tests/golden/README.md#e-image-preprocessing defines by a formula."""
    width, height = map(int, name.removeprefix("synth_").split("x"))
    x, y, c = np.arange(width)[None, :, None], np.arange(height)[:, None, None], np.arange(3)[None, None]
    return Image.fromarray(((3 * x + 5 * y + 40 * c + 7 * ((x * y) // 16)) % 256).astype(np.uint8))


def normalised_chw(rgb: np.ndarray) -> np.ndarray:
    """float32 [3, H, W] as the model of upstream sees it."""
    scaled = (rgb * (1 / 255)).astype(np.float32)
    return np.ascontiguousarray(((scaled - MEAN) / STD).transpose(2, 0, 1))


@pytest.fixture(params=[0, 1 << 62], ids=["own", "pillow"])
def resizing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways in which images are resized."""
    monkeypatch.setattr(resample, "FEW", request.param)


def test_size_table() -> None:
    columns = GOLDEN["size_table_columns"]
    assert len(GOLDEN["size_table"]) == 229
    for row in GOLDEN["size_table"]:
        entry = dict(zip(columns, row, strict=True))
        for max_size in BY_SIZE:
            for kind in UPSTREAM:
                expected = entry[f"{kind}{max_size}_W"], entry[f"{kind}{max_size}_H"]
                assert upstream_rule(kind, max_size).resized(entry["W"], entry["H"]) == expected, (entry, kind)


def test_squares_that_float64_rounds_up() -> None:
    rule = upstream_rule("infer", 800)
    odd = [n for n in range(1, 4001) if rule.resized(n, n) != (800, 800)]
    assert odd == GOLDEN["square_sizes_not_800_at_inference_max800"]


@pytest.mark.parametrize("name", GOLDEN["images"])
def test_sizes_and_token_counts(name: str) -> None:
    golden = GOLDEN["images"][name]
    for kind in UPSTREAM:
        for max_size in BY_SIZE:
            expected = golden[f"{kind}_{max_size}"]
            rule = upstream_rule(kind, max_size)
            h, w = rule.grid(*golden["original_WH"])
            assert list(rule.resized(*golden["original_WH"])) == expected["resized_WH"]
            assert [h, w] == expected["grid_hw"]
            assert h * (w + 1) + 1 == expected["n_image_tokens"]


@pytest.mark.parametrize("name", SYNTHETIC)
def test_pixels(name: str, tmp_path: Path, resizing: None) -> None:
    golden = GOLDEN["images"][name]
    synthetic(name).save(tmp_path / golden["file"])
    image = open_image(tmp_path / golden["file"])
    assert hashlib.sha256(np.asarray(image).tobytes()).hexdigest() == golden["decoded_rgb_uint8_sha256"]
    for max_size in BY_SIZE:
        for kind in UPSTREAM:
            pixels = normalised_chw(resize(image, upstream_rule(kind, max_size)))
            expected = golden[f"{kind}_{max_size}"]
            assert list(pixels.shape) == expected["shape"]
            assert hashlib.sha256(pixels.tobytes()).hexdigest() == expected["sha256"], (kind, max_size)


def test_pixels_given_in_full(resizing: None) -> None:
    given_pixels = load_file(GOLDEN_DIR / "E_pixels_v2.safetensors")
    assert given_pixels
    for key, expected in given_pixels.items():
        name, setting = key.split(".")[:2]
        kind, max_size = setting.split("_")
        pixels = normalised_chw(resize(synthetic(name), upstream_rule(kind, int(max_size))))
        crop = pixels[:, : expected.shape[1], : expected.shape[2]]
        assert np.array_equal(crop, expected), key


def test_patch_layout() -> None:
    rgb = np.arange(64 * 96 * 3, dtype=np.uint32).reshape(64, 96, 3)
    patches = patchify(rgb.astype(np.uint8))
    assert patches.shape == (6, 3072)
    assert patches.dtype == np.uint8
    for row, column in [(0, 0), (0, 2), (1, 1)]:
        block = rgb[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32].astype(np.uint8)
        sub = patches[row * 3 + column].reshape(4, 16, 16, 3)
        for n, (y, x) in enumerate([(0, 0), (0, 16), (16, 0), (16, 16)]):
            assert np.array_equal(sub[n], block[y : y + 16, x : x + 16])


@given(
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    st.sampled_from([mode for mode in MODES if mode.startswith("any")]),
    st.sampled_from(FITS),
    st.sampled_from([0, 320, 800]),
)
def test_every_size_is_within_the_budget(width: int, height: int, mode: str, fit: str, max_size: int) -> None:
    rule = ImageRule(mode, fit, max_size, max_aspect=8)
    w, h = rule.resized(width, height)
    assert w % PATCH == h % PATCH == 0
    assert min(w, h) >= PATCH
    limit = max_size or MODES[mode]
    if mode == "anyratio_maxl":
        assert max(w, h) <= limit
    else:  # each side is rounded by less than one patch
        side = limit / PATCH
        assert (w // PATCH) * (h // PATCH) <= side**2 + side * (8**0.5 + 8**-0.5) + 1
    assert rule.resized(height, width) == (h, w)


def test_modes() -> None:
    assert ImageRule("anyratio_maxl").resized(1600, 1200) == (800, 608)
    assert ImageRule("anyratio_maxl").resized(400, 300) == (384, 288)
    assert ImageRule("anyratio_maxl", "fill").resized(400, 300) == (800, 608)
    assert ImageRule("anyresolution").resized(640, 480) == (640, 480)
    assert ImageRule("anyresolution", "fill").resized(640, 480) == (640, 480)
    assert ImageRule("anyresolution").resized(3200, 3200) == (1600, 1600)
    assert ImageRule("anyresolution", max_size=320).resized(640, 640) == (320, 320)


def test_extreme_ratio_is_squeezed() -> None:
    assert ImageRule("anyratio_ld", "fill", max_aspect=0).grid(10_000, 20) == (2, 560)
    h, w = ImageRule("anyratio_ld", "fill", max_aspect=8).grid(10_000, 20)
    assert (h, w) == (9, 71)
    assert ImageRule("anyratio_ld", "fill", max_aspect=8).grid(20, 10_000) == (w, h)
    assert ImageRule("anyratio_ld", max_aspect=8).grid(800, 100) == ImageRule("anyratio_ld", max_aspect=0).grid(
        800, 100
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "anyratio"}, "mode: 'anyratio' is not one of anyratio_ld"),
        ({"fit": "crop"}, "fit: 'crop' is not one of shrink, fill"),
        ({"max_size": 31}, "max_size=31: expected 0 or a number of pixels"),
        ({"max_aspect": 0.5}, "max_aspect=0.5: expected"),
        ({"patch": 27}, "patch=27: expected an even number"),
        ({"mode": "square", "patch": 28, "teacher": (170, 14)}, "teacher: images of 170 pixels"),
        ({"mode": "square", "patch": 28, "max_size": 700}, "max_size: 700 pixels .* times patch=28"),
    ],
)
def test_bad_settings_are_called_as_they_were_given(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=rf"^{message}"):
        ImageRule(**settings)
    given = {"image_mode": "anyratio_hd", "max_size": 0, "max_aspect": 8.0} | settings
    given |= {"image_mode": settings.get("mode", "anyratio_hd")}
    fields = re.sub(r"^mode", "image_mode", message).replace("times patch", r"times config\.data\.patch")
    with pytest.raises(UserError, match=rf"^config\.data\.{fields}"):
        ImageRule.of(given)
