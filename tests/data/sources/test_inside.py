"""Paths in records stay in the folder of images: none leads out, and no pipe or device is opened."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eve_jax.data.image.patches import open_image
from eve_jax.data.image_file import BadImage
from eve_jax.data.prepare.convert import Conversion, convert
from eve_jax.data.record import BadRecord
from eve_jax.data.sources.records import Records, open_records
from eve_jax.process.inside import is_inside, is_plain_name

TURNS = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "That."}]
LEAVES = "leads out of the folder of images"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images with one in it, a subfolder, links inside and out, and an image outside."""
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    Image.new("RGB", (40, 40), "red").save(images / "in.png")
    Image.new("RGB", (40, 40), "blue").save(tmp_path / "outside.png")
    (images / "link.png").symlink_to("in.png")
    (images / "leaving.png").symlink_to("../outside.png")
    (images / "up").symlink_to(tmp_path)
    (images / "loop").symlink_to("loop")
    os.mkfifo(images / "pipe.png")
    return tmp_path


def as_json(folder: Path, path: str) -> Records:
    (folder / "a.jsonl").write_text(json.dumps({"image": path, "conversations": TURNS}) + "\n")
    return open_records(str(folder / "a.jsonl"), folder / "images")


def as_parquet(folder: Path, path: str) -> Records:
    columns = {"image": [{"bytes": None, "path": path}], "conversations": [TURNS]}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(
        pa.table({"image": pa.array(columns["image"], kind), "conversations": columns["conversations"]}),
        folder / "a.parquet",
    )
    return open_records(str(folder / "a.parquet"), folder / "images")


KINDS = (as_json, as_parquet)
Writer = Callable[[Path, str], Records]


@pytest.mark.parametrize("write", KINDS)
@pytest.mark.parametrize("path", ["in.png", "link.png", "sub/../in.png", "{}/images/in.png", "up/images/in.png"])
def test_paths_inside_are_read(write: Writer, path: str, folder: Path) -> None:
    assert open_image(write(folder, path.format(folder))[0].images[0]).getpixel((0, 0)) == (255, 0, 0)


OUTSIDE = ("../outside.png", "sub/../../outside.png", "{}/outside.png", "leaving.png", "up/outside.png", "/dev/zero")
ODD = ("file://{}/outside.png", "..%2Foutside.png", "..\\outside.png", "sub%2f..%2f..%2foutside.png", "../nothing.png")


@pytest.mark.parametrize("write", KINDS)
@pytest.mark.parametrize("path", [*OUTSIDE, *ODD])
def test_paths_that_leave_are_refused(write: Writer, path: str, folder: Path) -> None:
    records = write(folder, path.format(folder))
    with pytest.raises((BadRecord, BadImage), match=LEAVES):
        open_image(records[0].images[0])


@pytest.mark.parametrize("path", [*OUTSIDE, *ODD])
def test_nothing_from_outside_is_copied(path: str, folder: Path) -> None:
    as_json(folder, path.format(folder))
    made = folder / "made"
    summary = convert(Conversion(str(folder / "a.jsonl"), str(folder / "images"), str(made), 10, "headers"))
    assert (summary["kept"], summary["dropped"]) == (0, 1)
    assert LEAVES in (made / "bad_records.jsonl").read_text()
    blue = (folder / "outside.png").read_bytes()
    assert not any(blue in file.read_bytes() for file in made.iterdir())


@pytest.mark.parametrize("write", KINDS)
def test_pipes_are_not_opened(write: Writer, folder: Path) -> None:
    with pytest.raises(BadImage, match="is no file but a pipe, a device or a socket"):
        open_image(write(folder, "pipe.png")[0].images[0])


def test_without_a_folder_paths_lead_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "images")
    as_json(folder, "../outside.png")
    (record,) = open_records(str(folder / "a.jsonl"))
    assert open_image(record.images[0]).getpixel((0, 0)) == (0, 0, 255)


def test_another_name_outside_is_no_reason_to_lose_an_image(folder: Path) -> None:
    record = {"image": "in.png", "file_name": "/where/it/was/made/in.png", "conversations": TURNS}
    (folder / "a.jsonl").write_text(json.dumps(record))
    assert open_records(str(folder / "a.jsonl"), folder / "images")[0].images == (str(folder / "images" / "in.png"),)


def test_bytes_are_not_compared_with_a_file_outside(folder: Path) -> None:
    data = (folder / "images" / "in.png").read_bytes()
    (folder / "same.png").write_bytes(bytes(len(data)))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": data, "path": str(folder / "same.png")}], kind)
    pq.write_table(pa.table({"image": images, "conversations": [TURNS]}), folder / "a.parquet")
    (record,) = open_records(str(folder / "a.parquet"), folder / "images")
    assert open_image(record.images[0]).getpixel((0, 0)) == (255, 0, 0)


def test_what_is_inside(folder: Path) -> None:
    assert is_inside(str(folder), "")
    assert is_inside(str(folder), "/")
    assert is_inside(str(folder / "images"), str(folder / "images"))
    assert not is_inside(str(folder / "images2"), str(folder / "images"))
    assert is_inside(str(folder / "images/loop/x"), str(folder / "images"))
    assert [name for name in ("a", "a.b", ".x", "", ".", "..", "a/b", "/a", "a\\b", "a\0") if is_plain_name(name)] == [
        "a",
        "a.b",
        ".x",
    ]
