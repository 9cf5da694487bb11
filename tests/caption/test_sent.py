"""What is sent of an image: its file, unless an endpoint would not take it, or see it, so."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import caption
from eve_jax.caption.config import ImageConfig
from eve_jax.caption.sent import Sent, prepare, shrink
from eve_jax.data.image_file import BadImage
from tests.caption.scenes import image_file


def limits(**changes: Any) -> ImageConfig:
    values: ConfigDict = caption.get_config().image
    return ImageConfig.from_values({**values.to_dict(), **changes})


def sent_of(folder: Path, data: bytes, **changes: Any) -> Sent:
    (folder / "a").write_bytes(data)
    return prepare(folder / "a", limits(**changes))


def size_of(sent: Sent) -> tuple[int, int]:
    with Image.open(io.BytesIO(sent.data)) as image:
        assert image.size == sent.size
        return image.size


@pytest.mark.parametrize(("kind", "media"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")])
def test_files_are_sent_as_they_are(tmp_path: Path, kind: str, media: str) -> None:
    data = image_file(0, kind=kind)
    sent = sent_of(tmp_path, data)
    assert (sent.data, sent.media_type, sent.size) == (data, media, (40, 32))
    assert sent.url().startswith(f"data:{media};base64,")


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "GIF"])
def test_what_not_every_endpoint_reads_is_sent_as_jpeg(tmp_path: Path, kind: str) -> None:
    sent = sent_of(tmp_path, image_file(0, kind=kind))
    assert (sent.media_type, size_of(sent)) == ("image/jpeg", (40, 32))


def test_an_image_on_its_side_is_sent_upright(tmp_path: Path) -> None:
    """Boxes of experts are of the upright image, and not every endpoint looks at the tag."""
    pixels = np.zeros((32, 40, 3), np.uint8)
    pixels[:16] = 255  # the upper half, which is the right one of the upright image
    data, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(data, "JPEG", exif=exif)
    sent = sent_of(tmp_path, data.getvalue())
    with Image.open(io.BytesIO(sent.data)) as image:
        assert image.size == (32, 40) and not image.getexif()
        upright = np.asarray(image.convert("L"))
    assert upright[:, 20:].min() > 200 and upright[:, :12].max() < 50


def test_deep_and_moving_images_are_converted(tmp_path: Path) -> None:
    deep, moving = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.linspace(0, 65535, 1280).reshape(32, 40).astype(np.uint16)).save(deep, "PNG")
    frames = [Image.new("RGB", (40, 32), color) for color in ("red", "blue")]
    frames[0].save(moving, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    for data in (deep, moving):
        assert sent_of(tmp_path, data.getvalue()).media_type == "image/jpeg"


def test_large_images_are_shrunk(tmp_path: Path) -> None:
    data = image_file(0, (400, 100))
    assert size_of(sent_of(tmp_path, data, max_side=200)) == (200, 50)
    assert sent_of(tmp_path, data, max_side=0).data == data
    noise = image_file(0, (600, 600), quality=95)
    sent = sent_of(tmp_path, noise, max_bytes=40_000)
    assert len(sent.data) <= 40_000 < len(noise) and size_of(sent)[0] < 600


def test_shrinking_halves_until_it_is_tiny(tmp_path: Path) -> None:
    sent: Sent | None = sent_of(tmp_path, image_file(0, (400, 100)))
    sizes = []
    while sent is not None:
        sizes.append(size_of(sent))
        sent = shrink(sent, limits())
    assert sizes == [(400, 100), (200, 50), (100, 25), (64, 16)]


def test_the_same_bytes_every_time(tmp_path: Path) -> None:
    """Answers are found by them."""
    one, other = (sent_of(tmp_path, image_file(0, (400, 100)), max_side=200) for _ in range(2))
    assert one.data == other.data and one.digest == other.digest


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"no image", "not an image of a format"),
        (image_file(0, (400, 100))[:2000], "cannot be decoded"),
    ],
)
def test_broken_images_are_found_before_they_are_paid_for(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        sent_of(tmp_path, data)


def test_too_many_pixels_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = io.BytesIO()
    Image.new("1", (12_000, 9_000)).save(bomb, "PNG")
    assert len(bomb.getvalue()) < 100_000
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(BadImage, match="more than 64,000,000 pixels"):
        sent_of(tmp_path, bomb.getvalue())
