"""RGB of every mode, depth and range that Pillow opens, by the rule of docs/data.md."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eve_jax.data.image.decode import DEEP_MODES, OnlyHoles, eight_bits, to_rgb
from eve_jax.data.image.patches import open_image
from eve_jax.data.image_file import BadImage

NAN, INF = float("nan"), float("inf")


def one(mode: str, pixel: Any, size: tuple[int, int] = (2, 1)) -> Any:
    """The RGB of the first pixel of an image of one color."""
    return to_rgb(Image.new(mode, size, pixel)).getpixel((0, 0))


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("1", 0, (0, 0, 0)),
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 3), (77, 77, 77)),
        ("La", (50, 128), (99, 99, 99)),
        ("RGB", (9, 8, 7), (9, 8, 7)),
        ("RGBA", (9, 8, 7, 0), (9, 8, 7)),
        ("RGBa", (50, 25, 0, 128), (99, 49, 0)),
        ("RGBX", (9, 8, 7, 6), (9, 8, 7)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("YCbCr", (76, 85, 255), (254, 0, 0)),
        ("LAB", (128, 128, 128), (119, 119, 119)),
        ("HSV", (85, 255, 200), (0, 200, 0)),
        ("I", 40_000, (156, 156, 156)),
        ("I;16", 40_000, (156, 156, 156)),
        ("I;16B", 40_000, (156, 156, 156)),
        ("I;16L", 40_000, (156, 156, 156)),
        ("I;16N", 40_000, (156, 156, 156)),
        ("F", 0.25, (64, 64, 64)),
    ],
)
def test_modes(mode: str, pixel: Any, expected: tuple[int, int, int]) -> None:
    assert one(mode, pixel) == expected


def test_every_mode_is_tested_or_a_palette() -> None:
    tested = {mark.args[1][i][0] for mark in test_modes.pytestmark for i in range(len(mark.args[1]))}
    assert tested | {"P", "PA"} == set(Image.MODES) and set(DEEP_MODES) <= tested


@pytest.mark.parametrize("transparency", [None, 1, bytes([0, 128, 255])])
@pytest.mark.parametrize("mode", ["P", "PA"])
def test_palettes(mode: str, transparency: Any) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    image = image.convert(mode) if mode == "PA" else image
    if transparency is not None:
        image.info["transparency"] = transparency
    assert np.asarray(to_rgb(image)).tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]


@pytest.mark.parametrize(("colors", "lacking"), [(0, 0), (1, 1), (2, 2), (3, None), (4, None)])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TGA", "GIF"])
def test_a_palette_without_the_colors_of_pixels(kind: str, colors: int, lacking: int | None) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette(bytes(range(9)))
    image.putdata([0, 1, 2])
    stream = io.BytesIO()
    image.save(stream, kind)
    opened: Any = Image.open(stream)
    opened.load()
    opened.putpalette(bytes(range(3 * colors)))
    if lacking is None:
        assert np.asarray(to_rgb(opened)).tolist() == [[[0, 1, 2], [3, 4, 5], [6, 7, 8]]]
        return
    with pytest.raises(BadImage, match=f"has pixels of the color {lacking} of a palette of {colors} colors"):
        to_rgb(opened)
    opened.info["transparency"] = 2
    if colors == 2:  # a pixel that is not seen has any color
        assert np.asarray(to_rgb(opened)).tolist()[0][:2] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_png_without_its_palette_is_bad(bits: int, tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(tmp_path / "a.png", bits=bits)
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"PLTE") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    (tmp_path / "a.png").write_bytes(data[:start] + data[end:])
    with pytest.raises(BadImage, match="has pixels of the color 1 of a palette of 0 colors; write it anew"):
        to_rgb(Image.open(tmp_path / "a.png"), "a.png")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),  # 8 bits in a deep container
        ([0, 300, 1023], [0, 75, 255]),
        ([0, 2048, 4095], [0, 128, 255]),  # 12 bits
        ([0, 3000], [0, 187]),
        ([0, 16383], [0, 255]),
        ([0, 16384, 40_000, 65535], [0, 64, 156, 255]),
        ([0, 70_000, 140_000], [0, 128, 255]),  # above 16 bits: its own range
        ([-1000, 0, 3000], [0, 64, 255]),  # CT
        ([0, 1], [0, 255]),  # a mask
        ([0, 5, 10], [0, 128, 255]),
        ([7, 7], [128, 128]),  # too dark for any range, and no range of its own
        ([-7, -7], [128, 128]),
        ([0, 0], [0, 0]),
        ([255, 255], [255, 255]),
    ],
)
def test_ranges_of_integers(values: list[int], expected: list[int]) -> None:
    assert eight_bits(np.array([values], np.int32))[0].tolist() == expected
    if min(values) >= 0 and max(values) <= 65535:
        for kind in ("<u2", ">u2"):
            assert eight_bits(np.array([values], kind))[0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.25, 1], [0, 64, 255]),
        ([0, 0.1], [0, 26]),
        ([0, 100, 255], [0, 100, 255]),
        ([0, 40_000, 65535], [0, 156, 255]),
        ([0, 2.5, 5], [0, 128, 255]),  # depth in meters
        ([-0.04, 0.5, 1.04], [0, 128, 255]),  # resampled
        ([0, 1e-4], [0, 255]),
        ([-1, 0, 1], [0, 128, 255]),
        ([1e6, 2e6], [0, 255]),
        ([0.5, 0.5], [128, 128]),
        ([5.0, 5.0], [128, 128]),
        ([0, 0], [0, 0]),
        ([1, 1], [255, 255]),
        ([NAN, 0.5, 1], [0, 128, 255]),
        ([0.5, INF, 1], [128, 0, 255]),
        ([0, -INF, NAN, INF, 200], [0, 0, 0, 0, 200]),
        ([NAN, 0.3], [0, 77]),
    ],
)
def test_ranges_of_floats(values: list[float], expected: list[int]) -> None:
    assert eight_bits(np.array([values], np.float32))[0].tolist() == expected


def test_outliers_of_a_float_image_do_not_set_its_range() -> None:
    values = np.tile(np.linspace(0, 1, 100, dtype=np.float32), (50, 1))
    plain = eight_bits(values)
    for outlier in (1e6, 70.0, -1e30):
        spoilt = values.copy()
        spoilt[3, 50] = outlier
        got = eight_bits(spoilt)
        got[3, 50] = plain[3, 50]
        np.testing.assert_array_equal(got, plain)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.uint32])
def test_a_hot_pixel_of_integers_does_not_set_their_range(kind: Any) -> None:
    values = np.tile(np.linspace(0, 4000, 100).astype(kind), (50, 1))
    plain = eight_bits(values)
    assert plain.max() == 249  # of 4000 / 4095
    spoilt = values.copy()
    spoilt[3, 50] = 65535
    got = eight_bits(spoilt)
    assert got[3, 50] == 255
    got[3, 50] = plain[3, 50]
    np.testing.assert_array_equal(got, plain)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_a_tiny_object_of_a_mask_is_no_outlier(kind: Any) -> None:
    mask = np.zeros((100, 100), kind)
    mask[3, 4] = 1
    assert np.argwhere(eight_bits(mask) == 255).tolist() == [[3, 4]]


@pytest.mark.parametrize("values", [[NAN, NAN], [INF, -INF, NAN], [-9999.0, NAN]])
def test_holes_alone(values: list[float]) -> None:
    with pytest.raises(OnlyHoles):
        eight_bits(np.array([values], np.float32), no_data=-9999)


def saved(path: Path, values: np.ndarray, **options: Any) -> np.ndarray:
    """Gray of the image that a file of `values` shows."""
    Image.fromarray(values).save(path, **options)
    shown = np.asarray(open_image(path))
    assert (shown == shown[..., :1]).all()
    return shown[..., 0]


@pytest.mark.parametrize("compression", [None, "tiff_deflate"])
def test_tiff(tmp_path: Path, compression: str | None) -> None:
    """A few NaN leave the rest as it is; GDAL's missing values; inverted tones; unsigned and signed integers."""
    path, options = tmp_path / "a.tiff", {"compression": compression}
    depth = np.tile(np.linspace(0, 1, 96, dtype=np.float32), (64, 1))
    whole = saved(path, depth, **options)
    assert abs(whole.mean() - 127.5) < 1
    holes = depth.copy()
    holes[10:14, 10:14] = np.nan
    shown = saved(path, holes, **options)
    assert not shown[10:14, 10:14].any()
    assert (shown == whole)[np.isfinite(holes)].all()

    holes[10:14, 10:14] = -9999
    shown = saved(path, holes, tiffinfo={42113: "-9999"}, **options)
    assert not shown[10:14, 10:14].any()
    assert (shown == whole)[holes >= 0].all()

    deep = np.array([[0, 16384, 65535]], np.uint16)
    assert saved(path, deep, **options)[0].tolist() == [0, 64, 255]
    assert saved(path, deep, tiffinfo={262: 0}, **options)[0].tolist() == [255, 191, 0]
    assert saved(path, np.array([[-500, 0, 500]], np.int32), **options)[0].tolist() == [0, 128, 255]
    signed, unsigned = (b"\x53\x01\x03\x00\x01\x00\x00\x00" + kind for kind in (b"\x02\x00", b"\x01\x00"))
    Image.fromarray(np.array([[0, 2**31, 2**32 - 1]], np.uint32).view(np.int32)).save(path, **options)
    assert path.read_bytes().count(signed) == 1
    path.write_bytes(path.read_bytes().replace(signed, unsigned))
    assert np.asarray(open_image(path))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("compression", [None, "tiff_deflate"])
def test_signed_tiff_of_8_bits(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "a.tiff"
    for values, shown in (([-100, 0, 60], [0, 159, 255]), ([0, 50, 100], [0, 50, 100])):
        stored = np.array([values], np.int8).view(np.uint8)
        assert saved(path, stored, tiffinfo={339: 2}, compression=compression)[0].tolist() == shown


def test_a_file_of_holes_is_bad(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 4), np.nan, np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(BadImage, match=r"a\.tiff: has no finite pixel"):
        open_image(tmp_path / "a.tiff")


def test_other_deep_files(tmp_path: Path) -> None:
    twelve = np.array([[0, 2048, 4095]], np.uint16)
    assert saved(tmp_path / "a.png", twelve)[0].tolist() == [0, 128, 255]
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 4095\n" + twelve.astype(">u2").tobytes())
    assert np.asarray(open_image(tmp_path / "a.pgm"))[0, :, 0].tolist() == [0, 128, 255]
    (tmp_path / "a.pfm").write_bytes(b"Pf\n3 1\n-1.0\n" + np.array([0, 0.5, 1], "<f4").tobytes())
    assert np.asarray(open_image(tmp_path / "a.pfm"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_tiny(size: tuple[int, int]) -> None:
    for mode, pixel in (("F", 0.5), ("I;16", 32768), ("I", 32768)):
        image = to_rgb(Image.new(mode, size, pixel))
        assert (image.size, image.getpixel((0, 0))) == (size, (128, 128, 128))


def test_cmyk_jpeg_of_adobe() -> None:
    """Adobe's writer stores inks inverted, and warns in a marker that Pillow writes as well."""
    file = io.BytesIO()
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(file, "JPEG", quality=100)
    assert b"Adobe" in file.getvalue()
    red, green, blue = to_rgb(Image.open(file)).getpixel((8, 8))  # type: ignore[misc]
    assert red > 250 and green < 5 and blue < 5


def test_a_frame_of_several() -> None:
    file = io.BytesIO()
    frames = [Image.fromarray(np.full((2, 2), value, np.float32)) for value in (0.25, 0.5)]
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:])
    image = Image.open(file)
    for frame, grey in ((1, 128), (0, 64)):
        image.seek(frame)
        assert to_rgb(image).getpixel((0, 0)) == (grey, grey, grey)


def test_what_libtiff_says_is_in_the_error_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "broken.tif"
    Image.fromarray(noise).save(path, compression="tiff_lzw")
    data = bytearray(path.read_bytes())
    data[300:3000] = b"\xff" * 2700
    path.write_bytes(data)
    with pytest.raises(BadImage, match=r"cannot be decoded \(OSError: decoder error -2; Using code not yet in table\)"):
        open_image(path)
    path.write_bytes(b"not a TIFF")
    with pytest.raises(BadImage) as said:
        open_image(path)
    assert "table" not in str(said.value)
    assert capfd.readouterr().err == ""
