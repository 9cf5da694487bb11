"""Tokens become text in pieces that add up, and end at stop strings wherever those are cut."""

import random

import pytest

from eve_jax.infer.requests import Finish, Token
from eve_jax.serve.streams import Choice
from eve_jax.serve.text import WINDOW, Detokenizer, StopStrings, Stripped, spelled
from tests.data.synthetic import byte_tokenizer

TOKENIZER = byte_tokenizer()
TEXT = "Ein réd bus, 图片 und 😀. " * 12 + "\ufffd end"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 500])
def test_pieces_add_up_and_hold_whole_characters(size: int) -> None:
    ids = TOKENIZER.encode(TEXT)
    assert len(ids) > 4 * WINDOW
    text = Detokenizer(TOKENIZER.decode)
    pieces = [text.push(ids[at : at + size]) for at in range(0, len(ids), size)]
    assert "".join([*pieces, text.push([], last=True)]) == TEXT
    assert not any("\ufffd" in piece for piece in pieces[: len(pieces) // 2])


def test_half_of_a_character_at_the_end_is_given_there_alone() -> None:
    text = Detokenizer(TOKENIZER.decode)
    ids = TOKENIZER.encode("a图")
    assert [text.push([token]) for token in ids[:-1]] == ["a", "", ""]
    assert text.push([], last=True) == "\ufffd"


def test_text_after_other_tokens() -> None:
    before = TOKENIZER.encode("so 图")
    text = Detokenizer(TOKENIZER.decode, before[:-1])
    assert text.push(before[-1:]) + text.push(TOKENIZER.encode("x")) == "图x"


@pytest.mark.parametrize("seed", range(20))
def test_stop_strings_end_text_at_the_first_place(seed: int) -> None:
    draw = random.Random(seed)
    text = "".join(draw.choices("ab", k=60))
    stops = ["".join(draw.choices("ab", k=draw.randint(3, 6))) for _ in range(3)]
    stop = StopStrings(stops)
    given, at = "", 0
    while at < len(text) and stop.found is None:
        size = draw.randint(1, 4)
        given, at = given + stop.push(text[at : at + size]), at + size
    given += stop.push("", last=True)
    places = [text.find(one) for one in stops if one in text]
    assert given == (text[: min(places)] if places else text)
    assert (stop.found in stops) == bool(places)


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    stop = StopStrings(["END"])
    assert [stop.push(piece) for piece in ("a E", "N", "x", "EN", "D", "more")] == ["a ", "", "ENx", "", "", ""]
    assert stop.found == "END"


def test_white_space_at_the_ends_is_left_out() -> None:
    strip = Stripped()
    assert [strip.push(piece) for piece in (" ", "\n a ", " b", "  ")] == ["", "a", "  b", ""]
    assert strip.push("", last=True) == ""


@pytest.mark.parametrize(
    ("stops", "said", "reason", "stop", "count"),
    [
        ([], " a bus. ", "length", None, 8),
        (["b"], " a bus. ", "stop", "b", 4),
        ([" b"], " a bus. ", "stop", " b", 4),
        (["."], " a bus.", "stop", ".", 7),
    ],
)
@pytest.mark.parametrize("size", [1, 100])
def test_choices(stops: list[str], said: str, reason: str, stop: str | None, count: int, size: int) -> None:
    choice = Choice(0, TOKENIZER.decode, stops)
    ids = TOKENIZER.encode(said)
    text = ""
    for at in range(0, len(ids), size):
        last = at + size >= len(ids)
        piece = choice.feed([Token(id) for id in ids[at : at + size]], Finish("length") if last else None)
        text += piece.text
        if choice.done:
            break
    expected = said.partition(stop)[0] if stop else said
    assert (text, piece.reason, piece.stop, choice.count) == (expected.strip(), reason, stop, count)


def test_tokens_are_spelled_with_their_bytes() -> None:
    ids = TOKENIZER.encode("é<|im_end|>")
    assert [spelled(TOKENIZER, id) for id in ids] == [
        ("\ufffd", [0xC3]),
        ("\ufffd", [0xA9]),
        ("<|im_end|>", list(b"<|im_end|>")),
    ]
