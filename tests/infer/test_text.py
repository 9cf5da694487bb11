"""Messages and images in, text out in whole characters."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eve_jax.data.image.patches import open_image
from eve_jax.data.record import Turn
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from eve_jax.infer.messages import text_pieces, to_images, to_turns
from tests.data.synthetic import byte_tokenizer


def test_messages():
    asked = [Turn("system", "Be brief."), Turn("human", "Hi"), Turn("gpt", "Hello."), Turn("human", "Why?")]
    openai = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Why?"},
    ]
    llava = [{"from": t.role, "value": t.text} for t in asked]
    assert to_turns(openai) == to_turns(llava) == asked
    assert to_turns("Why?") == [Turn("human", "Why?")]
    assert to_turns([{"role": "user", "content": "Why?", "images": [], "name": None}]) == [Turn("human", "Why?")]


def said(role: str) -> dict[str, str]:
    return {"role": role, "content": "x"}


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"role": "tool", "content": "x"}], r"messages\[0\]: role 'tool' is none of user"),
        ([{"role": "user", "content": ["x"]}], r"messages\[0\]: content is no text but list"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "the last one must be the user's"),
        ([], "the last one must be the user's"),
        ({"role": "user", "content": "x"}, "expected a question, or a list"),
        (["x", "y"], "expected a question, or a list"),
        (None, "expected a question, or a list"),
        (b"Why?", "expected a question, or a list"),
        (3, "expected a question, or a list"),
        ({}, "expected a question, or a list"),
        ((m for m in [{"role": "user", "content": "x"}]), "expected a question, or a list"),
        ([{"role": "user"}], r"messages\[0\]: content is no text but NoneType"),
        ([{"content": "x"}], r"messages\[0\]: role None is none of user"),
        ([{"role": ["user"], "content": "x"}], r"messages\[0\]: role \['user'\] is none of user"),
        ([said("user"), said("user")], r"messages\[0\] and messages\[1\] are of one role in a row; make one message"),
        ([said("system"), said("developer"), said("user")], r"messages\[0\] and messages\[1\] are of one role"),
        ([said("user"), said("bot"), said("gpt"), said("user")], r"messages\[1\] and messages\[2\] are of one role"),
        ([said("user"), said("system"), said("user")], r"messages\[0\] and messages\[1\] .*the system's comes first"),
        ("a\ud800b", r"messages\[0\]: character 2 is '\\ud800', half of a surrogate pair"),
        ([{"role": "system", "content": "\udcff"}, {"role": "user", "content": "x"}], r"messages\[0\]: character 1"),
        (
            [{"role": "user", "content": "x", "image": "a.png"}],
            r"messages\[0\]: the key 'image' is .* into `images`$",
        ),
        (
            [{"role": "user", "content": "x", "images": ["a.png"]}],
            r"messages\[0\]: the key 'images' is .* into `images`$",
        ),
        ([{"role": "user", "content": "x", "image": Image.new("RGB", (2, 2))}], r"messages\[0\]: the key 'image' is"),
        ([{"role": "user", "content": "x", "image": np.zeros((2, 2))}], r"messages\[0\]: the key 'image' is"),
        (
            [{"role": "system", "content": "x"}, {"role": "user", "content": "x", "weight": 0}],
            r"messages\[1\]: the key 'weight' is not read, only role and content are; remove it$",
        ),
        ([{"role": "user", "from": "gpt", "content": "x"}], r"messages\[0\]: role and from differ"),
        ([{"role": "user", "content": "x", "value": "y"}], r"messages\[0\]: content and value differ"),
    ],
)
def test_messages_that_are_none(messages, says):
    with pytest.raises(UserError, match=says):
        to_turns(messages)


def test_pictures(tmp_path: Path) -> None:
    pixels = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "a.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=turned)
    gray = Image.fromarray(np.full((4, 5), 40_000, np.uint16))
    shown = [*to_images(tmp_path / "a.png"), *to_images(Image.open(tmp_path / "turned.png"))]
    shown += to_images([str(tmp_path / "turned.png"), picture])
    for rgb in shown:
        np.testing.assert_array_equal(np.asarray(rgb), pixels)
    assert to_images([gray])[0].getcolors() == [(20, (156, 156, 156))]


def test_pictures_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(UserError, match=r"a\.png: not an image"):
        to_images([tmp_path / "a.png"])
    with pytest.raises(UserError, match="missing file"):
        to_images("nowhere.png")
    with pytest.raises(UserError, match=r"images\[1\]: expected a path or a PIL image, not ndarray"):
        to_images([Image.new("RGB", (2, 2)), np.zeros((2, 2, 3))])  # type: ignore[list-item]


@pytest.mark.parametrize("images", [None, [], ()])
def test_no_pictures(images: Any) -> None:
    assert to_images(images) == []


GOOD = Image.new("RGB", (2, 2))


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([None, 7], r"images\[1\]: expected a path or a PIL image, not int"),
        ([GOOD, [GOOD]], r"images\[1\]: expected a path or a PIL image, not list"),
        (np.zeros((2, 2, 3), np.uint8), "images: expected a path or a PIL image or a list of those, not ndarray"),
        (b"\x89PNG", "images: expected a path or a PIL image or a list of those, not bytes"),
        ([b"\x89PNG"], r"images\[0\]: expected a path or a PIL image, not bytes"),
        (io.BytesIO(b"x\ny"), "images: expected a path or a PIL image or a list of those, not BytesIO"),
        ({"a": 1}, "images: expected a path or a PIL image or a list of those, not dict"),
        (7, "images: expected a path or a PIL image or a list of those, not int"),
        ([GOOD, "nowhere.png"], r"images\[1\]: nowhere\.png: missing file"),
        (Path("nowhere.png"), r"images: nowhere\.png: missing file"),
        ("~/nowhere/at/all.png", r"images: /.*/nowhere/at/all\.png: missing file"),
        ("", "images: the path is empty"),
        ([None, " "], r"images\[1\]: the path is empty"),
        ("data:image/png;base64,%%%", "images: an image is a data URI that is not valid base64"),
        (["data:image/png;base64,AAAA"], r"images\[0\]: the data URI: not an image of a format that is read"),
        (["data:text/html,x"], r"images\[0\]: an image is a data URI of another type \(text/html\)"),
        ("data:image/png", "images: an image is a data URI without a comma"),
        ("https://x.org/a.png", r"images: an image is a URL \(https://x\.org/a\.png\).*download them first"),
        ("file:///nowhere.png", r"images: file:///nowhere\.png: missing file"),
        ("a\0b", "images: an image path has a NUL character"),
        ("file://other.org/tmp/a.png", r"images: an image is a file of another computer \(other\.org\)"),
        ("x" * 9000, r"images: an image path cannot be read \(9,000 characters"),
        (".", r"images: \.: cannot be read"),
    ],
)
def test_images_of_other_kinds(images: Any, says: str) -> None:
    with pytest.raises(UserError, match=f"^{says}") as error:
        to_images(images)
    assert "\n" not in str(error.value)


def test_references_as_in_records(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (4, 5, 3), np.uint8)
    (tmp_path / "b c").mkdir()
    for name in ("a.png", "b c/é.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    data = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    plain = "".join(f"%{byte:02x}" for byte in (tmp_path / "a.png").read_bytes())
    references = [
        f"data:image/png;base64,{data}",
        f"DATA:;base64,{data}",
        f"data:image/png,{plain}",
        f"file://{tmp_path}/a.png",
        f"file://localhost{tmp_path}/a.png",
        (tmp_path / "b c" / "é.png").as_uri(),
        f"{tmp_path}/b%20c/e%CC%81.png",
        f"{tmp_path}\\b c\\é.png",
    ]
    for rgb in [*to_images(references), *(to_images(one)[0] for one in references)]:
        np.testing.assert_array_equal(np.asarray(rgb), pixels)
    record = tmp_path / "records.jsonl"
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]
    record.write_text("\n".join(json.dumps({"image": one, "conversations": turns}) for one in references))
    for one in open_records(str(record), tmp_path):
        np.testing.assert_array_equal(np.asarray(open_image(one.images[0])), pixels)


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("RGB", (3, 2), "red").save(tmp_path / "a.png")
    for path in ("~/a.png", Path("~/a.png")):
        assert to_images(path)[0].getcolors() == [(6, (255, 0, 0))]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def cut_off(kind: str) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind).getvalue()
    return Image.open(io.BytesIO(data[: len(data) // 2]))


def closed() -> Image.Image:
    with Image.open(encoded(GOOD)) as image:
        pass
    return image


def closed_after_loading() -> Image.Image:
    image = Image.new("RGB", (2, 2))
    image.close()
    return image


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: cut_off("PNG"), "cannot be decoded"),
        (lambda: cut_off("JPEG"), r"cannot be decoded \(OSError: image file is truncated"),
        (lambda: cut_off("TIFF"), "cannot be decoded"),
        (closed, "was closed before its pixels were read"),
        (closed_after_loading, r"cannot be decoded \(ValueError: Operation on closed image"),
        (lambda: Image.new("RGB", (0, 5)), "has no pixels"),
        (lambda: Image.new("L", (5, 0)), "has no pixels"),
        (lambda: Image.fromarray(np.full((2, 2), np.nan, np.float32)), "has no finite pixel"),
        (lambda: Image.open(encoded(GOOD, "EPS")), "EPS is no image but a program"),
    ],
)
def test_pil_images_that_break(make: Callable[[], Image.Image], says: str) -> None:
    for images, name in ((make(), "images"), ([GOOD, make()], r"images\[1\]")):
        with pytest.raises(UserError, match=f"^{name}: {says}") as error:
            to_images(images)
        assert "\n" not in str(error.value)


ORIENTATION = b"\x12\x01"
MEANINGLESS = {  # type, count and value of the EXIF field
    "text": b"\x02\x00\x02\x00\x00\x006\x00\x00\x00",
    "zero": b"\x03\x00\x01\x00\x00\x00\x00\x00\x00\x00",
    "nine": b"\x03\x00\x01\x00\x00\x00\x09\x00\x00\x00",
    "fraction by zero": b"\x05\x00\x01\x00\x00\x00\x00\x00\x00\x00",
    "beyond the end": b"\x05\x00\x01\x00\x00\x00\xff\xff\xff\x00",
}


@pytest.mark.parametrize("value", MEANINGLESS)
def test_orientation_of_no_meaning(value: str) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + ORIENTATION + MEANINGLESS[value] + bytes(4)
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    (shown,) = to_images(Image.open(encoded(Image.fromarray(pixels), exif=exif)))
    np.testing.assert_array_equal(np.asarray(shown), pixels)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("loaded", [False, True])
def test_pil_images_are_turned_once_and_stay_as_they_are(kind: str, loaded: bool) -> None:
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    file = encoded(Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90), kind, exif=exif, **options)
    image = Image.open(file)
    if loaded:
        image.load()
    before = image.copy() if loaded else None
    for _ in range(2):
        np.testing.assert_array_equal(np.asarray(to_images(image)[0]), pixels)
    if before is not None:
        assert (image.mode, image.size, image.tobytes()) == (before.mode, before.size, before.tobytes())
    image.getpixel((0, 0))  # still open
    np.testing.assert_array_equal(np.asarray(to_images(image.copy())[0]), pixels)


def test_a_pil_image_is_taken_at_its_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "lime", "blue")]
    image = Image.open(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    for frame, color in ((2, (0, 0, 255)), (0, (255, 0, 0)), (1, (0, 255, 0))):
        image.seek(frame)
        assert to_images(image)[0].getcolors() == [(16, color)]
        assert image.tell() == frame


@pytest.mark.parametrize(
    "text",
    [
        " The bus. ",
        "  é 中文 👩‍👩‍👧 end\n\n",
        "",
        "   ",
        "a  b",
        "broken \ufffd inside",
    ],
)
def test_pieces_add_up_and_never_split_a_character(text):
    tokenizer = byte_tokenizer()

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids).strip()

    pieces = list(text_pieces(tokenizer.encode(text), decode))
    assert "".join(pieces) == text.strip()
    assert all(piece and set(piece) <= set(text) for piece in pieces)


def test_pieces_of_a_cut_character():
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("a 中")[:-1]
    pieces = list(text_pieces(ids, lambda ids: tokenizer.decode(ids).strip()))
    assert "".join(pieces) == tokenizer.decode(ids)
    assert pieces[0] == "a"
