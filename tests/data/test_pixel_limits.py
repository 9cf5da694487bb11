"""Limits of pixels: what is not decoded, and what decoding costs."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eve_jax.data.image.decode import WHITES, eight_bits
from eve_jax.data.image.patches import FORMATS, image_size, load_patches, open_image
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.image_file import BadImage
from eve_jax.errors import UserError

ROOT = Path(__file__).parents[2]


def test_large_images_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (101, 100)).save(path)
    rule = ImageRule(max_pixels=10_100)
    assert load_patches(path, rule)[1] == (3, 3)
    monkeypatch.setattr("eve_jax.data.image.patches.to_rgb", lambda *_: pytest.fail("decoded"))
    for use in (lambda: load_patches(path, ImageRule(max_pixels=10_099)), lambda: image_size(path, 10_099)):
        with pytest.raises(BadImage, match=r"has more than 10,099 pixels, .* \(config\.data\.max_pixels\)"):
            use()
    with pytest.raises(UserError, match="max_pixels"):
        ImageRule(max_pixels=178_956_971)


def test_other_plugins_are_not_asked(tmp_path: Path) -> None:
    Image.init()
    saved = 0
    for kind in sorted(set(Image.SAVE) - set(FORMATS) - {"MPO", "EPS", "PDF"}):
        file = io.BytesIO()
        for mode in ("RGB", "L", "1", "P"):
            try:
                Image.new(mode, (16, 16)).save(file, kind)
                break
            except (OSError, ValueError, KeyError, TypeError):
                continue
        if not file.tell():
            continue
        (tmp_path / "a").write_bytes(file.getvalue())
        with pytest.raises(BadImage, match="not an image of a format that is read"):
            open_image(tmp_path / "a")
        saved += 1
    assert saved > 5


def whole(values: np.ndarray, no_data: float | None, inverted: bool, scale: float | None) -> np.ndarray:
    """What `eight_bits` computes piece by piece, from all values at once in float64."""
    given = values * scale if scale is not None else values
    deep = given.astype(np.float64)
    seen = np.isfinite(deep)
    if no_data is not None:
        seen &= given != no_data
    known = deep[seen]
    left_out = int(known.size * 0.001)
    ordered = np.sort(known)
    low, high = float(ordered[left_out]), float(ordered[-1 - left_out]) or float(known.max())
    white = next((w for w in (WHITES if given.dtype.kind == "f" else WHITES[1:]) if w >= high), None)
    if low >= 0 and white is not None and (high >= white / 16 or high == 0):
        low, high = 0.0, white
    scaled = (deep - low) * (255.0 / (high - low)) if high > low else np.full(deep.shape, 127.5)
    return np.where(seen, np.clip(255 - scaled if inverted else scaled, 0, 255) + 0.5, 0).astype(np.uint8)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.float32])
@pytest.mark.parametrize("inverted", [False, True])
def test_pieces_give_the_same_pixels(kind: type, inverted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eve_jax.data.image.decode.BLOCK", 700)
    rng = np.random.default_rng(0)
    for shape, most in (((31, 57), 100), ((40, 50, 3), 100), ((9, 200), 5)):
        values: np.ndarray = (rng.random(shape) * most).astype(kind)
        if kind is np.float32:
            values[0, :3], values[1, 0] = np.nan, np.inf
        cases: tuple[tuple[float | None, float | None], ...] = ((None, None), (3, None))
        if kind is np.uint16:
            cases += ((None, 65535 / 255), (None, 1.0), (None, 0.37))
        for no_data, scale in cases:
            got = eight_bits(values, no_data, inverted, scale)
            assert np.array_equal(got, whole(values, no_data, inverted, scale))


MEMORY = """
import resource, sys
from eve_jax.data.image.patches import open_image
open_image(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
open_image(sys.argv[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize(("mode", "most"), [("I;16", 16), ("RGB;16", 30)])
def test_what_deep_pixels_cost(mode: str, most: int, tmp_path: Path) -> None:
    """The peak above that of a small image, in bytes a pixel: 45 and 148 where they became float64 as a whole."""
    for name, side in (("small", 64), ("large", 2500)):
        if mode == "I;16":
            Image.new(mode, (side, side), 30_000).save(tmp_path / f"{name}.png")
        else:
            (tmp_path / f"{name}.png").write_bytes(b"P6 %d %d 65535\n" % (side, side) + b"\x75\x30" * (side * side * 3))
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "small.png"), str(tmp_path / "large.png")]
    used = int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert used < most * 2500**2
