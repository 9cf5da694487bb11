"""Image paths and URIs in the spellings that data sets have them in."""

import base64
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from eve_jax.data.image_file import StoredImage, image_bytes
from eve_jax.data.record import BadRecord
from eve_jax.data.sources.image_refs import find_file, to_image

NFC, NFD = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("stored", "written"),
    [
        ("with space.png", "with%20space.png"),
        ("50%25.png", "50%25.png"),  # as written comes first
        ("50%.png", "50%25.png"),
        ("sub/b.png", "sub\\b.png"),
        ("sub\\b.png", "sub\\b.png"),
        (NFD, NFC),
        (NFC, NFD),
        (NFD, "%C3%A9.png"),
        ("sub/" + NFD, "sub\\" + NFC),
        ("sub/with space.png", "sub\\with%20space.png"),
    ],
)
def test_spellings(stored: str, written: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / stored).write_bytes(b"x")
    assert find_file(written, [str(tmp_path)]) == str(tmp_path / stored)
    assert find_file(str(tmp_path / written), [""]) == str(tmp_path / stored)


def test_file_uris(tmp_path: Path) -> None:
    (tmp_path / "with space.png").write_bytes(b"x")
    for head in ("file://", "file://localhost", "file:", "FILE://"):
        assert to_image(f"{head}{tmp_path}/with%20space.png", "", [""]) == f"{tmp_path}/with space.png"
    (tmp_path / "100%.png").write_bytes(b"x")
    assert to_image(f"file://{tmp_path}/100%.png", "", [str(tmp_path)]) == f"{tmp_path}/100%.png"


def test_a_plain_path_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Any) -> bool:
        raise AssertionError(path)

    monkeypatch.setattr("os.path.exists", fail)
    assert to_image("sub/a b.png", "", ["images"]) == "images/sub/a b.png"
    assert to_image("/abs/a.png", "", [""]) == "/abs/a.png"


def test_data_uris() -> None:
    data = bytes(range(256))
    encoded = base64.b64encode(data).decode()
    for uri in (
        f"data:image/png;base64,{encoded}",
        f"DATA:image/jpeg;name=a.jpg;base64,{encoded[:40]}\n{encoded[40:]}",
        f"data:;base64,{encoded.replace('+', '%2B').replace('/', '%2F')}",
        "data:image/png," + "".join(f"%{byte:02x}" for byte in data),
    ):
        image = to_image(uri, "r.jsonl:1[1]", ["images"])
        assert isinstance(image, StoredImage)
        assert str(image) == "r.jsonl:1[1]"
        assert image_bytes(image) == data
        assert to_image(uri, "r.tar#a[1]", None) is not image  # needs no folder


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("data:image/png;base64," + "A" * 1_000_001, r"a data URI that is not valid base64 \("),
        ("data:image/png;base64,###" + "A" * 1_000_000, r"a data URI that is not valid base64 \("),
        ("data:text/html;base64,AAAA", r"a data URI of another type \(text/html\)"),
        ("data:image/png;base64" + "A" * 1_000_000, "a data URI without a comma before its data"),
        ("http://example.org/a.png", r"a URL \(http://example.org/a.png\); images are read from files: download"),
        ("HTTPS://example.org/" + "a" * 1_000_000, r"a URL \(HTTPS://example.org/a.*download them first"),
        ("gs://bucket/a.png", "a URL"),
        ("s3://bucket/a.png", "a URL"),
        ("iVBORw0KGgo" + "A" * 1_000_000, "cannot be read .* begins with data:image/png;base64,"),
        ("a\0b.png", "an image path has a NUL character"),
        ("file://otherhost/tmp/a.png", r"a file of another computer \(otherhost\); copy it .* file:///PATH"),
        ("FILE://localhost.org/a.png", r"another computer \(localhost.org\)"),
        ("file://[::1/a.png", r"another computer \("),
        ("file://a.png", r"another computer \(a.png\)"),
        ("\ud800.png", "not valid UTF-8"),
    ],
)
def test_what_is_refused(value: str, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason) as error:
        to_image(value, "", ["images"])
    assert len(str(error.value)) < 600
    assert len(error.value.image) < 600
    assert "\n" not in str(error.value)


EDITS = ["crop", "bbox", "mask", "rotate", "resize", "rotation_angle", "cropBox", "center_crop", "flip_horizontal"]
EDITS += ["Transforms", "grayscale", "pad", "zoom", "rot90", "scale", "clip"]


@pytest.mark.parametrize("key", EDITS)
def test_an_edit_that_is_not_made_is_refused(key: str) -> None:
    value = {"path": "a.png", key: [0, 0, 8, 8]}
    with pytest.raises(BadRecord, match=f"^left has {key}, which is not read; apply it to the image file"):
        to_image(value, "here", [""], "left")
    assert to_image({**value, key: None}, "here", ["f"]) == "f/a.png"


NO_EDITS: list[dict[str, Any]] = [
    {"rotate": 0},
    {"flip": False},
    {"flip": "none"},
    {"scale": 1},
    {"zoom": 1.0},
    {"orientation": 1},
    {"mask_id": "7"},
]
NO_EDITS += [
    {"detail": "high"},
    {"width": 40},
    {"page": 0},
    {"page": 3},
    {"box_labels": ["dog"]},
    {"crop": {"x": None}},
]


@pytest.mark.parametrize("more", NO_EDITS)
def test_what_edits_nothing(more: dict[str, Any]) -> None:
    assert to_image({"path": "a.jpg", **more}, "here", ["f"]) == "f/a.jpg"


@pytest.mark.parametrize("more", [{"frame": 2}, {"page": 1}, {"page_index": 4}, {"layer": 1}])
def test_a_further_frame_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(BadRecord, match=f"^image has {next(iter(more))}, which is not read"):
        to_image({"path": "a.tiff", **more}, "here", [""])


def test_edits_in_an_inner_object_are_refused() -> None:
    with pytest.raises(BadRecord, match="image has rotate, which"):
        to_image({"image": {"url": "a.png", "rotate": 90}}, "here", [""])


TWO = [
    {"path": "a.png", "url": "b.png"},
    {"image": {"url": "a.png"}, "path": "b.png"},
    {"image_url": "a", "image": "b"},
]
ONE: list[dict[str, Any]] = [
    {"path": "a.png", "url": "https://e.org/b.png"},  # where the file is from
    {"path": "a.png", "image": "/data/a.png"},
    {"path": "a.png", "image_url": {"url": "a.png"}},
]


@pytest.mark.parametrize("value", TWO)
def test_an_object_that_names_two_images_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(BadRecord, match=r"^left names different images under (image|path) and "):
        to_image(value, "here", [""], "left")


@pytest.mark.parametrize("value", ONE)
def test_an_object_that_names_an_image_twice(value: dict[str, Any]) -> None:
    assert str(to_image(value, "here", [""])).endswith("a.png")
