"""Image files as bad as they come: shown as a viewer would, or refused with a named reason."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eve_jax.data.image.patches import image_size, load_patches, open_image, patchify, shown
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.image_file import BadImage, ImageFile, StoredImage, image_bytes


def gradient(width: int = 70, height: int = 40) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.stack([x, y, 0.5 * np.ones_like(x)], -1)


def rgb_image(width: int = 70, height: int = 40) -> Image.Image:
    return Image.fromarray((gradient(width, height) * 255).astype(np.uint8))


def mean_error(path: Path, expected: Image.Image) -> float:
    image = open_image(path)
    assert image.mode == "RGB"
    assert image.size == expected.size == image_size(path)
    return float(np.abs(np.asarray(image, np.float32) - np.asarray(expected, np.float32)).mean())


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tiff"])
def test_formats(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    rgb_image().save(path)
    assert mean_error(path, rgb_image()) < 6


def test_unusual_modes_look_as_in_a_viewer(tmp_path: Path) -> None:
    rgb = rgb_image()
    rgb.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert mean_error(tmp_path / "cmyk.jpg", rgb) < 4
    rgb.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    assert mean_error(tmp_path / "palette.png", rgb) < 6
    clear = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    clear.save(tmp_path / "clear.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mean_error(tmp_path / "clear.png", clear.convert("RGB")) == 0
    rgba = rgb.copy()
    rgba.putalpha(10)
    rgba.save(tmp_path / "alpha.png")
    assert mean_error(tmp_path / "alpha.png", rgb) == 0
    rgb.convert("LA").save(tmp_path / "la.png")
    assert mean_error(tmp_path / "la.png", rgb.convert("L").convert("RGB")) == 0
    rgb.convert("1").save(tmp_path / "bits.png")
    assert mean_error(tmp_path / "bits.png", rgb.convert("1").convert("RGB")) == 0


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_is_scaled_not_clipped(suffix: str, tmp_path: Path) -> None:
    gray = gradient()[..., 0]
    Image.fromarray((gray * 65535).astype(np.uint16)).save(tmp_path / f"deep.{suffix}")
    expected = Image.fromarray((gray * 255).astype(np.uint8)).convert("RGB")
    assert mean_error(tmp_path / f"deep.{suffix}", expected) < 1


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "lime", "blue")]
    for suffix in ("gif", "webp", "png"):
        path = tmp_path / f"a.{suffix}"
        options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert mean_error(path, frames[0]) < 1


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    image = rgb_image(96, 64)
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = image.transpose(back[orientation]) if orientation > 1 else image
    options: dict[str, Any] = {"quality": 95} if suffix in ("jpg", "webp") else {}
    stored.save(path, exif=exif, **options)
    assert mean_error(path, image) < 4


def test_sizes_come_from_the_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    assert image_size(path) == (500, 300)
    with pytest.raises(BadImage, match=r"a\.png: cannot be decoded"):
        open_image(path)


def png(width: int, height: int) -> bytes:
    """A PNG file whose pixels are missing."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b""))
    parts = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "missing file"),
        (b"", "empty file"),
        (b"this is no picture", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image|broken header"),
        (png(40_000, 40_000), "has more than 64,000,000 pixels"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "not an image|broken header|cannot be"),
    ],
)
def test_bad_files_have_a_named_reason(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    uses: list[Callable[[ImageFile], Any]] = [image_size, open_image, lambda file: load_patches(file, ImageRule())]
    files: list[ImageFile] = [path, str(path)]
    if content is not None:
        files.append(StoredImage(str(path), lambda: io.BytesIO(content)))
    for use in uses:
        for file in files:
            with pytest.raises(BadImage, match=reason) as error:
                use(file)
            assert "\n" not in str(error.value)
            assert error.value.path == str(path)


def test_no_program_is_run_to_see_a_picture(tmp_path: Path) -> None:
    rgb_image().save(tmp_path / "a.eps")
    for use in (image_size, open_image):
        with pytest.raises(BadImage, match="EPS is no image but a program"):
            use(tmp_path / "a.eps")


def test_a_stored_image_is_that_of_the_file(tmp_path: Path) -> None:
    rgb_image(90, 50).save(tmp_path / "a.webp")
    data = (tmp_path / "a.webp").read_bytes()
    stored = StoredImage("a.tar#1", lambda: io.BytesIO(data))
    assert image_bytes(stored) == image_bytes(tmp_path / "a.webp") == data
    assert image_size(stored) == (90, 50)
    assert np.array_equal(load_patches(stored, ImageRule())[0], load_patches(tmp_path / "a.webp", ImageRule())[0])
    assert image_size(StoredImage("b", stored.open, (7, 3))) == (7, 3)


def test_a_folder_is_not_an_image(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="cannot be read"):
        open_image(tmp_path)


def test_truncated_jpeg_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    rgb_image(400, 300).save(path)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(BadImage, match="truncated"):
        open_image(path)


def test_load_patches(tmp_path: Path) -> None:
    rgb_image(96, 64).save(tmp_path / "a.png")
    patches, grid = load_patches(tmp_path / "a.png", ImageRule("anyratio_ld"))
    assert grid == (2, 3)
    assert np.array_equal(patches, patchify(np.asarray(rgb_image(96, 64))))


def test_a_stored_image_prints_its_name_not_its_bytes() -> None:
    image = StoredImage("a.tar#x[1]", lambda: io.BytesIO(b"secret"))
    assert str(image) == "a.tar#x[1]"
    assert "secret" not in repr(image)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    "value", [b"\x02\x00\x02\x00\x00\x006\x00\x00\x00", b"\x03\x00\x01\x00\x00\x00\x63\x00\x00\x00"]
)
def test_an_exif_orientation_that_is_none(value: bytes, suffix: str, tmp_path: Path) -> None:
    """The text "6" (type 2, ASCII), and a number that is no orientation (99)."""
    block = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01" + value + bytes(4)
    path, image = tmp_path / f"a.{suffix}", rgb_image(96, 64)
    options: dict[str, Any] = {"quality": 95} if suffix != "png" else {}
    image.save(path, exif=block, **options)
    assert block[6:] in path.read_bytes()
    assert image_size(path) == (96, 64)
    assert mean_error(path, image) < 4
    with Image.open(path) as opened:
        assert shown(opened, "images").size == (96, 64)


@pytest.mark.parametrize(("bits", "kind"), [(8, "u1"), (16, ">i2"), (32, ">i4"), (-32, ">f4"), (-64, ">f8")])
def test_fits_is_read_with_its_sign(bits: int, kind: str, tmp_path: Path) -> None:
    """FITS has rows from the bottom up, big-endian, and of its integers only those of 8 bits are unsigned."""
    values = np.arange(16).reshape(4, 4) * 16 - (0 if bits == 8 else 100)
    cards = ["SIMPLE  = T", f"BITPIX  = {bits}", "NAXIS   = 2", "NAXIS1  = 4", "NAXIS2  = 4", "END"]
    header = b"".join(card.encode().ljust(80) for card in cards).ljust(2880)
    (path := tmp_path / "a.fits").write_bytes(header + values.astype(kind).tobytes().ljust(2880, b"\0"))
    ramp = np.arange(16).reshape(4, 4)[::-1] * (16 if bits == 8 else 17)
    assert np.asarray(open_image(path))[..., 0].tolist() == ramp.tolist()


def test_a_gif_without_a_color_table_is_gray(tmp_path: Path) -> None:
    gray = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))  # Pillow drops colors that have no pixel
    gray.save(path := tmp_path / "a.gif")
    data = path.read_bytes()
    packed, colors = data[10], 3 * 2 ** ((data[10] & 7) + 1)
    path.write_bytes(data[:10] + bytes([packed & 0x7F]) + data[11:13] + data[13 + colors :])
    assert mean_error(path, gray.convert("RGB")) == 0
