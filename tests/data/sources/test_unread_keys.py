"""What records name and nothing reads: keys of image objects, edits, and files of scans and shapes."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from eve_jax.data.record import BadRecord, UnreadMedia
from tests.data.sources import test_fields
from tests.data.sources.test_fields import TALK, of_json, of_parquet, png

folder = test_fields.folder


@pytest.mark.parametrize(
    ("fields", "unused"),
    [
        ({"image": {"path": "a.png", "width": 40, "bytes": None}}, "image[].width"),
        ({"images": ["b.png", {"path": "a.png", "caption": "red"}]}, "images[].caption"),
        ({"image_url": {"url": "a.png", "detail": "high"}}, "image_url[].detail"),
        ({"image": {"image": {"path": "a.png", "rotate": 0}}}, "image[].image[].rotate"),
        ({"image": "a.png", "images": [{"path": "a.png", "score": 1}]}, "images[].score"),
    ],
)
def test_keys_of_image_objects_are_listed(fields: dict[str, Any], unused: str, folder: Path) -> None:
    assert of_json(folder, {**fields, "text": "A dot."}).read(0)[1].unused == (unused,)


def test_keys_of_image_parts_are_listed(folder: Path) -> None:
    part = {"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}, "max_pixels": 9}
    text = {"type": "text", "text": "What?", "cache": True}
    records = of_json(
        folder, {"messages": [{"role": "user", "content": [part, text]}, {"role": "gpt", "content": "A dot."}]}
    )
    names = ("max_pixels", "image_url[].detail", "cache")
    assert records.read(0)[1].unused == tuple(f"messages[].content[].{name}" for name in names)


@pytest.mark.parametrize(
    "fields",
    [
        {"image": {"path": "a.png", "rotate": 90}},
        {"images": [{"path": "a.png"}, {"path": "b.png", "resize": [8, 8]}]},
        {"image": "a.png", "images": [{"path": "a.png", "crop_box": [0, 0, 8, 8]}]},
    ],
)
def test_edits_of_images_are_refused(fields: dict[str, Any], folder: Path) -> None:
    with pytest.raises(BadRecord, match="which is not read; apply it to the image file, or remove it"):
        of_json(folder, {**fields, "text": "A dot."})[0]


def test_images_in_image_objects_are_refused(folder: Path) -> None:
    with pytest.raises(UnreadMedia, match=r"the field 'image\[\].thumbnail' looks like an image"):
        of_json(folder, {"image": {"path": "a.png", "thumbnail": "b.png"}, "text": "A dot."})[0]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string()), ("rotate", pa.int32())])
    column = pa.array([{"bytes": png(), "path": "x.png", "rotate": 90}], type=kind)
    with pytest.raises(BadRecord, match="image has rotate, which is not read"):
        of_parquet(folder, {"image": column, "caption": ["A dot."]})[0]


SCANS: list[dict[str, Any]] = [
    {"depth": "0.exr"},
    {"scan": "a.dcm"},
    {"volume": "x/a.nii.gz"},
    {"mesh": "chair.OBJ"},
    {"slide": "a.svs"},
]
SCANS += [{"meta": {"raw": "a.CR2"}}, {"file_name": "0.dcm"}, {"file": "a b.ply"}, {"views": ["a.hdr", "b.hdr"]}]


@pytest.mark.parametrize("fields", SCANS)
def test_scans_and_shapes_are_refused_where_there_is_no_image(fields: dict[str, Any], folder: Path) -> None:
    ((name, value),) = fields.items()
    about = f"the field '{name}' holds a scan, a raw photo or a 3D shape, which is not read; convert it to an image"
    with pytest.raises(UnreadMedia, match=about):
        of_json(folder, {"conversations": TALK, **fields})[0]
    with pytest.raises(UnreadMedia, match=about):
        of_parquet(folder, {"caption": ["A dot."], name: [value]})[0]
    record, found = of_json(folder, {"conversations": TALK, "image": "a.png", **fields}).read(0)
    assert (len(record.images), found.unused) == (1, (name,))


def test_files_that_images_may_come_from_are_counted(folder: Path) -> None:
    for fields in ({"source": "a.exr"}, {"note": "see a.dcm for more"}, {"code": "a.obj b.obj"}, {"text2": "x.objx"}):
        assert of_json(folder, {"conversations": TALK, **fields}).read(0)[1].doubts == ()
    fields = {"document": "a.pdf", "features": "x/0.npy"}
    found = of_json(folder, {"conversations": TALK, **fields}).read(0)[1]
    assert found.doubts == ("no image, but a pdf file in document", "no image, but a npy file in features")
    assert of_json(folder, {"conversations": TALK, "image": "a.png", **fields}).read(0)[1].doubts == ()
