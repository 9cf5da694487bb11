"""Answers to many prompts, in batches of prompts of like size."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eve_jax.infer.engine import Engine, Prompt
from eve_jax.infer.finite import NotFinite
from eve_jax.infer.sampling import GREEDY, Sampling


class Ask(NamedTuple):
    """A prompt to answer: `key` names it, `max_new_tokens` and `sampling` say how."""

    key: str
    prompt: Prompt
    max_new_tokens: int
    sampling: Sampling = GREEDY


class Reply(NamedTuple):
    """The answer to the ask of `key`: its tokens without the stop token, its share of the batch's seconds.

    error: why there is no answer (logits that are not finite), or "".
    """

    key: str
    ids: list[int]
    seconds: float
    error: str = ""


def answer_all(engine: Engine, asks: Sequence[Ask], stop_ids: Sequence[int], rows: int = 16) -> Iterator[Reply]:
    """Yield the reply to each of `asks`, `rows` at a time, each as if it were alone; in any order."""
    kinds: dict[Sampling, list[Ask]] = {}
    for ask in sorted(asks, key=lambda ask: ask.prompt.need):
        kinds.setdefault(ask.sampling, []).append(ask)
    for sampling, some in kinds.items():
        for start in range(0, len(some), rows):
            yield from _batch(engine, some[start : start + rows], stop_ids, sampling)


def _batch(engine: Engine, asks: Sequence[Ask], stop_ids: Sequence[int], sampling: Sampling) -> Iterator[Reply]:
    began = time.monotonic()
    longest = max(ask.max_new_tokens for ask in asks)
    try:
        answers = engine.generate([ask.prompt for ask in asks], longest, stop_ids, sampling)
    except NotFinite as error:
        if len(asks) == 1:
            yield Reply(asks[0].key, [], time.monotonic() - began, str(error))
            return
        for ask in asks:  # vision weights that are NaN spoil text that shares a batch
            yield from _batch(engine, [ask], stop_ids, sampling)
        return
    seconds = (time.monotonic() - began) / len(asks)
    for ask, ids in zip(asks, answers, strict=True):
        yield Reply(ask.key, ids[: ask.max_new_tokens], seconds)
