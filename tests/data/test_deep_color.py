"""Images of 16 bits a color channel, of which Pillow alone keeps the upper 8 bits."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eve_jax.data.image.patches import open_image, shown
from eve_jax.data.image_file import BadImage

SMALL = np.arange(24).reshape(2, 4, 3) * 10  # colors of 0 to 230
INKS = np.arange(32).reshape(2, 4, 4) * 8
ALPHA = np.concatenate([SMALL, np.full((2, 4, 1), 60_000)], axis=2)
PLANAR, EXTRA, DEFLATE = 284, 338, 8


def tiff(
    values: np.ndarray, order: str = "<", planes: int = 1, compression: int = 1, photometric: int = 2, **tags: int
) -> bytes:
    """A TIFF of 16 bits a channel, [H, W, C], with one strip a plane."""
    height, width, channels = values.shape
    kept = np.moveaxis(values, 2, 0) if planes == 2 else values[None]
    strips = [plane.astype(order + "u2").tobytes() for plane in kept]
    strips = [zlib.compress(strip) for strip in strips] if compression == DEFLATE else strips
    fields: dict[int, list[int]] = {256: [width], 257: [height], 258: [16] * channels, 259: [compression]}
    fields |= {262: [photometric], 273: [0] * len(strips), 277: [channels], 278: [height]}
    fields |= {279: [len(strip) for strip in strips], PLANAR: [planes], **({EXTRA: [tags["extra"]]} if tags else {})}
    start = 8 + 2 + 12 * len(fields) + 4
    room = sum(4 * len(several) for several in fields.values())
    fields[273] = [start + room + sum(map(len, strips[:n])) for n in range(len(strips))]
    entries, rest = b"", b""
    for tag, several in fields.items():
        kind, letter = (4, "I") if tag in (273, 279) else (3, "H")
        data = struct.pack(f"{order}{len(several)}{letter}", *several)
        place = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(order + "I", start + len(rest))
        rest += data if len(data) > 4 else b""
        entries += struct.pack(order + "HHI", tag, kind, len(several)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(fields))
    return head + entries + bytes(4) + rest.ljust(room, b"\0") + b"".join(strips)


def png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, [H, W, 2 to 4]."""
    height, width, channels = values.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def ppm(values: np.ndarray, largest: int) -> bytes:
    height, width, _ = values.shape
    return b"P6\n%d %d\n%d\n" % (width, height, largest) + values.astype(">u2").tobytes()


def saved(values: np.ndarray, kind: str, **options: Any) -> bytes:
    """An image of 8 bits in a file that Pillow writes."""
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, kind, **options)
    return file.getvalue()


def opened(tmp_path: Path, content: bytes) -> np.ndarray:
    """The pixels of a file with that content, uint8 [H, W, 3]."""
    path = tmp_path / "image"
    path.write_bytes(content)
    return np.asarray(open_image(path))


FORMATS = {
    "png": lambda v: png(v),
    "png with alpha": lambda v: png(np.concatenate([v, np.full((2, 4, 1), 9)], axis=2)),
    "tiff": lambda v: tiff(v),
    "tiff, big-endian": lambda v: tiff(v, ">"),
    "tiff, packed": lambda v: tiff(v, compression=DEFLATE),
    "tiff, big-endian and packed": lambda v: tiff(v, ">", compression=DEFLATE),
    "tiff, planes": lambda v: tiff(v, planes=2),
    "tiff, big-endian planes": lambda v: tiff(v, ">", planes=2),
    "tiff with alpha": lambda v: tiff(np.concatenate([v, np.full((2, 4, 1), 9)], axis=2), extra=2),
    "tiff with a channel of nothing": lambda v: tiff(np.concatenate([v, np.full((2, 4, 1), 9)], axis=2), extra=0),
    "ppm": lambda v: ppm(v, 65535),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("factor", "more", "white"),
    [(1, 0, 255), (16, 5, 4095), (256, 7, 65535)],  # 8, 12 and 16 bits in a file of 16
)
def test_colors_have_the_range_of_gray_images(tmp_path: Path, name: str, factor: int, more: int, white: int) -> None:
    values = SMALL * factor + more
    expected = np.floor(values * 255 / white + 0.5)
    assert opened(tmp_path, FORMATS[name](values)).tolist() == expected.tolist()


def test_gray_with_alpha(tmp_path: Path) -> None:
    expected = np.repeat(SMALL[..., :1], 3, axis=2)
    assert opened(tmp_path, png(ALPHA[..., [0, 3]])).tolist() == expected.tolist()


def test_inks(tmp_path: Path) -> None:
    expected = Image.fromarray(INKS.astype(np.uint8), "CMYK").convert("RGB")
    assert opened(tmp_path, tiff(INKS, photometric=5)).tolist() == np.asarray(expected).tolist()


def test_white_is_the_largest_value_that_a_ppm_states(tmp_path: Path) -> None:
    found = opened(tmp_path, ppm(SMALL * 4, 1000))
    assert found.tolist() == np.floor(SMALL * 4 * 255 / 1000 + 0.5).tolist()


# Codestreams by OpenJPEG: 32x32 pixels of 16 bits a channel, all (200, 100, 50) and all 256 times as much.
JPEG2000 = (
    "ff4fff51002f0000000000200000002000000000000000000000002000000020000000000000000000030f01010f01010f0101"
    "ff52000c00000001000504040001ff5c00134080888890888890888890888890888890"
)
DARK_TILE = "ff90000a0000000000320001ff93cffc300c0a023fcffc300c09f65fcffc300c09ea5f808080808080808080808080808080ffd9"
BRIGHT_TILE = "ff90000a0000000000320001ff93cffc300c06d57fc3ff000180097d7fcffc3008045b808080808080808080808080808080ffd9"


ONLY_UPPER = {
    "premultiplied": lambda v: tiff(np.concatenate([v, np.full((2, 4, 1), 65535)], axis=2), extra=1),
    "packed planes": lambda v: tiff(v, planes=2, compression=DEFLATE),
    "plain PPM": lambda v: b"P3\n4 2\n65535\n" + b" ".join(b"%d" % one for one in v.ravel()) + b"\n",
    "SGI": lambda v: saved(v // 256, "SGI", bpc=2),
    "gray SGI": lambda v: saved(v[..., 0] // 256, "SGI", bpc=2),
    "JPEG 2000": lambda v: bytes.fromhex(JPEG2000 + (DARK_TILE if v.max() < 256 else BRIGHT_TILE)),
}


@pytest.mark.parametrize("name", ONLY_UPPER)
def test_colors_that_pillow_alone_can_read_are_never_black(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        BadImage, match="all below a sixteenth of white, and only their upper 8 bits can be read; convert"
    ):
        opened(tmp_path, ONLY_UPPER[name](SMALL))
    assert opened(tmp_path, ONLY_UPPER[name](SMALL * 256)).max() >= 200


def test_planes_that_pillow_reads_byte_by_byte_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="colors of 16 bits in planes that cannot be read; write it with one plane"):
        opened(tmp_path, tiff(INKS, photometric=5, planes=2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000", "SGI"])
def test_dark_images_of_8_bits_stay_dark(tmp_path: Path, kind: str) -> None:
    assert opened(tmp_path, saved(SMALL % 16, kind)).tolist() == (SMALL % 16).tolist()


def test_an_image_object_can_be_shown_twice(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(SMALL))
    image = Image.open(tmp_path / "a.png")
    assert [np.asarray(shown(image, "it")).tolist() for _ in range(2)] == [SMALL.tolist()] * 2


def test_an_image_object_that_was_loaded_before() -> None:
    image = Image.open(io.BytesIO(tiff(SMALL)))
    image.load()  # only the upper bits are left
    with pytest.raises(BadImage, match="only their upper 8 bits"):
        shown(image, "it")
