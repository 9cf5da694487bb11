"""Requests through the scheduler: each gets the answer that it gets alone, whatever the others are."""

import random
from collections.abc import Sequence

import numpy as np
import pytest

from eve_jax.data.image.patches import patchify
from eve_jax.infer.engine import Engine, Prompt
from eve_jax.infer.requests import Finish, QueueFull, Request, Ticket, Token
from eve_jax.infer.sampling import GREEDY, Sampling
from eve_jax.infer.scheduler import Scheduler, SchedulerSettings
from tests import reference as ref
from tests.compiles import watched

SETTINGS = SchedulerSettings(slots=4, context=160, chunk=16, queue=8, block=4, prefix_bytes=2**20)
PICTURES = [patchify(ref.tensors("A_inputs")[f"image_uint8_{i}"]) for i in (0, 1)]
GRIDS = [*ref.GRIDS[0], *ref.GRIDS[1]]
WORDS = 300  # ids that prompts are made of


@pytest.fixture(scope="module")
def engine() -> Engine:
    cfg = ref.config()
    return Engine(cfg, ref.params(cfg))


@pytest.fixture(scope="module")
def warm(engine: Engine) -> Scheduler:
    scheduler = Scheduler(engine, SETTINGS)
    seen: list[tuple[int, int]] = []
    count = scheduler.warm_up(lambda done, total: seen.append((done, total)))
    assert count > 10 and seen[-1] == (count, count)
    return scheduler


def picture(rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int]]:
    """An image of 1 to 4 rows, seldom one that is longer than a chunk."""
    h, w = (int(n) for n in rng.integers(1, 5, 2)) if rng.random() < 0.8 else (5, 6)
    return rng.integers(0, 256, (h * w, PICTURES[0].shape[1]), np.uint8), (h, w)


def prompt(ids: Sequence[int], *pictures: tuple[np.ndarray, tuple[int, int]]) -> Prompt:
    return Prompt(np.array(ids, np.int32), [p for p, _ in pictures], [g for _, g in pictures])


def alone(engine: Engine, request: Request) -> list[int]:
    how = request.max_new_tokens, request.stop_ids, request.sampling
    return engine.generate([request.prompt], *how)[0]


def sampling(rng: np.random.Generator) -> Sampling:
    kind, seed = int(rng.integers(7)), int(rng.integers(1000))
    return [
        GREEDY,
        GREEDY,
        Sampling(0.7, seed=seed),
        Sampling(1.0, 0.8, seed),
        Sampling(1.3, 0.9, seed, top_k=40, min_p=0.02),
        Sampling(0.0, presence_penalty=1.5, frequency_penalty=0.5, repetition_penalty=1.2),
        Sampling(0.9, 1.0, seed, frequency_penalty=1.0, logit_bias=((7, 5.0), (11, -100.0))),
    ][kind]


def mix(count: int, seed: int) -> list[Request]:
    """Requests of texts, images and turns on what came before, of every kind of sampling."""
    rng = np.random.default_rng(seed)
    system = rng.integers(1, WORDS, 20).tolist()
    pictures = [picture(rng) for _ in range(4)]
    conversations: list[Prompt] = []
    requests = []
    for _ in range(count):
        text = rng.integers(1, WORDS, int(rng.integers(1, 25))).tolist()
        kind = rng.random()
        if kind < 0.3:
            asked = prompt(text)
        elif kind < 0.5:
            asked = prompt([*system, *text])
        elif kind < 0.8 or not conversations:
            asked = prompt([*system, ref.IMAGE_ID, *text], pictures[int(rng.integers(4))])
        else:
            before = conversations[int(rng.integers(len(conversations)))]
            asked = Prompt(np.concatenate([before.ids, np.array(text, np.int32)]), before.patches, before.grids)
        if len(asked) > 140:
            asked = prompt(text)
        conversations.append(asked)
        stops = tuple(rng.integers(0, WORDS, 7).tolist()) if rng.random() < 0.5 else ()
        requests.append(Request(asked, int(rng.integers(1, 16)), sampling(rng), stops))
    return requests


class Heard:
    """What listeners heard of requests."""

    def __init__(self) -> None:
        self.tokens: dict[int, list[Token]] = {}
        self.ends: dict[int, Finish] = {}

    def listener(self, number: int, cancel_after: int = -1):
        self.tokens[number] = []

        def listen(ticket: Ticket, tokens: list[Token], finish: Finish | None) -> None:
            assert number not in self.ends
            self.tokens[number] += tokens
            if finish is not None:
                self.ends[number] = finish
            elif 0 <= cancel_after <= len(self.tokens[number]):
                ticket.cancel()

        return listen

    def ids(self, number: int) -> list[int]:
        return [token.id for token in self.tokens[number]]


def check_mix(engine: Engine, scheduler: Scheduler, count: int, seed: int) -> None:
    """Some of the requests are cancelled, in the queue or after some tokens; the others equal those answered alone."""
    requests, heard, rng = mix(count, seed), Heard(), random.Random(seed)
    expected = [alone(engine, request) for request in requests]
    tickets: list[Ticket] = []
    cancelled: dict[int, int] = {}
    with watched() as (programs, _):
        for number, request in enumerate(requests):
            if rng.random() < 0.2:
                cancelled[number] = rng.choice([0, 1, 5])
            while True:
                try:
                    tickets.append(scheduler.submit(request, heard.listener(number, cancelled.get(number, -1) or -1)))
                    break
                except QueueFull:
                    scheduler.turn()
            if cancelled.get(number) == 0:
                tickets[-1].cancel()
            if rng.random() < 0.3:
                scheduler.turn()
        while scheduler.busy:
            scheduler.turn()
    assert not programs
    assert heard.ends.keys() == set(range(count))
    for number, ids in enumerate(expected):
        end = heard.ends[number]
        if end.reason == "cancelled":
            assert number in cancelled
            assert heard.ids(number) == ids[: len(heard.ids(number))]
            continue
        assert heard.ids(number) == ids, (number, requests[number])
        whole = len(ids) == requests[number].max_new_tokens
        assert end.reason == ("length" if whole else "stop")
        assert whole or end.stop_id in requests[number].stop_ids
        ticket = tickets[number]
        times = [ticket.queued, ticket.started, *([ticket.first] if ids else []), ticket.finished]
        assert None not in times and times == sorted(times)
    assert scheduler.stats().used_tokens == scheduler.stats().running == scheduler.stats().waiting == 0


def test_a_mix_of_requests_is_answered_as_each_alone(engine, warm):
    check_mix(engine, warm, 30, 1)
    assert warm.stats().prefix_hits > 200


@pytest.mark.slow
def test_many_requests_are_answered_as_each_alone(engine, warm):
    check_mix(engine, warm, 200, 2)
