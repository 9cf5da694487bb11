"""JPEG files by simplejpeg: Pillow's pixels and messages whatever the file; and decoded to a part of their size."""

import io
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eve_jax.data.image import jpeg, resample
from eve_jax.data.image.patches import load_patches, open_image, open_pixels
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.image_file import BadImage, StoredImage
from eve_jax.data.plan.plan import PlanSettings, build_plan
from eve_jax.data.rows.bad_records import BadRecords
from eve_jax.data.rows.build import Batch, RowBuilder
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records
from tests.data.synthetic import byte_tokenizer, write_records

RULE = ImageRule("anyratio_ld")
with_simplejpeg = pytest.mark.skipif(not jpeg._is_usable(), reason="simplejpeg, of the extra jpeg, is not installed")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def stored(data: bytes) -> StoredImage:
    return StoredImage("a.jpg", lambda: io.BytesIO(data))


def outcome(data: bytes, rule: ImageRule = RULE) -> object:
    """The pixels of a file, or what is said of it."""
    try:
        found = open_pixels(stored(data), rule)
    except BadImage as error:
        return str(error)
    return found.rgb.tobytes(), found.rgb.shape, found.size


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each file so far was decoded by simplejpeg."""
    used: list[bool] = []
    decoded = jpeg.decoded

    def noted(image: Image.Image) -> np.ndarray | None:
        found = decoded(image)
        used.append(found is not None)
        return found

    monkeypatch.setattr(jpeg, "decoded", noted)
    return used


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Takes simplejpeg away, and gives it back."""
    return lambda away: monkeypatch.setattr(jpeg, "is_wanted", not away)


@with_simplejpeg
def test_orientations_and_ways_to_store_colors(decoders: list[bool]) -> None:
    turned = Image.Exif()
    for value in range(1, 9):
        turned[0x0112] = value
        options = {"subsampling": value % 3, "progressive": value % 2 == 0, "restart_marker_rows": value % 2}
        data = encoded(picture(67 + value, 45), exif=turned, **options)
        pixels = open_pixels(stored(data), RULE)
        shown = open_image(stored(data))
        assert np.array_equal(pixels.rgb, np.asarray(shown)), value
        assert pixels.size == shown.size
    assert decoders == [True] * 8


@with_simplejpeg
def test_other_files_are_pillows(decoders: list[bool]) -> None:
    rgb = picture(80, 60)
    frames = io.BytesIO()
    rgb.save(frames, "MPO", save_all=True, append_images=[picture(80, 60, 1)])
    for data in (encoded(rgb.convert("L")), encoded(rgb.convert("CMYK")), frames.getvalue()):
        assert np.array_equal(open_pixels(stored(data), RULE).rgb, np.asarray(open_image(stored(data))))
    assert decoders == [False] * 3


@with_simplejpeg
@pytest.mark.parametrize("progressive", [False, True])
def test_what_becomes_of_broken_files(without: Callable[[bool], None], progressive: bool) -> None:
    """Cut at any place, with bytes changed, left out or added: the same pixels, or the same words."""
    sound = encoded(picture(64, 48), progressive=progressive, quality=80)
    rng = random.Random(int(progressive))
    files = [sound[:end] for end in range(2, len(sound), max(len(sound) // 60, 1))]
    files += [sound[:end] for end in range(len(sound) - 8, len(sound))]
    files += [sound + more for more in (b"\0", b"trailing words", sound, b"\xff\xd9")]
    for _ in range(120):
        at, size = rng.randrange(2, len(sound)), rng.randrange(1, 9)
        changed = rng.choice([rng.randbytes(size), b"", bytes(size), sound[at : at + size] * 2])
        files.append(sound[:at] + changed + sound[at + size :])
    without(True)
    expected = [outcome(data) for data in files]
    without(False)
    for data, known in zip(files, expected, strict=True):
        assert outcome(data) == known
    assert sum(isinstance(known, str) for known in expected) > 30
    assert sum(isinstance(known, tuple) for known in expected) > 30


def test_a_source_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of whoever hands over the bytes is said as one of the image, with simplejpeg and without."""

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 600:
                raise ValueError("the line went dead")
            return super().read(300 if size is None or size < 0 else min(size, 300))

    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)))
    with pytest.raises(BadImage, match="the line went dead"):
        open_pixels(StoredImage("a.jpg", lambda: Failing(data)), RULE)


def test_simplejpeg_with_other_pixels_is_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jpeg.warn.cache_clear()
    monkeypatch.setattr(jpeg, "_is_usable", jpeg._is_usable.__wrapped__)
    monkeypatch.setattr(jpeg.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(jpeg, "by_simplejpeg", lambda data, width, height: np.zeros((height, width, 3), np.uint8))
    data = encoded(picture(80, 60))
    for _ in range(2):
        assert np.array_equal(open_pixels(stored(data), RULE).rgb, np.asarray(open_image(stored(data))))
    assert capsys.readouterr().err.count("warning: simplejpeg decodes to other pixels") == 1


DRAFT = ImageRule("anyratio_ld", max_size=64, draft=True)


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_draft(without: Callable[[bool], None], away: bool, orientation: int) -> None:
    """A quarter where that is enough for the patches, of the size that the image has."""
    without(away)
    turned = Image.Exif()
    turned[0x0112] = orientation
    data = encoded(picture(301, 283), exif=turned, quality=95)
    width, height = (301, 283) if orientation == 1 else (283, 301)
    pixels = open_pixels(stored(data), DRAFT)
    assert pixels.size == (width, height)
    assert pixels.rgb.shape == (-(-height // 4), -(-width // 4), 3)
    assert open_pixels(stored(data), DRAFT, (3, 2)).rgb.shape == (-(-height // 2), -(-width // 2), 3)  # of 96x64 pixels
    small = encoded(picture(100, 70))
    assert open_pixels(stored(small), DRAFT).rgb.shape == (70, 100, 3)


def test_draft_is_close() -> None:
    """Of sides that are multiples of the part; of others, the last pixel stands for fewer than the rest."""
    data = encoded(picture(320, 280), quality=95)
    exact, grid = load_patches(stored(data), replace(DRAFT, draft=False))
    close, drafts = load_patches(stored(data), DRAFT)
    assert grid == drafts
    difference = np.abs(exact.astype(int) - close)
    assert 0 < difference.max() < 12
    assert difference.mean() < 1


@with_simplejpeg
def test_draft_does_not_depend_on_simplejpeg(without: Callable[[bool], None]) -> None:
    data = encoded(picture(517, 333), quality=90)
    without(True)
    by_pillow = outcome(data, DRAFT)
    without(False)
    assert outcome(data, DRAFT) == by_pillow


def test_draft_is_part_of_the_datas_identity() -> None:
    """A run does not resume with it, and its lengths table is another; without it, both are as they always were."""
    exact, draft = (
        SampleRule(byte_tokenizer(), replace(DRAFT, draft=on), "qwen2", max_tokens=900) for on in (False, True)
    )
    assert exact.fingerprint() != draft.fingerprint()
    assert exact.table_key(4) != draft.table_key(4)
    assert "draft" not in repr(exact.images)
    assert (
        exact.fingerprint()["image_rule"]
        == SampleRule(byte_tokenizer(), ImageRule("anyratio_ld", max_size=64), "qwen2", max_tokens=900).fingerprint()[
            "image_rule"
        ]
    )


def test_batches_are_those_of_pillow(
    tmp_path: Path, without: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows of a plan over PNG and JPEG files, to the bit, by Pillow alone and by what takes its place."""
    write_records(tmp_path, 14)
    for number, path in enumerate(sorted((tmp_path / "images").glob("*.png"))):
        if number % 2:  # Pillow goes by the content, whatever the name
            turned = Image.Exif()
            turned[0x0112] = number % 8 + 1
            path.write_bytes(encoded(picture(90 + 31 * number, 60 + 17 * number, number), exif=turned, quality=90))
    records = open_records(str(tmp_path / "records.jsonl"), tmp_path / "images")
    rule = SampleRule(byte_tokenizer(), ImageRule("anyratio_ld", max_size=160), "qwen2", max_tokens=2000)
    lengths = measure(records, rule)
    plan = build_plan(lengths, PlanSettings(2048, 2, rows=2, micro_batches=1, epochs=1, seed=0))
    builder = RowBuilder(records, lengths, rule, BadRecords(tmp_path / "work", 0))

    def batches(few: int, away: bool) -> list[Batch]:
        monkeypatch.setattr(resample, "FEW", few)
        without(away)
        return [builder.build(plan.micro_batch(number)) for number in range(len(plan.batch_shape))]

    before, now = batches(1 << 62, True), batches(0, False)
    assert sum(int(batch["patches"].any(axis=2).sum()) for batch in before) > 100
    for old, new in zip(before, now, strict=True):
        assert all(np.array_equal(old[name], new[name]) for name in old)
