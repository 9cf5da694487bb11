"""A random mix of requests, and what their listeners hear, for the tests of the scheduler."""

from collections.abc import Sequence

import numpy as np

from eve_jax.data.image.patches import patchify
from eve_jax.infer.engine import Engine
from eve_jax.infer.prompt import Prompt
from eve_jax.infer.requests import Finish, Listener, Request, Ticket, Token
from eve_jax.infer.sampling import GREEDY, Sampling
from tests import reference as ref

PATCH_BYTES = patchify(ref.tensors("A_inputs")["image_uint8_0"]).shape[1]
WORDS = 300  # ids that prompts are made of
Picture = tuple[np.ndarray, tuple[int, int]]


def picture(rng: np.random.Generator, *grid: int) -> Picture:
    """An image of the `grid` given, or of 1 to 4 rows, seldom one that is longer than a chunk."""
    h, w = grid or ((int(n) for n in rng.integers(1, 5, 2)) if rng.random() < 0.8 else (5, 6))
    return rng.integers(0, 256, (h * w, PATCH_BYTES), np.uint8), (h, w)


def prompt(ids: Sequence[int], *pictures: Picture) -> Prompt:
    """A prompt with `pictures` at its places for images."""
    return Prompt(np.array(ids, np.int32), [p for p, _ in pictures], [g for _, g in pictures])


def words(rng: np.random.Generator, count: int) -> list[int]:
    """Ids of text."""
    return rng.integers(1, WORDS, count).tolist()


def alone(engine: Engine, request: Request) -> list[int]:
    """The answer to `request` without the scheduler."""
    return engine.generate([request.prompt], request.max_new_tokens, request.stop_ids, request.sampling)[0]


def sampling(rng: np.random.Generator) -> Sampling:
    """One of several ways to choose tokens."""
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
    system = words(rng, 20)
    pictures = [picture(rng) for _ in range(4)]
    conversations: list[Prompt] = []
    requests = []
    for _ in range(count):
        text = words(rng, int(rng.integers(1, 25)))
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
        stops = tuple(words(rng, 7)) if rng.random() < 0.5 else ()
        requests.append(Request(asked, int(rng.integers(1, 16)), sampling(rng), stops))
    return requests


class Heard:
    """What listeners heard of requests, by number."""

    def __init__(self) -> None:
        self.tokens: dict[int, list[Token]] = {}
        self.ends: dict[int, Finish] = {}

    def listener(self, number: int, cancel_after: int = -1) -> Listener:
        """The listener of a request, which cancels it after some tokens if that is not negative."""
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
        """The ids of an answer."""
        return [token.id for token in self.tokens[number]]
