"""Markers: places and tags that are text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eve_jax.data.markers import count_markers, escape_markers, split_markers

texts = st.lists(st.sampled_from(["<image>", "\\", "a", "\n", "<", "image>", "<Image>", "é"]), max_size=8).map("".join)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", [""]),
        ("a<image>b", ["a", "b"]),
        ("<image><image>", ["", "", ""]),
        (r"\<image>", ["<image>"]),
        (r"\\<image>", ["\\", ""]),
        (r"\\\<image>", [r"\<image>"]),
        (r"C:\<image> \n", [r"C:<image> \n"]),
    ],
)
def test_pieces(text: str, pieces: list[str]) -> None:
    assert split_markers(text) == pieces
    assert count_markers(text) == len(pieces) - 1


@given(texts)
def test_escaped_text_reads_as_itself(text: str) -> None:
    assert split_markers(escape_markers(text)) == [text]


@given(st.lists(texts, min_size=1, max_size=4))
def test_escaped_texts_between_places(pieces: list[str]) -> None:
    written = "\n<image>".join(map(escape_markers, pieces))
    assert "".join(split_markers(written)) == "\n".join(pieces)
    assert count_markers(written) == len(pieces) - 1
