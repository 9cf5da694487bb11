"""Which fields hold a record's images and texts, in JSON and in Parquet alike, and what is refused."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eve_jax.data.image_file import StoredImage, image_bytes
from eve_jax.data.record import BadRecord, Fields, Turn, UnreadMedia
from eve_jax.data.sources.records import Records, open_records

TALK = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A dot."}]
CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(color: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name, color in (("a.png", "red"), ("b.png", "blue"), ("sub/c.png", "green")):
        (tmp_path / "images" / name).write_bytes(png(color))
    return tmp_path


def of_json(folder: Path, *records: dict[str, Any], images: str = "images") -> Records:
    (folder / "r.jsonl").write_text("\n".join(map(json.dumps, records)))
    return open_records(str(folder / "r.jsonl"), folder / images if images else "")


def of_parquet(folder: Path, columns: dict[str, Any]) -> Records:
    pq.write_table(pa.table(columns), folder / "r.parquet")
    return open_records(str(folder / "r.parquet"), folder / "images")


def contents(records: Records, index: int = 0) -> list[bytes]:
    return [image_bytes(image) for image in records[index].images]


FIELDS = ["image", "images", "image_path", "image_paths", "img", "img_path"]
NAMES = ["file_name", "filename", "image_name", "image_url", "url"]


@pytest.mark.parametrize("field", FIELDS + NAMES)
@pytest.mark.parametrize("several", [False, True])
def test_fields_of_images(field: str, several: bool, folder: Path) -> None:
    value: Any = ["a.png", "sub/c.png"] if several else "sub/c.png"
    records = of_json(folder, {field: value, "text": "A dot.", "width": 40})
    record, fields = records.read(0)
    assert contents(records) == ([png("red")] if several else []) + [png("green")]
    assert record.turns == (Turn("gpt", "A dot."),)
    assert fields == Fields((field, "text"), ("width",))
    assert contents(of_parquet(folder, {field: [value], "caption": ["A dot."]})) == contents(records)


@pytest.mark.parametrize("empty", [None, [], "", [None], ["", None], {}, {"bytes": None, "path": None}, float("nan")])
@pytest.mark.parametrize("field", ["image", "images", "file_name"])
def test_empty_images(field: str, empty: Any, folder: Path) -> None:
    records = of_json(folder, {field: empty, "caption": "A dot."}, {field: empty, "img": "a.png", "text": "A dot."})
    assert records[0].images == ()
    assert contents(records, 1) == [png("red")]
    assert records.read(1)[1] == Fields(("img", "text"))


def test_empty_images_in_parquet(folder: Path) -> None:
    cells = [{"bytes": png(), "path": None}, {"bytes": None, "path": None}, None, {"bytes": None, "path": ""}]
    cells.append({"bytes": b"", "path": ""})
    talks = {"conversations": [TALK] * 5}
    records = of_parquet(folder, {"image": pa.array(cells, type=CELL), **talks})
    assert [len(record.images) for record in records] == [1, 0, 0, 0, 0]
    assert contents(records) == [png()]
    lists = [[cells[0]], [None], None, [], [{"bytes": None, "path": "b.png"}, cells[0]]]
    records = of_parquet(folder, {"images": pa.array(lists, type=pa.list_(CELL)), **talks})
    assert [len(record.images) for record in records] == [1, 0, 0, 0, 2]
    assert contents(records, 4) == [png("blue"), png()]
    holes = [[cells[0], None], *lists[1:]]
    records = of_parquet(folder, {"images": pa.array(holes, type=pa.list_(CELL)), **talks})
    with pytest.raises(BadRecord, match="images is neither a path nor a list of paths"):
        records[0]


def test_several_fields_of_images(folder: Path) -> None:
    one, two = {"bytes": png(), "path": None}, {"bytes": png("blue"), "path": None}
    columns = {"image": pa.array([None, one, one, one], type=CELL), "caption": ["A dot."] * 4}
    columns["images"] = pa.array([[one], [one], [two], [one, two]], type=pa.list_(CELL))
    columns["image_path"] = pa.array(["x/1.png"] * 4)  # where they came from
    records = of_parquet(folder, columns)
    assert contents(records) == contents(records, 1) == [png()]
    for index in (2, 3):
        with pytest.raises(BadRecord, match="image and images are different images; keep one of them"):
            records[index]

    for fields, used in (
        ({"image": "a.png", "images": ["a.png"]}, ("image", "images")),
        ({"image": "sub/c.png", "file_name": "c.png"}, ("image",)),
        ({"image": "a.png", "url": "https://example.org/x.jpg"}, ("image",)),
        ({"image": "a.png", "coco_url": "https://example.org/y.jpg", "source": "web/a.png"}, ("image",)),
    ):
        records = of_json(folder, {**fields, "text": "A dot."})
        assert len(records[0].images) == 1
        assert records.read(0)[1].used == (*used, "text")
        assert set(records.read(0)[1].unused) == set(fields) - set(used)
    for fields in ({"image": "a.png", "images": ["b.png"]}, {"image": "a.png", "file_name": "b.png"}):
        with pytest.raises(BadRecord, match=r"image and .* are different images"):
            of_json(folder, {**fields, "text": "A dot."})[0]


def test_file_names_are_found_beside_the_metadata(folder: Path) -> None:
    (folder / "0.png").write_bytes(png("white"))
    (folder / "a.png").write_bytes(png("white"))
    lines = [{"file_name": "0.png", "text": "Near."}, {"file_name": "a.png", "text": "Both."}]
    records = of_json(folder, *lines)
    assert [contents(records, n) for n in range(2)] == [[png("white")], [png("red")]]  # config.data.images first
    assert contents(of_json(folder, *lines, images="")) == [png("white")]
    assert of_json(folder, {"file_name": "no.png", "text": "Gone."})[0].images == (f"{folder}/images/no.png",)


def test_names_and_urls_that_are_none_of_images(folder: Path) -> None:
    for fields in ({"url": "https://example.org/page.html"}, {"file_name": "a.txt"}, {"filename": "main.py"}):
        record, found = of_json(folder, {**fields, "text": "Words."}).read(0)
        assert record.images == ()
        assert found == Fields(("text",), tuple(fields))
    for fields in ({"url": "https://example.org/a.jpg?w=3"}, {"image_url": "http://example.org/a"}):
        with pytest.raises(BadRecord, match=r"an image is a URL \(http.*download them first"):
            of_json(folder, {**fields, "text": "Words."})[0]


MEDIA: dict[str, tuple[Any, str]] = {
    "video": ("a.mp4", "holds video or audio, which is not read; remove it"),
    "videos": (["a.mp4"], "video or audio"),
    "audio": ({"array": [0.1], "sampling_rate": 8}, "video or audio"),
    "clip": ("x/clip.webm", "video or audio"),
    "pixel_values": ([[0.1, 0.2]], "looks like an image, but is not read; call it image or images, or remove it"),
    "picture": ("anything", "looks like an image"),
    "thumbnail": ("x/t.jpg", "looks like an image"),
    "second": (["b.png"], "looks like an image"),
    "Image": ("a.png", "looks like an image"),
    "inline": ("data:image/png;base64,AAAA", "looks like an image"),
    "encoded": (base64.b64encode(bytes(png()) + bytes(2000)).decode(), "looks like an image"),
    "nested": ({"path": "b.png"}, "looks like an image"),
    "heic": ("photo.HEIC", "looks like an image"),
    "meta": ({"image": "b.png"}, "looks like an image"),
    "deeper": ({"a": [{"view": {"files": ["b.png"]}}]}, "looks like an image"),
    "objects": ([{"id": 1}] * 9 + [{"image": "b.png"}], "looks like an image"),
    "media": ([{"type": "image", "url": "my b.png"}], "looks like an image"),
    "image_0": ("b.png", "looks like an image"),
    "left_image": ("my b.png", "looks like an image"),
    "img_list": (["b.png"], "looks like an image"),
    "images_list": (["b.png"], "looks like an image"),
    "bytes": (list(png()), "looks like an image"),
    "views": ([{"bytes": list(png())}], "looks like an image"),
    "extra": ({"clip": "a.mp4"}, "video or audio"),
}


@pytest.mark.parametrize("with_image", [False, True])
@pytest.mark.parametrize("name", MEDIA)
def test_media_that_are_not_read_are_refused(name: str, with_image: bool, folder: Path) -> None:
    value, reason = MEDIA[name]
    image = {"image": "a.png"} if with_image else {}
    records = of_json(folder, {"id": 3, **image, name: value, "conversations": TALK})
    with pytest.raises(UnreadMedia, match=rf"r\.jsonl:1 \(record 3\): the field '{name}' .*{reason}") as error:
        records[0]
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([{"bytes": png(), "path": "x.png"}], type=CELL), "'extra' looks like an image"),
        (pa.array([png()]), "'extra' looks like an image"),
        (pa.array([[png()]]), "'extra' looks like an image"),
        (pa.array([b"\0\0\0\x20ftypisom" + bytes(9)]), "'extra' holds video or audio"),
        (pa.array(["b.jpg"]), "'extra' looks like an image"),
    ],
)
def test_media_in_columns_that_are_not_read(column: pa.Array, reason: str, folder: Path) -> None:
    with pytest.raises(UnreadMedia, match=reason):
        of_parquet(folder, {"extra": column, "caption": ["A dot."]})[0]


def test_harmless_fields_are_only_listed(folder: Path) -> None:
    more = {"width": 3, "source": "coco", "score": 0.5, "tags": ["a", "b"], "video": None, "audio": [], "frames": 8}
    more |= {"question": "Which is in x.png?\nThat one.png", "bbox": [[1, 2]], "image_id": 17, "meta": {"k": "v"}}
    record, fields = of_json(folder, {"image": "a.png", "caption": "A dot.", **more}).read(0)
    assert len(record.images) == 1
    assert fields == Fields(("image", "caption"), tuple(key for key, value in more.items() if value not in (None, [])))
    columns = {"image": ["a.png"], "caption": ["A dot."], "blob": [b"\x01\x02"], "embedding": [[0.5, 0.25]]}
    assert of_parquet(folder, columns).read(0)[1] == Fields(("image", "caption"), ("blob", "embedding"))


@pytest.mark.parametrize(
    "fields",
    [
        *({"note": "see 0.png"}, {"comment": "look at 0.png"}, {"meta": {"note": "as in 0.png"}}),
        *({"image": "a.png", **more} for more in ({"source": "photo.jpg"}, {"meta": {"source": "x/photo.jpg"}})),
        *(
            {"image": "a.png", **more}
            for more in ({"photo": "x/a.png"}, {"image_0": "a.png"}, {"meta": {"image": "a.png"}})
        ),
        *({"image": "a.png", **more} for more in ({"left_image": "0001"}, {"meta": {"url": "https://e.org/0.jpg"}})),
        *({"image_0": 17, "image_id": "0001"}, {"image_caption": "none"}, {"meta": {"image": "no", "has_image": "x"}}),
        *({"image_size": [3, 4]}, {"tokens": [137, 80, 78, 70]}, {"bbox": [[1, 2]] * 500 + [["x.png"]]}),
    ],
)
def test_no_false_alarm(fields: dict[str, Any], folder: Path) -> None:
    record, found = of_json(folder, {"conversations": TALK, **fields}).read(0)
    assert len(record.images) == ("image" in fields)
    assert found.unused == tuple(name for name in fields if name != "image")


@pytest.mark.parametrize(
    "fields", [{"image_0": "0001"}, {"imagePath": "0001"}, {"meta": {"img": "0001"}}, {"source": "b.png"}]
)
def test_what_is_an_image_where_there_is_no_other(fields: dict[str, Any], folder: Path) -> None:
    with pytest.raises(UnreadMedia, match=f"the field '{next(iter(fields))}' looks like an image"):
        of_json(folder, {"conversations": TALK, **fields})[0]


def test_urls_that_may_be_of_images_are_counted(folder: Path) -> None:
    def doubts(**fields: Any) -> tuple[str, ...]:
        return of_json(folder, {"conversations": TALK, **fields}).read(0)[1].doubts

    assert doubts(url="https://e.org/abc", link="http://e.org/a/b?c=d") == (
        "no image, but a URL in url",
        "no image, but a URL in link",
    )
    assert doubts(url="https://e.org/abc", image="a.png") == ()
    for url in ("https://e.org", "https://e.org/", "https://e.org/a.html", "https://e.org/a.pdf?x", "e.org/abc"):
        assert doubts(url=url) == ()


def test_a_turn_with_more_than_a_text(folder: Path) -> None:
    turn = {"role": "assistant", "content": "A dot.", "loss": True}
    records = of_json(folder, {"messages": [{"role": "user", "content": "What?"}, turn]})
    assert records.read(0)[1] == Fields(("messages",), ("messages[].loss",))
    talk = [{**TALK[0], "image": "a.png"}, TALK[1]]
    with pytest.raises(UnreadMedia, match=r"the field 'conversations\[\].image' looks like an image"):
        of_json(folder, {"conversations": talk})[0]


def test_bytes_in_json_like_values(folder: Path) -> None:
    value: Any
    for value in ({"bytes": None, "path": "b.png"}, {"path": "b.png"}, {"url": "b.png"}):
        assert contents(of_json(folder, {"image": value, "text": "A dot."})) == [png("blue")]
    for value in ({"bytes": list(png())}, [{"bytes": list(png()), "path": "a.png"}]):
        assert contents(of_json(folder, {"image": value, "text": "A dot."})) == [png()]
    for value in (
        3,
        {"src": "b.png"},
        ["a.png", 3],
        {"bytes": "text", "path": None},
        {"bytes": [1, 2], "path": "b.png"},
    ):
        with pytest.raises(BadRecord, match="image is neither a path nor a list of paths"):
            of_json(folder, {"image": value, "text": "A dot."})[0]
    data = "data:image/png;base64," + base64.b64encode(png()).decode()
    record = of_json(folder, {"image": [data, "a.png"], "text": "A dot."})[0]
    assert isinstance(record.images[0], StoredImage)
    assert str(record.images[0]).endswith("r.jsonl:1[1]")


def test_no_bytes_beside_a_path_are_none(folder: Path) -> None:
    cells = [{"bytes": b"", "path": "b.png"}, {"bytes": b"", "path": None}]
    records = of_parquet(folder, {"image": pa.array(cells, type=CELL), "caption": ["A dot."] * 2})
    assert [contents(records, index) for index in range(2)] == [[png("blue")], []]
    several = pa.array([[{"bytes": b"", "path": "b.png"}, {"bytes": png(), "path": "x.png"}]], type=pa.list_(CELL))
    assert contents(of_parquet(folder, {"images": several, "caption": ["A dot."]})) == [png("blue"), png()]
    assert of_parquet(folder, {"image": [b""], "caption": ["A dot."]})[0].images == ()


@pytest.mark.parametrize("kind", [pa.uint8(), pa.int64()])
def test_lists_of_numbers_are_bytes(kind: pa.DataType, folder: Path) -> None:
    one = pa.array([list(png())], type=pa.list_(kind))
    assert contents(of_parquet(folder, {"image": one, "caption": ["A dot."]})) == [png()]
    two = pa.array([[list(png()), list(png("blue"))]], type=pa.list_(pa.list_(kind)))
    assert contents(of_parquet(folder, {"images": two, "caption": ["A dot."]})) == [png(), png("blue")]
    assert contents(of_json(folder, {"image": list(png()), "text": "A dot."})) == [png()]
    parts = [{"type": "image", "image": list(png())}, {"type": "text", "text": "What?"}]
    assert contents(of_json(folder, {"messages": [{"role": "user", "content": parts}]})) == [png()]


@pytest.mark.parametrize("time", [1_700_000_000_000_000_001, 9_000_000_000_000_000_000])
def test_times_that_python_cannot_hold(time: int, folder: Path) -> None:
    unit = "ns" if time % 1000 else "us"
    at = pa.array([time], pa.int64()).cast(pa.timestamp(unit))
    nested = pa.StructArray.from_arrays([at, pa.array(["x"])], ["at", "by"])
    several = pa.ListArray.from_arrays([0, 1], nested)
    columns = {"at": at, "made": nested, "log": several, "caption": ["A dot."], "image": ["b.png"]}
    records = of_parquet(folder, columns)
    assert contents(records) == [png("blue")]
    assert records.read(0)[1] == Fields(("image", "caption"), ("at", "made", "log"))
    known = records.fingerprint()
    assert known == open_records(str(folder / "r.parquet"), folder / "images").fingerprint()
    assert of_parquet(folder, columns | {"caption": ["A dab."]}).fingerprint() != known
