"""What is kept of earlier prompts: hits are counted, and answers are those without them."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from eve_jax.batch import Layout
from eve_jax.data.rows.spell import spell_out
from eve_jax.infer.engine import Engine
from eve_jax.infer.prefix import Items, Kept, PrefixStore
from eve_jax.infer.prompt import Prompt
from eve_jax.infer.requests import Request
from eve_jax.infer.scheduler import Scheduler, SchedulerSettings
from tests import reference as ref
from tests.infer.mixed import Heard, Picture, alone, picture, prompt, words

SETTINGS = SchedulerSettings(slots=2, context=160, chunk=16, block=4, prefix_bytes=2**20)
RNG = np.random.default_rng(5)
SYSTEM, IMAGE, OTHER = words(RNG, 20), picture(RNG, 5, 6), picture(RNG, 5, 6)
SEEN = 20 + 1 + 5 * 7


@pytest.fixture(scope="module")
def engine() -> Engine:
    cfg = ref.config()
    return Engine(cfg, ref.params(cfg))


def about(image: Picture, *text: int, **settings: Any) -> Request:
    return Request(prompt([*SYSTEM, ref.IMAGE_ID, *text], image), 5, **settings)


def answered(scheduler: Scheduler, *requests: Request) -> list[int]:
    """Tokens of each request that came from the cache; every answer is that of the request alone."""
    heard = Heard()
    tickets = [scheduler.submit(request, heard.listener(number)) for number, request in enumerate(requests)]
    while scheduler.busy:
        scheduler.turn()
    for number, request in enumerate(requests):
        assert heard.ids(number) == alone(scheduler.engine, request)
    return [ticket.cached_tokens for ticket in tickets]


def test_many_questions_about_an_image_read_it_once(engine):
    """One after the other, and together: a row that is answered from is copied."""
    scheduler = Scheduler(engine, SETTINGS)
    assert answered(scheduler, about(IMAGE, 30, 31)) == [0]
    assert answered(scheduler, about(IMAGE, 40)) == [SEEN]
    assert answered(scheduler, *(about(IMAGE, 50 + n, 51) for n in range(4))) == [SEEN] * 4
    assert answered(scheduler, about(OTHER, 30), about(OTHER, 31), about(OTHER, 30, 31)) == [20, SEEN, SEEN]
    stats = scheduler.stats()
    assert stats.prefix_hits == 5 * SEEN + 20 + 2 * SEEN
    assert stats.prefix_queries == 9 * SEEN + 2 + 1 + 4 * 2 + 1 + 1 + 2


def test_a_further_turn_reads_what_is_new(engine):
    """The prompt, and the answer but for its last token, which never entered the cache."""
    scheduler = Scheduler(engine, SETTINGS)
    first = about(IMAGE, 30, 31)
    answered(scheduler, first)
    ids = [*first.prompt.ids.tolist(), *alone(engine, first), 60, 61]
    second = replace(first, prompt=replace(first.prompt, ids=np.array(ids, np.int32)))
    assert answered(scheduler, second) == [SEEN + 2 + 4]


def test_the_same_prompt_reads_its_last_token_again(engine):
    scheduler = Scheduler(engine, SETTINGS)
    assert answered(scheduler, about(IMAGE, 30, 31), about(IMAGE, 30, 31)) == [0, SEEN + 1]


def test_what_is_another_prefix(engine):
    """Other pixels, another grid, another salt."""
    scheduler = Scheduler(engine, replace(SETTINGS, slots=1))
    reshaped = IMAGE[0], (6, 5)
    requests = [about(IMAGE, 30), about(OTHER, 30), about(reshaped, 30), about(IMAGE, 30, salt="a")]
    assert answered(scheduler, *requests) == [0, 20, 20, 0]


def test_rows_that_are_overwritten_are_kept(engine):
    """With one slot: the image's row is copied out for another prompt, and back; without room for it, it is read."""
    other = Request(prompt(words(RNG, 30)), 5)
    for size, hit in ((2**20, SEEN), (0, 0)):
        scheduler = Scheduler(engine, replace(SETTINGS, slots=1, prefix_bytes=size))
        assert answered(scheduler, about(IMAGE, 30, 31), other, about(IMAGE, 40)) == [0, 0, hit]
        assert len(scheduler.rows.store) == (2 if size else 0)
        assert scheduler.rows.store.bytes <= size


def kept(*ids: int, size: int = 10) -> Kept:
    row = jax.numpy.zeros(1)
    return Kept(Items.of(prompt(ids)), [(row, row)], size)


def test_the_store_keeps_what_was_used_last():
    store = PrefixStore(30)
    first, second, third = kept(1, 2, 3), kept(1, 2, 4), kept(5, 6)
    for one in (first, second, third):
        store.add(one)
    assert store.best(Items.of(prompt([1, 2, 3, 9])), 3) == (first, 3)
    store.used(first)
    store.add(kept(7))
    assert store.best(second.items, 3) == (first, 2)  # the second went
    assert (len(store), store.bytes) == (3, 30)
    store.add(kept(5, 6, 8))
    assert len(store) == 3 and store.covers(third.items)  # its row is part of the new one
    assert store.best(Items.of(prompt([9])), 1) == (None, 0)
    assert store.takes(30) and not store.takes(31)
    store.clear()
    assert (len(store), store.bytes) == (0, 0)


def test_items_of_a_prompt():
    asked = prompt([7, ref.IMAGE_ID, 8, ref.IMAGE_ID], IMAGE, OTHER)
    items = Items.of(asked)
    assert items.ends.tolist() == [0, 1, 37, 38, 74]
    assert items.tokens == len(asked) == 74
    assert items.common(Items.of(prompt([7, ref.IMAGE_ID, 9], IMAGE)), 99) == 37
    assert items.common(items, 73) == 38
    assert items.common(Items.of(asked, "salt"), 99) == 0
    assert items.upto(50).ends.tolist() == [0, 1, 37, 38]
    more = items.upto(37).followed_by([8, 9])
    assert more.ends.tolist() == [0, 1, 37, 38, 39]
    assert more.begins_with(items.upto(38)) and not items.begins_with(more)


def test_a_beginning_that_sees_what_closes_it_is_another():
    """With image_attention=prefix the first image and what stands before it see the close token directly behind."""
    layout = Layout(specials=False, sees="prefix", close=8)

    def asked(*behind: int) -> Prompt:
        return replace(prompt([7, ref.IMAGE_ID, *behind], IMAGE), layout=layout)

    closed, open_ = asked(8, 5), asked(9, 5)
    assert [spell_out(one.sample, layout).end[0] for one in (closed, open_)] == [31, 30]
    assert Items.of(closed).common(Items.of(open_), 99) == 0
    assert Items.of(closed).common(Items.of(asked(8, 6)), 99) == 32
    assert Items.of(open_).common(Items.of(asked(6)), 99) == 31
    assert Items.of(open_).common(Items.of(asked()), 99) == 31
