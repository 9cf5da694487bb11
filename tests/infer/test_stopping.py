"""Answers end before stop strings, whichever way they are asked for."""

import itertools
import random
from typing import Any

import pytest

from eve_jax import EVE
from eve_jax.infer.messages import answer_of, text_of
from tests.data.synthetic import byte_tokenizer

TOKENIZER = byte_tokenizer()


@pytest.mark.parametrize("seed", range(20))
def test_no_more_tokens_are_taken_than_complete_a_stop_string(seed: int) -> None:
    draw = random.Random(seed)
    text = "".join(draw.choices(" ab图", k=60))
    stops = ["".join(draw.choices(" ab图", k=draw.randint(2, 4))) for _ in range(3)]
    ids = TOKENIZER.encode(text)
    given = answer_of(ids, TOKENIZER.decode, stops)
    places = [text.find(one) for one in stops if one in text]
    assert given.text == (text[: min(places)] if places else text).strip() == text_of(ids, TOKENIZER.decode, stops)
    complete = next((n for n in range(1, len(ids)) if any(s in TOKENIZER.decode(ids[:n]) for s in stops)), len(ids))
    assert given.new_ids == ids[:complete]


@pytest.mark.parametrize(("stop", "text"), [("\n", ""), ("\n\n", "a\nb"), (" b", "a\nb\n\nc")])
def test_white_space_may_stop_an_answer(stop: str, text: str) -> None:
    assert answer_of(TOKENIZER.encode("\na\nb\n\nc b"), TOKENIZER.decode, [stop]).text == text


def test_every_door_ends_at_the_same_place(eve: EVE) -> None:
    whole = eve.answer("Why?", max_new_tokens=9)
    raw = eve.tokenizer.decode(whole.new_ids)
    stop = raw[len(raw) // 2 : len(raw) // 2 + 2]
    how: Any = {"max_new_tokens": 9, "stop": ["nowhere", stop]}
    expected = raw[: raw.index(stop)].strip()
    answer, talk = eve.answer("Why?", **how), eve.chat()
    assert answer.text == expected and answer.new_ids == whole.new_ids[: len(answer.new_ids)] != whole.new_ids
    assert eve.generate("Why?", **how) == "".join(eve.stream("Why?", **how)) == expected
    assert eve.generate_batch(["Why?"], max_new_tokens=9, stop=stop) == [expected]
    assert talk.ask("Why?", **how) == answer == talk.answer
    spoken = eve.chat()
    assert "".join(spoken.stream("Why?", **how)) == expected and spoken.answer == answer
    further = [chat.ask("And?", max_new_tokens=3).new_ids for chat in (talk, spoken)]
    assert further[0] == further[1] and talk.tokens == spoken.tokens
    first = itertools.islice(eve.stream("Why?", max_new_tokens=9, stop="nowhere"), 1)
    assert whole.text.startswith(next(first, ""))
