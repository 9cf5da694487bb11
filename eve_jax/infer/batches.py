"""Many questions answered by the scheduler's programs, all known before: as many at a time as are fast together.

asks in order of length -> slots, those that begin alike next to each other -> pieces of one shape, several slots at a
time -> blocks of tokens for all slots, until half of them are free again (all of them on a mesh that divides them)

What prompts share, text and whole images, is read once and copied. So what is computed for a prompt, and its answer, is
the same whatever else is asked, up to rounding.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from eve_jax.batch import RowShape
from eve_jax.data.text.encode import IMAGE_ID
from eve_jax.infer.cache import bucket, roomy, round_up
from eve_jax.infer.engine import Engine
from eve_jax.infer.pieces import Piece, shapes
from eve_jax.infer.prefix import Items, PrefixStore
from eve_jax.infer.prompt import Prompt
from eve_jax.infer.requests import Finish, Request, Ticket, Token
from eve_jax.infer.sampling import GREEDY, Sampling
from eve_jax.infer.slot_rows import SlotRows
from eve_jax.infer.slots import Slot
from eve_jax.infer.tickets import Job
from eve_jax.model.config import ModelConfig
from eve_jax.sharding import batch_parts

CHUNK = 256  # tokens of a piece of prompts of many sizes
SNUG = 1024  # slots of a piece that is of the size of many prompts, at most
BLOCK = 16  # tokens that are decoded at a time


class Ask(NamedTuple):
    """A question: its prompt, the longest answer in tokens, how tokens are chosen; `key` comes back with the reply."""

    key: str
    prompt: Prompt
    max_new_tokens: int
    sampling: Sampling = GREEDY


class Reply(NamedTuple):
    """The answer's tokens without the one that ended it, or an `error` that says why there is none.

    seconds: its share of the time of the pieces and blocks that it was computed in.
    """

    key: str
    ids: list[int]
    seconds: float
    error: str = ""


class _Known:
    """An ask with its items, and how many of its tokens it may share: those up to its last image."""

    def __init__(self, ask: Ask):
        self.ask, self.items = ask, Items.of(ask.prompt)
        (places,) = np.nonzero(ask.prompt.ids[:-1] == IMAGE_ID)
        end = int(places[-1]) + 1 if len(places) else 0
        self.shared = int(self.items.ends[end])
        self.head = self.items.values[: end + 1].tobytes() if end else b""
        self.ids: list[int] = []
        self.seconds = 0.0
        self.end: Finish | None = None

    @property
    def order(self) -> tuple:
        """Asks about the same are next to each other, and those of a length."""
        return self.shared, self.head, self.ask.max_new_tokens, len(self.ask.prompt), self.ask.key

    def listen(self, ticket: Ticket, tokens: list[Token], end: Finish | None) -> None:
        """Keep what the answer has."""
        self.ids += [token.id for token in tokens]
        self.end = end

    @property
    def reply(self) -> "Reply":
        """What is given back."""
        error = self.end.error if self.end else ""
        return Reply(self.ask.key, [] if error else self.ids, self.seconds, error)


def answer_all(engine: Engine, asks: Sequence[Ask], stop_ids: Sequence[int], rows: int = 16) -> Iterator[Reply]:
    """The answer to each of `asks` as they are done: text first, then by the length of what they share.

    `rows` prompts are read at a time, and twice as many answered. An answer ends before a token of `stop_ids`, or with
    its own `max_new_tokens`. Logits that are not finite are the `error` of their own reply. On a mesh over several
    processes, all of them make the call with the same `asks`. Raises UserError for a `logit_bias` of a token that the
    model does not have.
    """
    if asks:
        yield from _Run(engine, asks, tuple(stop_ids), rows).replies()


class _Run:
    """What is left to be answered, and what is under way."""

    def __init__(self, engine: Engine, asks: Sequence[Ask], stop_ids: tuple[int, ...], rows: int):
        for ask in asks:
            ask.sampling.check_vocabulary(engine.cfg.vocab_size)
        self.left = sorted(map(_Known, asks), key=lambda known: known.order)
        self.stop_ids = stop_ids
        parts = batch_parts(engine.mesh)
        self.divided = parts > 1
        count = round_up(min(self._most(rows), 1 << (len(asks) - 1).bit_length()), parts)
        self.width = count if self.divided else min(rows, count)
        context = roomy(max(len(ask.prompt) + ask.max_new_tokens for ask in asks))
        menu = _menu([ask.prompt for ask in asks], engine.cfg, context)
        self.slots = SlotRows(engine, count, context, BLOCK, menu, PrefixStore(0), (count,))
        self.under_way: dict[int, _Known] = {}
        self.heads: dict[int, bytes] = {}  # what the ask that a slot had last shares

    def _most(self, rows: int) -> int:
        """Slots when `rows` prompts are read at a time: twice as many, since a step of decoding reads every weight.

        Where a mesh divides them, all are read at a time, so no more than there are different images for.
        """
        different = len({known.head for known in self.left if known.head}) + sum(not known.head for known in self.left)
        return rows if rows == 1 or (self.divided and different <= rows) else 2 * rows

    def replies(self) -> Iterator[Reply]:
        """Read and decode in turn."""
        while self.left or self.under_way:
            if self._enough_free():
                self._admit()
            began, concerned = time.perf_counter(), self._read() or self._decode()
            for known in concerned:
                known.seconds += (time.perf_counter() - began) / len(concerned)
            for number in [number for number, known in self.under_way.items() if known.end]:
                yield self.under_way.pop(number).reply

    def _enough_free(self) -> bool:
        """Whether so many slots are free that a program that reads is well filled: half; all, where it takes all."""
        slots = self.slots.slots
        free, every = len(slots.free), len(slots.all)
        return free == every if self.divided else 2 * free >= min(every, 2 * len(self.left)) or not slots.decoding

    def _admit(self) -> None:
        """Give free slots to asks."""
        while self.slots.slots.free and (place := self._next()) is not None:
            known = self.left.pop(place)
            ask = known.ask
            request = Request(ask.prompt, ask.max_new_tokens, ask.sampling, self.stop_ids)
            job = Job(Ticket(request, known.listen), self.slots.spelled(ask.prompt), known.items)
            number = self.slots.begin(job).number
            self.under_way[number], self.heads[number] = known, known.head

    def _next(self) -> int | None:
        """Which of those left begins next: one whose images a free slot has, before others take it, else the first.

        None that shares what is just being read, which it copies later.
        """
        slots = self.slots.slots
        unread = {self.heads[slot.number] for slot in slots.reading if slot.length < self.under_way[slot.number].shared}
        ready = [place for place, known in enumerate(self.left) if not known.head or known.head not in unread]
        held = {self.heads.get(slot.number, b"") for slot in slots.free} - {b""}
        return next((place for place in ready if self.left[place].head in held), next(iter(ready), None))

    def _read(self) -> list[_Known]:
        """Read pieces of the shape that most slots need next; returns whose."""
        groups: dict[RowShape, list[tuple[Slot, Piece]]] = {}
        for slot in self.slots.slots.reading:
            piece = self.slots.piece(slot)
            groups.setdefault(piece.shape, []).append((slot, piece))
        if not groups:
            return []
        given = max(groups.values(), key=len)[: self.width]
        concerned = [self.under_way[slot.number] for slot, _ in given]
        self.slots.read(given, 1 if len(given) == 1 and not self.divided else self.width)
        return concerned

    def _decode(self) -> list[_Known]:
        concerned = [self.under_way[slot.number] for slot in self.slots.slots.decoding]
        self.slots.turns += 1
        self.slots.decode()
        return concerned


def _menu(prompts: Sequence[Prompt], cfg: ModelConfig, context: int) -> list[RowShape]:
    """Shapes of pieces for prompts of many sizes, and that of the most frequent size with its part without an image."""
    found = list(shapes(min(CHUNK, context), cfg.whole_images, context, cfg.layout))
    need, count = Counter(prompt.need for prompt in prompts).most_common(1)[0]
    snug = bucket(need, 1, snug=True)
    if 2 * count > len(prompts) and snug.length <= SNUG:
        found.append(snug)
    return found
