"""Many questions answered in batches of like length; a prompt's text and images up to its last image are read once.

asks -> shared parts (up to the last image) and rests -> a prefill of up to `rows` shared parts -> batches of up to
twice `rows` asks about them, whose cache rows begin as copies -> replies

Every prompt with an image is cut there, also where nothing shares its first part, and text shares no batch with images.
So what is computed for a prompt, and its answer, is the same whatever else is asked, up to rounding.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import jax
import numpy as np

from eve_jax.data.text.encode import IMAGE_ID
from eve_jax.infer.cache import Session, filled, round_up
from eve_jax.infer.engine import Engine
from eve_jax.infer.prompt import Prompt
from eve_jax.infer.sampling import GREEDY, Sampling

NOTHING = Prompt(np.zeros(0, np.int32))


class Ask(NamedTuple):
    """A question: its prompt, the longest answer in tokens, how tokens are chosen; `key` comes back with the reply."""

    key: str
    prompt: Prompt
    max_new_tokens: int
    sampling: Sampling = GREEDY


class Reply(NamedTuple):
    """The answer's tokens without the one that ended it, or an `error` that says why there is none.

    seconds: its share of the time of the batches that it was computed in.
    """

    key: str
    ids: list[int]
    seconds: float
    error: str = ""


class _Kind(NamedTuple):
    """Whether the rest of an ask has images (its prompt ends with one), and whether there is a part to share."""

    sees: bool
    shares: bool


@dataclass(frozen=True)
class _Cut:
    """An ask in two parts: what it may share with others, up to its last image, and the rest, which is never empty."""

    ask: Ask
    shared: Prompt
    rest: Prompt
    digest: str  # of the shared part; "" = none

    @classmethod
    def of(cls, ask: Ask) -> "_Cut":
        prompt = ask.prompt
        (places,) = np.nonzero(prompt.ids[:-1] == IMAGE_ID)
        if not len(places):
            return cls(ask, NOTHING, prompt, "")
        end, images = int(places[-1]) + 1, len(places)
        shared = Prompt(prompt.ids[:end], prompt.patches[:images], prompt.grids[:images])
        rest = Prompt(prompt.ids[end:], prompt.patches[images:], prompt.grids[images:])
        return cls(ask, shared, rest, _digest(shared))

    @property
    def kind(self) -> _Kind:
        """Asks of one kind may share a batch."""
        return _Kind(bool(self.rest.grids), bool(self.digest))

    @property
    def order(self) -> tuple:
        """Asks of a batch choose alike, and end and begin at about the same time."""
        sampling = self.ask.sampling
        how = sampling.temperature, sampling.top_p, sampling.seed
        return how, self.ask.max_new_tokens, self.rest.need, self.ask.key


def _digest(prompt: Prompt) -> str:
    found = hashlib.sha256(repr((len(prompt.ids), list(map(tuple, prompt.grids)))).encode())
    found.update(np.asarray(prompt.ids, np.int32).tobytes())
    for patches in prompt.patches:
        found.update(patches.tobytes())
    return found.hexdigest()


def answer_all(engine: Engine, asks: Sequence[Ask], stop_ids: Sequence[int], rows: int = 16) -> Iterator[Reply]:
    """The answer to each of `asks`, `rows` at a time, as they are done: in order of length, not in that of `asks`.

    An answer ends before a token of `stop_ids`, or with its own `max_new_tokens`. Logits that are not finite are the
    `error` of their own reply. Prompts that are the same up to and including their last image have that part computed
    once. On a mesh over several processes, all of them make the call with the same `asks`.
    """
    run = _Run(engine, stop_ids, rows)
    cuts = sorted(map(_Cut.of, asks), key=lambda cut: (cut.kind, cut.shared.need, cut.digest, cut.order))
    for kind, of_kind in groupby(cuts, key=lambda cut: cut.kind):
        alike = list(of_kind)
        least = rows if len(alike) > rows else 0
        if not kind.shares:
            yield from run.answer(alike, least)
            continue
        parts = [list(same) for _, same in groupby(alike, key=lambda cut: cut.digest)]
        for start in range(0, len(parts), rows):
            yield from run.answer_sharing(parts[start : start + rows], rows if len(parts) > rows else 0, least)


class _Run:
    """What stays the same while questions are answered."""

    def __init__(self, engine: Engine, stop_ids: Sequence[int], rows: int):
        self.engine, self.stop_ids, self.rows = engine, stop_ids, rows

    @cached_property
    def not_finite(self) -> str:
        """Why logits are not finite; it reads every weight, which is done once."""
        return str(self.engine.not_finite([]))

    def batches(self, cuts: Sequence[_Cut], rows: int) -> list[list[_Cut]]:
        """`cuts` in batches of at most `rows`; those of a batch choose their tokens alike."""
        ordered = sorted(cuts, key=lambda cut: cut.order)
        alike = [list(same) for _, same in groupby(ordered, key=lambda cut: cut.ask.sampling)]
        return [same[start : start + rows] for same in alike for start in range(0, len(same), rows)]

    def answer(self, cuts: Sequence[_Cut], least: int) -> Iterator[Reply]:
        """Replies to asks without a shared part; batches are filled up to `least` rows, so that they share programs."""
        for batch in self.batches(cuts, self.rows):
            began = time.perf_counter()
            session = self.engine.session(max(least, len(batch)))
            yield from self.replies(session, batch, began)

    def answer_sharing(self, parts: Sequence[list[_Cut]], most: int, least: int) -> Iterator[Reply]:
        """Replies to `parts`, each of asks that share theirs; `most` and `least` rows are filled up to when shared
        parts are prefilled and when asks are."""
        began = time.perf_counter()
        shared = filled([part[0].shared for part in parts], max(most, len(parts)))
        held = [self.engine.session(len(shared))]
        self.engine.prefill(held[0], shared, snug=True)
        jax.block_until_ready(held[0].cache)
        places = {part[0].digest: number for number, part in enumerate(parts)}
        cuts = [cut for part in parts for cut in part]
        each = (time.perf_counter() - began) / len(cuts)
        # A step of decoding reads every weight, and the rests of asks are short, unless they have images.
        left = self.batches(cuts, self.rows if cuts[0].kind.sees or self.rows == 1 else 2 * self.rows)
        while left:
            batch, began = left.pop(0), time.perf_counter()
            chosen = filled(batch, round_up(len(batch), max(least, 1)))
            longest = max(cut.ask.max_new_tokens for cut in batch)
            rows, rests = [places[cut.digest] for cut in chosen], [cut.rest for cut in chosen]
            whole = held[0] if left else held.pop()  # whose memory is free while the last batch is answered
            session = self.engine.branch(whole, rows, rests, longest)
            del whole
            yield from self.replies(session, batch, began, each)

    def replies(self, session: Session, batch: Sequence[_Cut], began: float, each: float = 0.0) -> Iterator[Reply]:
        """Replies to `batch`, one a row of `session`, begun at `began`; `each` has taken that many seconds before."""
        chosen = filled(batch, session.rows)
        limits = [cut.ask.max_new_tokens for cut in chosen]
        sampling = batch[0].ask.sampling
        answers, broken = self.engine.replies(session, [cut.rest for cut in chosen], limits, self.stop_ids, sampling)
        seconds = each + (time.perf_counter() - began) / len(batch)
        for row, cut in enumerate(batch):
            error = self.not_finite if row in broken else ""
            yield Reply(cut.ask.key, [] if error else answers[row], seconds, error)
