"""Images in a bucket: asked for once, several at a time, and measured and converted as those of a folder."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eve_jax.data import bucket_images
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.prepare.convert import Conversion, convert
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records
from eve_jax.data.view.inspect import inspect
from eve_jax.errors import UserError
from eve_jax.process import fetched, places
from tests.buckets import Buckets
from tests.data.synthetic import byte_tokenizer
from tests.process.conftest import server, store

__all__ = ["server", "store"]
MANY, TOGETHER = 16, 8


@pytest.fixture
def records(tmp_path: Path, store: Buckets) -> Path:
    """Records whose images are in a folder and in a bucket, but for the last, which is nowhere."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(MANY):
        path = tmp_path / "images" / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (40 + number, 64, 3), np.uint8)).save(path)
        store.put(f"images/{number}.png", path.read_bytes())
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dot."}]
    lines = [json.dumps({"image": f"{n}.png", "conversations": talk}) for n in range(MANY + 1)]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    return tmp_path / "r.jsonl"


@pytest.fixture
def folder(store: Buckets, records: Path) -> str:
    """The folder of images in the bucket, which answers when so many are asked for at a time."""
    found = fetched.images("s3://bkt/images")
    barrier = threading.Barrier(TOGETHER)

    def fault(method: str, key: str) -> str:
        if method == "GET" and key.endswith(".png") and key != f"images/{MANY}.png":
            barrier.wait(10)
        return ""

    store.fault = fault
    store.asked.clear()
    return found


def asked(store: Buckets) -> list[str]:
    return sorted(key for _, key in store.asked if key in store.objects)


def test_measuring(records: Path, folder: str, store: Buckets) -> None:
    rule = SampleRule(byte_tokenizer(), ImageRule("anyratio_ld", max_size=96), "qwen2", max_tokens=512)
    local = measure(open_records(str(records), records.parent / "images"), rule)
    found = measure(open_records(str(records), folder), rule)
    assert asked(store) == sorted(store.objects)
    assert len(local) == MANY
    for name in ("record", "text", "patches", "grids", "first_grid"):
        assert np.array_equal(getattr(found, name), getattr(local, name)), name
    assert found.seen is not None and local.seen is not None
    assert found.seen.files.tolist() == local.seen.files.tolist()
    assert [one.reason for one in found.dropped] == [one.reason for one in local.dropped] == ["missing file"]
    assert not bucket_images._coming


def test_converting_and_inspecting(records: Path, folder: str, store: Buckets, tmp_path: Path) -> None:
    for number, images in enumerate((folder, str(tmp_path / "images"))):
        summary = convert(Conversion(str(records), images, str(tmp_path / str(number)), 50, "headers"))
        assert (summary["kept"], summary["dropped"]) == (MANY, 1)
    assert asked(store) == sorted(store.objects)
    for name in ("00000.records", "00000.images"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()
    store.asked.clear()
    store.fault = lambda method, key: ""
    lines = list(inspect(str(records), folder))
    assert lines[2].startswith(f"understood: {MANY} records, all with images")
    assert "  image 1: s3://bkt/images/0.png: 64 x 40 pixels" in lines and not any(folder in line for line in lines)
    assert set(map(asked(store).count, store.objects)) == {1, 2}  # three samples are read again


def test_few_records_are_read_ahead(folder: str, store: Buckets) -> None:
    """Also where hardly any of them has an image in the bucket."""
    store.fault = lambda method, key: ""
    read = iter(range(1000))
    found = bucket_images.read_ahead(read, lambda number: [] if number else [f"{folder}/0.png"])
    assert next(found) == 0 and next(read) == bucket_images.AHEAD
    assert [*found] == [n for n in range(1, 1000) if n != bucket_images.AHEAD]


def test_a_bucket_that_refuses(records: Path, folder: str, store: Buckets) -> None:
    store.fault = lambda method, key: "forbidden" if key == "images/5.png" else ""
    rule = SampleRule(byte_tokenizer(), ImageRule("anyratio_ld", max_size=96), "qwen2", max_tokens=512)
    with pytest.raises(UserError, match=r"^s3://bkt/images/5.png: access denied"):
        measure(open_records(str(records), folder), rule)
    assert not bucket_images._coming
    assert places.url_of(folder) == "s3://bkt/images"


def test_a_folder_that_is_not_there(store: Buckets) -> None:
    store.put("images/a/0.png", b"0")
    assert fetched.images("s3://bkt/images")
    for wrong in ("s3://bkt/imagez", "s3://bkt/image", "s3://bkt/images/b"):
        with pytest.raises(UserError, match=rf"^data\.images={wrong}: no object is below it; name the folder"):
            fetched.images(wrong, "data.images")
