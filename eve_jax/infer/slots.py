"""What the host knows of the slots: whose they are, what their cache rows hold, and the arrays that programs take."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eve_jax.batch import Layout, RowShape
from eve_jax.infer.pieces import Piece, blank
from eve_jax.infer.prefix import NOTHING, Items
from eve_jax.infer.requests import MOST_STOPS, Request
from eve_jax.infer.sampling import GREEDY, NO_TOKEN, Rules, rules
from eve_jax.infer.slot_programs import Choosing
from eve_jax.infer.tickets import Job
from eve_jax.model.eve import Batch


class Slot:
    """A row of the cache, whose it is, and what it holds, also when nobody has it.

    items: the complete items among its `length` tokens. job: None when the slot is free. token: the last one of the
    answer, which is not in the cache yet; None while the prompt is read.
    """

    def __init__(self, number: int):
        self.number = number
        self.items: Items = NOTHING
        self.length = 0
        self.job: Job | None = None
        self.token: int | None = None
        self.began = 0  # how many requests had a slot before
        self.freed = 0  # when, counted in turns

    @property
    def free(self) -> bool:
        """Whether a request can have it."""
        return self.job is None

    @property
    def decoding(self) -> bool:
        """Whether its prompt is read and its answer is not complete."""
        return self.job is not None and self.token is not None


class Reading(NamedTuple):
    """A row of a program that reads: the next piece of a slot's prompt, or nothing, after what the slot has."""

    slot: Slot
    piece: Piece | None

    @property
    def where(self) -> tuple[int, int, int]:
        """The slot, the tokens that it holds, those of the piece."""
        return self.slot.number, self.slot.length, self.piece.stop - self.piece.start if self.piece else 1

    @property
    def ends(self) -> bool:
        """Whether the prompt ends with the piece."""
        job = self.slot.job
        return self.piece is not None and job is not None and self.piece.stop == len(job.spelled)

    def batch(self, shape: RowShape, patch_bytes: int, layout: Layout) -> Batch:
        """The arrays of the row."""
        job = self.slot.job
        return job.spelled.batch(self.piece, patch_bytes) if self.piece and job else blank(shape, patch_bytes, layout)


class Rows(NamedTuple):
    """Arrays of a block: slots, their lengths, last tokens, steps and what positions count of those, int32 [R]."""

    slots: np.ndarray
    length: np.ndarray
    token: np.ndarray
    steps: np.ndarray
    number: np.ndarray


class Slots:
    """All slots, with their sampling settings as arrays that are changed in place."""

    def __init__(self, count: int):
        self.all = [Slot(number) for number in range(count)]
        self._begun = 0
        self._rules = rules([GREEDY] * count)
        self._stops = np.full((count, MOST_STOPS), NO_TOKEN, np.int32)

    @property
    def free(self) -> list[Slot]:
        """Slots that a request can have."""
        return [slot for slot in self.all if slot.free]

    @property
    def decoding(self) -> list[Slot]:
        """Slots whose answers are made."""
        return [slot for slot in self.all if slot.decoding]

    @property
    def reading(self) -> list[Slot]:
        """Slots whose prompts are read, in the order in which they were begun."""
        found = [slot for slot in self.all if slot.job is not None and slot.token is None]
        return sorted(found, key=lambda slot: slot.began)

    def give(self, slot: Slot, job: Job, tokens: int) -> None:
        """Give `slot`, whose row has the first `tokens` tokens of the prompt, to `job`."""
        slot.job, slot.token, slot.began = job, None, self._begun
        self._begun += 1
        slot.items, slot.length = job.items.upto(tokens), tokens
        self._set(slot, job.request)

    def release(self, slot: Slot, turn: int) -> None:
        """Take `slot` back; its settings become neutral, so that no branch is taken for its sake."""
        slot.job, slot.token, slot.freed = None, None, turn
        slot.length = slot.items.tokens
        self._set(slot, None)

    def _set(self, slot: Slot, request: Request | None) -> None:
        own = rules([request.sampling if request else GREEDY])
        for every, values in zip(self._rules, own, strict=True):
            every[slot.number] = values[0]
        stops = request.stop_ids if request else ()
        self._stops[slot.number] = NO_TOKEN
        self._stops[slot.number, : len(stops)] = stops

    def filled(self, of: Sequence[Slot], count: int) -> list[Slot]:
        """The slots `of` and others, as many as make them `count`, in order."""
        others = [slot for slot in self.all if slot not in of]
        return sorted([*of, *others[: count - len(of)]], key=lambda slot: slot.number)

    def rows(self, of: Sequence[Slot], block: int) -> Rows:
        """Arrays of a block of `block` tokens for the slots `of`; those that do not decode rest."""
        numbers, length = ([getattr(slot, name) for slot in of] for name in ("number", "length"))
        token = [slot.token if slot.decoding else 0 for slot in of]
        steps = [min(slot.job.left, block) if slot.job is not None and slot.decoding else 0 for slot in of]
        number = [slot.length + (slot.job.spelled.shift if slot.job else 0) for slot in of]
        return Rows(*(np.array(values, np.int32) for values in (numbers, length, token, steps, number)))

    def choosing(self, of: Sequence[Slot]) -> Choosing:
        """How the slots `of` choose, in their order."""
        numbers, jobs = [slot.number for slot in of], [slot.job for slot in of]
        floor = [max(0, job.request.min_tokens - job.produced) if job else 0 for job in jobs]
        logprobs = any(job.request.logprobs >= 0 for job in jobs if job)
        own = Rules(*(every[numbers] for every in self._rules))
        return Choosing(own, self._stops[numbers], np.array(floor, np.int32), np.bool_(logprobs))
