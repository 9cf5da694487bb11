"""Which image a record has where several of its fields, or a field and a tar's members, name images."""

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eve_jax.data.image_file import image_bytes
from eve_jax.data.record import BadRecord
from eve_jax.data.sources.records import Records, open_records
from tests.data.source_files import add_member


def png(color: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(stream, "PNG")
    return stream.getvalue()


RED, BLUE = png("red"), png("blue")
DATA = "data:image/png;base64," + base64.b64encode(RED).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name, data in (("red.png", RED), ("blue.png", BLUE), ("sub/red.png", RED), ("sub/blue.png", RED)):
        (tmp_path / "images" / name).write_bytes(data)
    return tmp_path


def of_parquet(folder: Path, **fields: Any) -> Records:
    pq.write_table(
        pa.table({"caption": ["A."], **{name: [value] for name, value in fields.items()}}), folder / "r.parquet"
    )
    return open_records(str(folder / "r.parquet"), folder / "images")


def of_json(folder: Path, **fields: Any) -> Records:
    (folder / "r.jsonl").write_text(json.dumps({"caption": "A.", **fields}))
    return open_records(str(folder / "r.jsonl"), folder / "images")


def of_tar(folder: Path, members: dict[str, bytes], fields: dict[str, Any], key: str = "a") -> Records:
    with tarfile.open(folder / "r.tar", "w") as tar:
        for name, data in (members | {f"{key}.json": json.dumps({"caption": "A.", **fields}).encode()}).items():
            add_member(tar, name, data)
    return open_records(str(folder / "r.tar"))


def images_of(records: Records) -> list[bytes]:
    return [image_bytes(image) for image in next(record for record in records if record.turns[0].text == "A.").images]


@pytest.mark.parametrize("field", ["image_path", "img_path", "images", "file_name", "image_file"])
@pytest.mark.parametrize(
    ("name", "path", "same"),
    [
        (None, "red.png", True),
        (None, "blue.png", False),  # of another image
        ("red.png", "sub/red.png", True),
        ("red.png", "blue.png", False),
        ("x.png", "red.png", True),  # the file is there: its content tells, not its name
        ("blue.png", "blue.png", False),
        (None, "gone.png", True),  # no such file: a name of bytes that have none
        ("gone.png", "x/gone.png", True),
        ("gone.png", "other.png", False),
    ],
)
def test_bytes_next_to_a_path(field: str, name: str | None, path: str, same: bool, folder: Path) -> None:
    records = of_parquet(folder, image={"bytes": RED, "path": name}, **{field: [path] if field == "images" else path})
    if same:
        assert images_of(records) == [RED]
        return
    other = "the file at their path" if name == path == "blue.png" else field
    with pytest.raises(BadRecord, match=rf"r\.parquet#1 .*image and {other} are different images; keep one of them"):
        records[0]


@pytest.mark.parametrize("field", ["image_path", "file_name"])
def test_several_bytes_next_to_paths(field: str, folder: Path) -> None:
    cells = [{"bytes": RED, "path": None}, {"bytes": BLUE, "path": None}]
    assert images_of(of_parquet(folder, image=cells, **{field: ["red.png", "blue.png"]})) == [RED, BLUE]
    with pytest.raises(BadRecord, match=f"image and {field} are different images"):
        of_parquet(folder, image=cells, **{field: ["blue.png", "red.png"]})[0]


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ({"image": DATA, "img": "red.png"}, True),
        ({"image": DATA, "img": "blue.png"}, False),
        ({"image": {"bytes": list(RED)}, "file_name": "blue.png"}, False),
        ({"image": "blue.png", "image_url": DATA}, False),
        ({"image": "red.png", "file_name": "sub/red.png"}, True),
        ({"image": "blue.png", "file_name": "sub/blue.png"}, False),  # of one name, and another image
        ({"image": DATA, "url": "https://example.org/x.jpg"}, True),
        ({"image": "red.png", "images": 3}, False),
        ({"image": DATA, "images": 3}, False),
    ],
)
def test_fields_in_json(fields: dict[str, Any], same: bool, folder: Path) -> None:
    records = of_json(folder, **fields)
    if same:
        assert images_of(records) == [RED]
        return
    with pytest.raises(
        BadRecord, match=f"image and {list(fields)[1]} are different images|{list(fields)[1]} is neither"
    ):
        records[0]


def test_parts_next_to_stored_images(folder: Path) -> None:
    def read(path: str) -> Records:
        parts = [{"type": "image", "path": path, "text": None}, {"type": "text", "path": None, "text": "What?"}]
        talk = [{"role": "user", "content": parts}]
        return of_parquet(folder, image={"bytes": RED, "path": None}, messages=talk, caption=None)

    assert image_bytes(read("red.png")[0].images[0]) == RED
    with pytest.raises(BadRecord, match="image and the image parts of its texts are different images"):
        read("blue.png")[0]


PAIR = {"a.1.png": BLUE, "a.0.png": RED}


@pytest.mark.parametrize(
    ("members", "fields"),
    [
        (PAIR, {"images": ["a.0.png", "a.1.png"]}),
        (PAIR, {"image": ["0.png", "1.png"]}),
        (PAIR, {"images": ["x/0.jpg", "x/1.jpg"]}),  # converted since
        (PAIR, {"file_name": ["a.0.png", "a.1.png"], "images": ["0.png", "1.png"]}),
        ({"x/a.1.png": BLUE, "x/a.0.png": RED}, {"images": ["a.0.png", "x/a.1.png"]}),
        ({"a.png": RED, "a.seg.png": BLUE}, {"images": ["a.png", "a.seg.png"]}),
        ({"a.seg.png": BLUE, "a.png": RED}, {"images": ["a.png", "seg.png"]}),
        ({"a.jpg": BLUE, "a.png": RED}, {"images": ["a.png", "a.jpg"]}),
        ({"a.0.png": RED, "a.1.png": BLUE}, {"image_url": ["https://e.org/9.png", "https://e.org/8.png"]}),
    ],
)
def test_names_order_the_members_of_a_tar(members: dict[str, bytes], fields: dict[str, Any], folder: Path) -> None:
    key = "x/a" if "x/a.0.png" in members else "a"
    assert images_of(of_tar(folder, members, fields, key)) == [RED, BLUE]


def test_parts_order_the_members_of_a_tar(folder: Path) -> None:
    parts = [{"type": "image", "image": f"{n}.png"} for n in (0, 1)] + [{"type": "text", "text": "Which?"}]
    records = of_tar(folder, PAIR, {"caption": None, "messages": [{"role": "user", "content": parts}]})
    assert [image_bytes(image) for image in records[0].images] == [RED, BLUE]


@pytest.mark.parametrize("field", ["image", "image_path", "file_name"])
@pytest.mark.parametrize("name", ["coco/train/0017.jpg", "https://e.org/0017.jpg", "a.png", "x/a.jpg", "b/c.png"])
def test_a_single_member_may_have_had_another_name(field: str, name: str, folder: Path) -> None:
    assert images_of(of_tar(folder, {"a.png": RED}, {field: name})) == [RED]


OTHERS = {"b.png": BLUE, "b.txt": b"B.", "y/c.png": BLUE, "y/c.txt": b"C."}


@pytest.mark.parametrize("field", ["images", "image", "file_name"])
@pytest.mark.parametrize(
    ("members", "names", "reason"),
    [
        ({"a.png": RED}, ["b.png"], r"names 'b\.png', an image of the record 'b'"),
        ({"a.png": RED}, ["./b.jpg"], r"names '\./b\.jpg', an image of the record 'b'"),
        ({"a.png": RED}, ["y/c.png"], r"names 'y/c\.png', an image of the record 'y/c'"),
        (PAIR, ["a.0.png", "b.png"], r"names 'b\.png', an image of the record 'b'"),
        (PAIR, ["a.0.png", "a.7.png"], r"names 'a\.7\.png', which is not one of its images \(a\.1\.png, a\.0\.png\)"),
        (PAIR, ["a.0.png", "a.0.png"], r"names 'a\.0\.png', which is not one of its images"),
        (PAIR, ["left.png", "right.png"], r"names 'left\.png', which is not one of its images"),
    ],
)
def test_names_that_are_no_members(
    field: str, members: dict[str, bytes], names: list[str], reason: str, folder: Path
) -> None:
    records = of_tar(folder, members | OTHERS, {field: names})
    with pytest.raises(BadRecord, match=rf"r\.tar#a \(record a\): {field} {reason}"):
        records[0]
    assert [records[n].id for n in (1, 2)] == ["b", "y/c"]


def test_fields_that_order_a_tar_differently(folder: Path) -> None:
    fields = {"images": ["0.png", "1.png"], "file_names": ["1.png", "0.png"]}
    with pytest.raises(BadRecord, match="images and file_names name its images in different orders"):
        of_tar(folder, PAIR, fields)[0]


@pytest.mark.parametrize("field", ["images", "img_path", "image_paths"])
@pytest.mark.parametrize("value", [3, {"src": "b.png"}, {"bytes": [1, 2], "path": "red.png"}, ["red.png", 3]])
def test_what_is_no_image_is_named_by_its_field(field: str, value: Any, folder: Path) -> None:
    with pytest.raises(BadRecord, match=f": {field} is neither a path nor a list of paths"):
        of_json(folder, **{field: value})[0]


@pytest.mark.parametrize("value", [["red.png", "blue.png"], "red.png", [[0.5, 0.25]]])
def test_frames_are_images(value: Any, folder: Path) -> None:
    with pytest.raises(BadRecord, match="the field 'frames' looks like an image, but is not read; call it image or"):
        of_json(folder, frames=value)[0]
