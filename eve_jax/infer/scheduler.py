"""Continuous batching: requests come and go, a fixed number of slots answers them together, each as if it were alone.

A turn reads about `chunk` tokens of prompts, one request after the other in the order in which they came, then decodes
a block of tokens for every slot that answers. So a long prompt holds others up by one chunk at a time. To prefer
throughput, no block is decoded while a slot has a prompt to read: more of them are then decoded together.

Every program has a fixed shape and is compiled by `warm_up`; what a request asks for is a number in an array.
"""

import math
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import jax

from eve_jax.errors import Argument, FieldError, UserError, amount
from eve_jax.infer import pace
from eve_jax.infer.compiles import Compiles
from eve_jax.infer.engine import Engine
from eve_jax.infer.pieces import OVERHEAD, shapes
from eve_jax.infer.prefix import Items, PrefixStore
from eve_jax.infer.requests import Finish, Listener, QueueFull, Request, Ticket
from eve_jax.infer.slot_rows import UNBOUNDED, Cost, SlotRows, widths
from eve_jax.infer.slots import Slot
from eve_jax.infer.tickets import Job, check_prompt
from eve_jax.process.checks import unexpected, whole

CHUNK_WORK = 1.5  # work (`SlotRows.work`) of a turn's pieces for a token of a chunk: one of a chunk in a short row
STALL = 1.5  # blocks that pieces between two of them take by the `Pace`, so that two are not exceeded
IDLE = 1.0  # seconds after which a thread without work looks around
Prefer = Literal["latency", "throughput"]


@dataclass(frozen=True)
class SchedulerSettings:
    """Sizes of a scheduler.

    slots: requests that are answered at a time. context: tokens of a prompt with its answer, image tokens included.
    chunk: tokens of prompts that are read between two blocks. block: tokens that are decoded at a time. queue: requests
    that wait at most. prefix_bytes: of the device's memory for rows of earlier prompts; free slots keep theirs anyway.
    prefer: answers that are not held up by prompts, or more tokens a second. Raises UserError for a value out of range.
    """

    slots: int = 8
    context: int = 4096
    chunk: int = 256
    queue: int = 64
    prefix_bytes: int = 2**28
    block: int = 8
    prefer: Prefer = "latency"

    def __post_init__(self) -> None:
        if self.prefer not in get_args(Prefer):
            raise unexpected(Argument("prefer"), self.prefer, " or ".join(get_args(Prefer)))
        for name, least in {"slots": 1, "context": 2, "chunk": 16, "queue": 0, "prefix_bytes": 0, "block": 1}.items():
            whole(name, getattr(self, name), f"a whole number of at least {least}", least)


class Stats(NamedTuple):
    """Requests in slots and waiting; tokens that the cache holds for them and has room for; tokens of prompts, and how
    many of them came from the prefix cache; programs that this process compiled since the scheduler was made; how
    long answers waited for prompts, in blocks (`Stalls`): the number up to each bound and above, and the sum."""

    running: int
    waiting: int
    used_tokens: int
    total_tokens: int
    prefix_queries: int
    prefix_hits: int
    compiled: int
    stalls: tuple[int, ...]
    stalled: float


class Scheduler:
    """Answers requests with `engine`, `settings.slots` at a time; see the module's text.

    Its thread is started with `start`; without one, calls of `turn` do the work (`eve_jax.infer.unthreaded`).
    """

    def __init__(self, engine: Engine, settings: SchedulerSettings | None = None):
        self.engine, self.settings = engine, settings or SchedulerSettings()
        settings = self.settings
        self.compiles = Compiles()
        chunk, cfg = min(settings.chunk, settings.context), engine.cfg
        menu = shapes(chunk, cfg.whole_images, settings.context, cfg.layout)
        sizes = settings.slots, settings.context, settings.block
        store = PrefixStore(settings.prefix_bytes)
        with self._in_memory():
            self.rows = SlotRows(engine, *sizes, menu, store, widths(settings.slots, engine.mesh))
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = self._draining = False
        self._queries = self._hits = 0
        self._begun = 0  # requests since the last block
        self._stalls = pace.Stalls()

    def warm_up(self, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
        """Compile every program; returns how many there are. `progress` is told how many of them are done.

        Raises UserError when the device has no room for it.
        """
        with self._in_memory():
            return self.rows.warm_up(progress)

    @contextmanager
    def _in_memory(self) -> Iterator[None]:
        """Raises FieldError in place of the error of a device whose memory is full."""
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            why = "do not fit into the device's memory next to the weights: ask for fewer slots or less context"
            context = Argument("context"), f"={self.settings.context} {why}"
            raise FieldError(Argument("slots"), f"={self.settings.slots} and ", *context) from error

    def submit(self, request: Request, listener: Listener) -> Ticket:
        """Queue a request; its tokens, and its end once and last, go to `listener` from the thread of the scheduler.

        Raises QueueFull when too many wait already, UserError when the request does not fit or cannot be answered.
        """
        job = self._job(request, listener)
        with self._changed:
            if self._closing:
                raise UserError("the scheduler is closed: it takes no more requests")
            if len(self._waiting) >= self.settings.queue + len(self.rows.slots.free):
                raise QueueFull(f"as many requests as may wait already ({len(self._waiting)}): ask again later")
            self._waiting.append(job)
            self._changed.notify()
        return job.ticket

    def _job(self, request: Request, listener: Listener) -> Job:
        if request.most_tokens > self.settings.context:
            raise UserError(
                f"{amount(len(request.prompt), 'token')} of the prompt, image tokens included, and max_new_tokens="
                f"{request.max_new_tokens} do not fit into a context of {self.settings.context} tokens"
            )
        check_prompt(request, self.engine.cfg.vocab_size)
        ticket = Ticket(request, listener)
        ticket.wake = self._wake
        return Job(ticket, self.rows.spelled(request.prompt), Items.of(request.prompt, request.salt))

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    @property
    def capacity(self) -> int:
        """How many requests are taken at a time, those that wait included."""
        return self.settings.slots + self.settings.queue

    @property
    def busy(self) -> bool:
        """Whether a request is answered or waits."""
        return bool(self._waiting) or len(self.rows.slots.free) < self.settings.slots

    def turn(self) -> None:
        """Read a chunk of prompts, then decode a block; answers that are cancelled end before."""
        self.rows.turns += 1
        self._end_cancelled()
        waits, began = bool(self.rows.slots.decoding), pace.clock()
        read = self._read()
        if self.settings.prefer == "latency" or not (self.rows.slots.reading or self._begins):
            block = pace.clock()
            self.rows.decode()
            if waits and read:
                self._stalls.note(block - began, pace.clock() - block)
            self._begun = 0

    def _end_cancelled(self) -> None:
        for slot in self.rows.slots.all:
            if slot.job is not None and slot.job.ticket.cancelled:
                self.rows.end(slot, [], Finish("cancelled"))
        with self._changed:
            gone = [job for job in self._waiting if job.ticket.cancelled]
            for job in gone:
                self._waiting.remove(job)
        for job in gone:
            job.give([], Finish("cancelled"))

    def _read(self) -> bool:
        """Pieces of prompts until a chunk is read; returns whether there were any.

        From when on answers wait for them, they take no more than `_stall`, but for a first piece as small as any. The
        copies that a request begins with count as well; where they leave no time, its first piece is of the next turn.
        """
        left, first, read, stall = Cost(CHUNK_WORK * self.settings.chunk + OVERHEAD, math.inf), True, False, None
        while left.work > 0:
            waits = bool(self.rows.slots.decoding)
            if waits and stall is None:
                stall = self._stall()
                left = left._replace(seconds=stall)
            reading, began = self.rows.slots.reading, pace.clock()
            slot = reading[0] if reading else self._admit()
            if slot is None:
                break
            if not reading:
                left = left.less(Cost(0.0, pace.clock() - began))
                first = first and left.seconds > 0
            piece = self.rows.piece(slot, left if waits else UNBOUNDED, must=first)
            if piece.stop == piece.start:
                break
            began = pace.clock()
            self.rows.read([(slot, piece)])
            left = left.less(Cost(self.rows.cost(piece.start, piece.shape).work, pace.clock() - began))
            first, read = False, True
        return read

    def _stall(self) -> float:
        """Seconds that pieces may take while answers wait: `STALL` blocks, but a whole chunk where more requests wait
        for their first token than for further ones, since then few are decoded together."""
        slots = self.rows.slots
        first = len(slots.reading) + min(len(self._waiting), len(slots.free))
        if self.settings.prefer == "throughput" or first > len(slots.decoding):
            return math.inf
        return STALL * self.rows.block_seconds

    @property
    def _begins(self) -> bool:
        """Whether a request can have a slot; as many as there are slots may, until a block is decoded."""
        return bool(self._waiting and self.rows.slots.free) and self._begun < self.settings.slots

    def _admit(self) -> Slot | None:
        """Give a free slot to the request that has waited for longest."""
        with self._changed:
            if not self._begins:
                return None
            job = self._waiting.popleft()
        self._begun += 1
        job.ticket.started = time.monotonic()
        try:
            slot = self.rows.begin(job)
        except Exception as error:  # the device has no room to copy rows, say; no slot has the job yet
            job.give([], Finish("error", f"the server failed: {type(error).__name__}"))
            raise
        job.ticket.cached_tokens = slot.length
        self._queries += len(job.spelled)
        self._hits += slot.length
        return slot

    def start(self) -> None:
        """Start the thread that does the work."""
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self.busy and not self._closing:
                    self._changed.wait(IDLE)
                if self._closing and not (self._draining and self.busy):
                    return
            self._guarded_turn()

    def _guarded_turn(self) -> None:
        """A turn; a defect ends the answers under way with an error, and the next ones begin with an empty cache."""
        try:
            self.turn()
        except Exception as error:
            print("error: the scheduler failed, all answers under way end:", file=sys.stderr)
            traceback.print_exc()
            try:
                self.rows.start_over(f"the server failed: {type(error).__name__}")
            except Exception:  # without a cache the next turn fails as well, and this is tried again
                print("error: the cache could not be made anew:", file=sys.stderr)
                traceback.print_exc()

    def close(self, drain: bool = True) -> None:
        """Take no more requests and end: with `drain` after all answers, else these are cancelled."""
        with self._changed:
            self._closing, self._draining = True, drain
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        while drain and self.busy:
            self._guarded_turn()
        for slot in self.rows.slots.all:
            if slot.job is not None:
                self.rows.end(slot, [], Finish("cancelled"))
        while self._waiting:
            self._waiting.popleft().give([], Finish("cancelled"))
        self.compiles.close()

    def stats(self) -> Stats:
        """Return how busy it is; safe for threads."""
        slots = [slot for slot in self.rows.slots.all if not slot.free]
        used = sum(slot.length for slot in slots)
        total = self.settings.slots * self.settings.context
        load = len(slots), len(self._waiting), used, total, self._queries, self._hits, self.compiles.count
        return Stats(*load, tuple(self._stalls.counts), self._stalls.total)
