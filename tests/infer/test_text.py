"""Messages and pictures in, text out in whole characters."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eve_jax.data.records import Turn
from eve_jax.errors import UserError
from eve_jax.infer.text import text_pieces, to_pictures, to_turns
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


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"role": "tool", "content": "x"}], r"messages\[0\]: role 'tool' is none of user"),
        ([{"role": "user", "content": ["x"]}], r"messages\[0\]: content is no text but list"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "the last one must be the user's"),
        ([], "the last one must be the user's"),
        ({"role": "user", "content": "x"}, "expected a question, or a list"),
        (["x", "y"], "expected a question, or a list"),
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
    grey = Image.fromarray(np.full((4, 5), 40_000, np.uint16))
    shown = [*to_pictures(tmp_path / "a.png"), *to_pictures(Image.open(tmp_path / "turned.png"))]
    shown += to_pictures([str(tmp_path / "turned.png"), picture])
    for rgb in shown:
        np.testing.assert_array_equal(np.asarray(rgb), pixels)
    assert to_pictures([grey])[0].getcolors() == [(20, (156, 156, 156))]


def test_pictures_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(UserError, match=r"a\.png: not an image"):
        to_pictures([tmp_path / "a.png"])
    with pytest.raises(UserError, match="missing file"):
        to_pictures("nowhere.png")
    with pytest.raises(UserError, match=r"images\[1\]: expected a path or a PIL image, not ndarray"):
        to_pictures([Image.new("RGB", (2, 2)), np.zeros((2, 2, 3))])  # type: ignore[list-item]


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
