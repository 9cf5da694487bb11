"""Which members of a tar file make a record, and what becomes of those that do not."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from eve_jax.data.image_file import image_bytes
from eve_jax.data.record import BadRecord, Fields, UnreadMedia
from eve_jax.data.sources.records import Records, open_records
from eve_jax.errors import UserError
from tests.data.source_files import add_member

BOM = b"\xef\xbb\xbf"


def png(color: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(stream, "PNG")
    return stream.getvalue()


RED, BLUE = png("red"), png("blue")


def opened(folder: Path, members: dict[str, bytes]) -> Records:
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name, data in members.items():
            add_member(tar, name, data)
    return open_records(str(folder / "a.tar"))


def found(records: Records) -> list[tuple[str, list[bytes], str]]:
    return [(r.id, [image_bytes(image) for image in r.images], r.turns[0].text) for r in records]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (  # all images, then all captions
            {"a.png": RED, "b.png": BLUE, "a.txt": b"A", "b.txt": b"B"},
            [("a", [RED], "A"), ("b", [BLUE], "B")],
        ),
        (  # all captions, then all images in another order
            {"a.txt": b"A", "b.json": b'{"caption": "B"}', "b.png": BLUE, "a.png": RED},
            [("a", [RED], "A"), ("b", [BLUE], "B")],
        ),
        (  # names with dots of their own
            {"page.1.png": RED, "page.1.txt": b"A", "page.2.png": BLUE, "page.2.txt": b"B"},
            [("page.1", [RED], "A"), ("page.2", [BLUE], "B")],
        ),
        (  # both at once, and a version number in a folder
            {"v1.0/x.1.png": RED, "v1.0/x.2.png": BLUE, "v1.0/x.2.txt": b"B", "v1.0/x.1.txt": b"A"},
            [("v1.0/x.1", [RED], "A"), ("v1.0/x.2", [BLUE], "B")],
        ),
        (  # numbered images of one sample
            {"p.0.png": RED, "p.1.png": BLUE, "p.json": b'{"caption": "P"}', "q.txt": b"Q"},
            [("p", [RED, BLUE], "P"), ("q", [], "Q")],
        ),
        (  # the same of samples with dots in their names
            {"p.1.0.png": RED, "p.1.1.png": BLUE, "p.1.txt": b"A", "p.2.0.png": BLUE, "p.2.txt": b"B"},
            [("p.1", [RED, BLUE], "A"), ("p.2", [BLUE], "B")],
        ),
        ({"a.png": RED, "a.seg.png": BLUE, "a.txt": b"A"}, [("a", [RED, BLUE], "A")]),
        ({"a.jpg": RED, "a.caption.txt": b"A"}, [("a", [RED], "A")]),
        ({"a.JPG": RED, "a.TXT": b"A"}, [("a", [RED], "A")]),
        (
            {"x/a.png": RED, "y/a.png": BLUE, "x/a.txt": b"X", "y/a.txt": b"Y"},
            [("x/a", [RED], "X"), ("y/a", [BLUE], "Y")],
        ),
        (  # what macOS adds
            {"._a.png": b"?", "__MACOSX/a.txt": b"?", "a.png": RED, "a.txt": b"A", ".DS_Store": b"?"},
            [("a", [RED], "A")],
        ),
        (  # one text twice
            {"a.png": RED, "a.txt": b"A\n", "a.json": b'{"caption": "A", "url": "http://e.org/a.jpg"}'},
            [("a", [RED], "A")],
        ),
        ({"./a.png": RED, "a.txt": b"A"}, [("a", [RED], "A")]),  # one key, however it is written
        ({"x/../a.png": RED, "./a.txt": b"A"}, [("a", [RED], "A")]),
        ({"/x//a.png": RED, "x/./a.txt": b"A"}, [("x/a", [RED], "A")]),
        ({"a.png": RED, "a.txt": b"A", "a": b"7"}, [("a", [RED], "A")]),
        ({"a.png": RED, "a.txt": BOM + b"A", "b.json": BOM + b'{"caption": "B"}'}, [("a", [RED], "A"), ("b", [], "B")]),
    ],
)
def test_members_of_a_record(members: dict[str, bytes], expected: list[tuple], tmp_path: Path) -> None:
    assert found(opened(tmp_path, members)) == expected


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (
            {"a.txt": b"A", "a.json": b'{"caption": "B"}'},
            r"its \.txt and the caption of its \.json are different texts",
        ),
        ({"a.txt": b"A", "a.json": b'{"conversations": [{"from": "gpt", "value": "A"}]}'}, "different texts"),
        ({"a.long.txt": b"A", "a.short.txt": b"B"}, "two caption files of one key with different texts"),
        ({"a.txt": b"A", "a.caption": b"B"}, "two caption files"),
        ({"a.x.json": b'{"caption": "A"}', "a.y.json": b'{"caption": "B"}'}, r"two \.json files .* values of caption"),
        ({"a.json": b'{"caption": "A", "images": ["0.png", "1.png"]}'}, "the files stored .* different images"),
        ({"a.json": b'{"caption": "A"}', "a.txt": b"\xff"}, "its .txt and the caption"),
    ],
)
def test_texts_that_differ_make_a_bad_record(members: dict[str, bytes], reason: str, tmp_path: Path) -> None:
    records = opened(tmp_path, {"a.png": RED, **members})
    assert len(records) == 1
    with pytest.raises(BadRecord, match=rf"a\.tar#a \(record a\): .*{reason}"):
        records[0]


def test_images_and_captions_alone(tmp_path: Path) -> None:
    records = opened(tmp_path, {"a.png": RED, "b.txt": b"B", "c.json": b'{"caption": "C", "image": "gone.png"}'})
    with pytest.raises(BadRecord, match="no conversations, messages or caption"):
        records[0]
    assert records[1].images == ()
    with pytest.raises(BadRecord, match=r"names an image that is not stored with it \(gone\.png\)"):
        records[2]


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("a.png", "a.txt", "b.txt", "x/a.txt", "a.txt"):
            add_member(tar, name, b"A")
    with pytest.raises(UserError, match=r"a\.tar: holds a\.txt twice"):
        open_records(str(tmp_path / "a.tar"))
    with pytest.raises(UserError, match=r"a\.tar: holds a\.png twice"):
        opened(tmp_path, {"a.txt": b"A", "a.png": RED, "./a.png": BLUE})


def test_members_that_are_not_read(tmp_path: Path) -> None:
    members = {"a.png": RED, "a.txt": b"A", "a.cls": b"1", "a.npy": b"?", "readme.md": b"?"}
    records = opened(tmp_path, {**members, "b.json": b'{"caption": "B", "width": 3}'})
    assert [records.read(n)[1] for n in range(2)] == [
        Fields((".png", ".txt"), (".cls", ".npy")),
        Fields(("caption",), ("width",)),
    ]
    for name in ("a.mp4", "a.wav", "a.heic", "a.0.svg"):
        records = opened(tmp_path, {"a.txt": b"A", name: b"?"})
        with pytest.raises(UnreadMedia, match=rf"the member \.{name.rpartition('.')[2]} is not an image format"):
            records[0]


def records_of(n: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for number in range(n):
            add_member(tar, f"{number}.txt", b"A")
            add_member(tar, f"{number}.png", RED)
    return stream.getvalue()


def test_a_file_without_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut off between two members, a file does not show which are missing: its last record may lack an image."""
    with tarfile.open(fileobj=io.BytesIO(records_of(2))) as tar:
        place = tar.getmember("1.png").offset
    for cut in (place, place + 200):
        (tmp_path / f"{cut}.tar").write_bytes(records_of(2)[:cut])
        records = open_records(str(tmp_path / f"{cut}.tar"))
        assert [image_bytes(image) for image in records[0].images] == [RED]
        with pytest.raises(BadRecord, match="the tar file ends within it"):
            records[1]
        assert "has no end-of-archive mark" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["damaged", "zeros", "joined", "text after it"])
def test_a_file_that_goes_on_is_refused(kind: str, tmp_path: Path) -> None:
    data = bytearray(records_of(3))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        place = tar.getmember("1.txt").offset
    if kind == "damaged":
        data[place] ^= 1
    elif kind == "zeros":
        data[place : place + 512] = bytes(512)
    else:
        data += records_of(1) if kind == "joined" else b"?"
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(
        UserError, match=rf"damaged at byte {place}" if kind == "damaged" else "continues after its end"
    ):
        open_records(str(tmp_path / "a.tar"))


@pytest.mark.parametrize("type", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE])
def test_members_that_are_no_files(type: bytes, tmp_path: Path) -> None:
    for name, refused in (("b.png", True), ("b.txt", True), ("latest", False), ("b.cls", False)):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = type, "a.png"
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            add_member(tar, "a.png", RED)
            add_member(tar, "a.txt", b"A")
            tar.addfile(info)
        if not refused:
            assert len(open_records(str(tmp_path / "a.tar"))) == 1
            continue
        with pytest.raises(UserError, match=rf"'{name}' is (a link|no ordinary file).*--dereference"):
            open_records(str(tmp_path / "a.tar"))


def test_images_under_another_ending(tmp_path: Path) -> None:
    records = opened(tmp_path, {"a.txt": b"A", "a.dat": RED, "b.txt": b"B", "b.md": b"BM25, ID3", "b.bin": b""})
    with pytest.raises(UnreadMedia, match=r"the member \.dat"):
        records[0]
    assert records[1].turns[0].text == "B"


@pytest.mark.parametrize("name", ["b", "b.img", "b.0", "b.png.bak", "b.image"])
def test_an_image_of_a_record_without_the_ending_of_one(name: str, tmp_path: Path) -> None:
    ending = f".{name.rpartition('.')[2]}" if "." in name else "without an ending"
    for text in ({"b.txt": b"B"}, {"b.json": b'{"caption": "B"}'}):
        with pytest.raises(UnreadMedia, match=rf"a\.tar#b .*the member {ending} is not an image format that is read"):
            opened(tmp_path, {**text, name: RED})[0]


@pytest.mark.parametrize("name", ["B", "c", "c.img", ".b.png", "._b.png", "__MACOSX/b.png", "x/c.dat"])
def test_an_image_of_no_record(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"a\.tar: {name} holds an image, but belongs to no record"):
        opened(tmp_path, {"b.txt": b"B", "b.png": RED, name: BLUE})
    records = opened(tmp_path, {"b.txt": b"B", "b.png": RED, name: b"No image."})
    assert len(records) == 1


@pytest.mark.parametrize("name", ["B.png", "B.0.png", "x/b.png", "b/0.png", "x/B.mp4", "\u00e9.png"])
def test_an_image_whose_text_has_another_key(name: str, tmp_path: Path) -> None:
    text = "e\u0301.txt" if name == "\u00e9.png" else "b.txt"  # in the other Unicode form
    with pytest.raises(UserError, match=rf"a\.tar: {name} and {text} seem to be one record, but their keys differ"):
        opened(tmp_path, {text: b"B", name: RED})
    # with a text and an image each they are two records
    assert len(opened(tmp_path, {"b.txt": b"B", "b.png": BLUE, "B.png": RED, "B.txt": b"b"})) == 2


def test_images_and_texts_that_never_meet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened(
        tmp_path, {"img_1.png": RED, "img_2.png": BLUE, "txt_1.txt": b"A", "c.txt": b"C", "d.png": RED, "d.txt": b"D"}
    )
    said = capsys.readouterr().err
    assert "3 texts" not in said
    images = "2 images without a text of the same key (the first: img_1.png), "
    assert images + "and 2 texts without an image (the first: txt_1.txt)" in said


@pytest.mark.parametrize("name", ["a.dcm", "a.nii.gz", "a.depth.exr"])
def test_a_scan_is_refused_where_there_is_no_image(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        UnreadMedia, match=rf"a\.tar#a.*: the member \.{name.split('.')[-1 if 'gz' not in name else 1]} is not"
    ):
        opened(tmp_path, {name: b"DICM", "a.txt": b"A"})[0]
    assert found(opened(tmp_path, {name: b"DICM", "a.png": RED, "a.txt": b"A"})) == [("a", [RED], "A")]


LINE = b'{"image": "a.png", "caption": "A"}\n'
LISTS = {
    "data.jsonl": LINE,
    "x/data.NDJSON": LINE,
    "meta.parquet": b"PAR1",
    "data.json": BOM + b"\n [" + LINE + b"]",
    "table.csv": b"a,b",
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_records_is_refused_where_there_is_no_other_text(name: str, tmp_path: Path) -> None:
    about = rf"a\.tar: {name} is a list of records, .* unpack it and set .*data\.records to {name} and .*data\.images"
    for more in ({}, {"a.png": RED, "b.png": BLUE}, {"images/a.png": RED}):
        with pytest.raises(UserError, match=about) as error:
            opened(tmp_path, {**more, name: LISTS[name]})
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_records_next_to_records_is_warned_about(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = opened(tmp_path, {"b.png": RED, "b.txt": b"A", name: LISTS[name]})
    assert records[0].turns[0].text == "A"
    assert f"{name} is a list of records" in capsys.readouterr().err
