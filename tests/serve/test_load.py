"""The load generator of benchmarks/serve.py, on a server whose answers are told, and its figures."""

import asyncio
from itertools import pairwise

import pytest

from benchmarks import load
from benchmarks.load import Answer, Ask, closed, figures, held_up, opened, percentile
from eve_jax.errors import UserError
from tests.serve.bodies import chat, image
from tests.serve.scripted import Address, Scripted

TEXT = Ask(load.COMPLETIONS, {"prompt": [5, 6, 7]})
IMAGE = Ask(load.CHAT, chat([image()]))


def test_so_many_at_a_time(shared: Address, told: Scripted) -> None:
    told.pace, told.most = 0.002, 3  # a fourth at a time would be refused
    answers = asyncio.run(closed(shared.url, [TEXT, IMAGE] * 4, 9, 3))
    assert [answer.error for answer in answers] == [""] * 8
    assert {(answer.tokens, answer.cached) for answer in answers} == {(9, 5)}
    assert all(len(answer.waits) == 8 and answer.first > 0.001 and answer.per_token for answer in answers)
    assert {answer.prompt for answer in answers} > {3}
    assert all(request.max_new_tokens == 9 and not request.stop_ids for request in told.requests)


def test_what_is_refused_or_ends_early_is_an_error(shared: Address, told: Scripted) -> None:
    told.pace, told.most = 0.01, 1
    answers = asyncio.run(closed(shared.url, [TEXT] * 3, 9, 3))
    assert figures(answers)[-2:] == (1, 2)
    assert sum(answer.error.startswith("503 ") for answer in answers) == 2
    told.error = "broken"
    with pytest.raises(UserError, match=r"no request was answered: .*server's log"):
        figures(asyncio.run(closed(shared.url, [TEXT], 9, 1)))


def test_random_times_are_the_same_each_time(shared: Address, told: Scripted) -> None:
    runs = [asyncio.run(opened(shared.url, [TEXT] * 5, 3, 50.0, seed=1)) for _ in range(2)]
    gaps = [[after.asked - before.asked for before, after in pairwise(run)] for run in runs]
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-6) and min(gaps[0]) > 0 and len(set(gaps[0])) == 4
    assert all(answer.tokens == 3 for run in runs for answer in run)


def test_how_long_others_wait(shared: Address, told: Scripted) -> None:
    told.pace = 0.01
    found = asyncio.run(held_up(shared.url, [TEXT] * 2, 40, TEXT))
    assert found.first >= 0.01 and len(found.before) >= 10
    assert found.during and min(found.during) > 0.001


def test_figures() -> None:
    first = Answer(10.0, [(10.5, 1), (11.0, 8), (12.0, 7)], prompt=30, cached=4)
    second = Answer(11.0, [(12.0, 16)], prompt=50)
    found = figures([first, second, Answer(9.0, error="503")])
    assert found == (0.75, 1.0, 0.1, 1.0, 32 / 3, 80 / 3, 2 / 3, 4, 2, 1)
    assert percentile(range(1, 201), 99) == 198


def test_only_this_machine_is_put_under_load() -> None:
    with pytest.raises(UserError, match="only servers of this machine"):
        load.client_of("https://a.org")
