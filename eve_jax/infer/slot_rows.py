"""The slots at work: rows of the cache are given, read into, decoded from, and kept for prompts that begin alike."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from eve_jax.batch import RowShape
from eve_jax.infer import slot_choice, warming
from eve_jax.infer import slot_programs as programs
from eve_jax.infer.cache import round_up
from eve_jax.infer.engine import Engine
from eve_jax.infer.finite import BROKEN
from eve_jax.infer.pace import Pace
from eve_jax.infer.parameters import on_mesh
from eve_jax.infer.pieces import OVERHEAD, Piece, Spelled
from eve_jax.infer.prefix import NOTHING, Kept, PrefixStore
from eve_jax.infer.programs import NONE
from eve_jax.infer.prompt import Prompt
from eve_jax.infer.requests import Finish, Token
from eve_jax.infer.slot_programs import Chosen
from eve_jax.infer.slots import Reading, Slot, Slots
from eve_jax.infer.tickets import Job
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Batch
from eve_jax.model.layer_cache import BLOCK
from eve_jax.sharding import batch_parts


class Cost(NamedTuple):
    """What pieces of prompts cost: work in tokens at the beginning of a prompt, and seconds on this machine."""

    work: float
    seconds: float

    def within(self, most: "Cost") -> bool:
        """Whether it is no more than `most` in either."""
        return self.work <= most.work and self.seconds <= most.seconds

    def less(self, other: "Cost") -> "Cost":
        """What is left of it without `other`."""
        return Cost(self.work - other.work, self.seconds - other.seconds)


UNBOUNDED = Cost(math.inf, math.inf)


class SlotRows:
    """`count` slots of `context` tokens, `block` of which are decoded at a time.

    menu: shapes of the pieces that prompts are read in, some of which take every token. store: for rows that are
    overwritten. widths: how many slots may be decoded at a time, all of them last.
    """

    def __init__(
        self,
        engine: Engine,
        count: int,
        context: int,
        block: int,
        menu: Sequence[RowShape],
        store: PrefixStore,
        widths: Sequence[int],
    ):
        self.engine, self.context, self.block = engine, context, block
        self.whole_images = engine.cfg.whole_images
        self.menu, self.widths = menu, widths
        self.capacity = round_up(context + max(block, *(shape.length for shape in self.menu)), BLOCK)
        self.slots = Slots(count)
        self.store = store
        self.turns = 0
        self.pace = Pace()
        self.state = self._empty()

    def _empty(self) -> programs.State:
        state = programs.empty(self.engine.cfg, self.engine.mesh, len(self.slots.all), self.capacity)
        if self.engine.mesh is not None:
            return state
        # Bound to its device as what programs return is, else the first one to take it is compiled twice.
        return jax.device_put(state, next(iter(self.engine.params.values())).sharding)

    def spelled(self, prompt: Prompt) -> Spelled:
        """`prompt` as it is cut into pieces; safe for threads."""
        return Spelled(prompt, self.menu, self.whole_images)

    def warm_up(self, progress: Callable[[int, int], None]) -> int:
        """Compile every program by running it on empty slots, and measure it; returns how many there are."""
        works = {shape: self.work(0, shape) for shape in self.menu}
        sizes = warming.Menu(works, self.widths, self.block, self.context)
        self.state, state = _nothing(), self.state
        count = warming.warm(self.engine, state, sizes, self.pace, progress)
        self.state = self._empty()
        return count

    def begin(self, job: Job) -> Slot:
        """Give a free slot to `job`; its row begins with what is there of the prompt already."""
        choice = slot_choice.choose(self.slots.all, self.store, job.items)
        slot, mesh = choice.slot, self.engine.mesh
        if choice.saves:
            self._save(slot)
        number = np.int32(slot.number)
        if isinstance(choice.source, Kept):
            for place, block in enumerate(choice.source.blocks[: _blocks(choice.tokens)]):
                self.state = programs.put(mesh, self.state, block, number, np.int32(place))
            self.store.used(choice.source)
        elif choice.source is not None:
            source, blocks = np.int32(choice.source.number), np.int32(_blocks(choice.tokens))
            self.state = programs.copy(mesh, self.state, source, number, blocks)
        self.slots.give(slot, job, choice.tokens)
        if job.request.sampling.penalized:
            ids = np.full(self.context, -1, np.int32)
            text = job.request.prompt.text
            ids[: len(text)] = text
            self.state = programs.note_prompt(mesh, self.state, number, ids)
        jax.block_until_ready(self.state)  # what it takes is known to the caller
        return slot

    def _save(self, slot: Slot) -> None:
        count, number = _blocks(slot.length), np.int32(slot.number)
        each = sum(x.nbytes for x in self.state.cache) // len(self.slots.all) * BLOCK // self.capacity
        if self.store.takes(count * each):
            blocks = [programs.take(self.engine.mesh, self.state, number, np.int32(n)) for n in range(count)]
            self.store.add(Kept(slot.items, jax.block_until_ready(blocks), count * each))

    def work(self, start: int, shape: RowShape) -> float:
        """What a piece of `shape` behind `start` tokens costs, in tokens at the beginning of a prompt."""
        return shape.length * (1 + (start + shape.length) / attended_for_a_token(self.engine.cfg)) + OVERHEAD

    @property
    def block_seconds(self) -> float:
        """What a block for the slots that answer takes here, probably; infinity where that is not known.

        Processes that work together have no clock in common by which all of them would do the same.
        """
        if jax.process_count() > 1:
            return math.inf
        return self.pace.block_seconds(_least(self.widths, len(self.slots.decoding)))

    def cost(self, start: int, shape: RowShape) -> Cost:
        """What a piece of `shape` behind `start` tokens costs."""
        work = self.work(start, shape)
        return Cost(work, self.pace.seconds(shape, work))

    def piece(self, slot: Slot, most: Cost = UNBOUNDED, must: bool = True) -> Piece:
        """The next piece of the prompt of `slot`, of a cost of at most `most`.

        Where each costs more, the one of least work, or, unless one `must` be, an empty one.
        """
        assert slot.job is not None
        spelled, start = slot.job.spelled, slot.length
        costs = {shape: self.cost(start, shape) for shape in self.menu}
        piece = spelled.piece(start, [shape for shape in self.menu if costs[shape].within(most)])
        if piece.stop > start or not must:
            return piece
        each = (spelled.piece(start, [shape]) for shape in sorted(self.menu, key=lambda shape: costs[shape].work))
        return next(piece for piece in each if piece.stop > start)

    def read(self, given: Sequence[tuple[Slot, Piece]], width: int = 1) -> None:
        """Read the next pieces of prompts, of one shape and each of another slot, by a program for `width` slots."""
        rows = [Reading(slot, piece) for slot, piece in given]
        own = [slot for slot, _ in given]
        rows += [Reading(slot, None) for slot in self.slots.filled(own, width) if slot not in own]
        rows.sort(key=lambda row: row.slot.number)
        shape, size = given[0][1].shape, self.engine.cfg.patch_bytes
        batches = [row.batch(shape, size, self.engine.cfg.layout) for row in rows]
        batch: Batch = {name: np.concatenate([one[name] for one in batches]) for name in batches[0]}
        parts = batch_parts(self.engine.mesh)
        if parts > 1 and not width % parts:
            batch = on_mesh(self.engine.mesh, batch)
        where = tuple(np.array(x, np.int32) for x in zip(*[row.where for row in rows], strict=True))
        how = np.bool_(any(row.ends for row in rows)), self.slots.choosing([row.slot for row in rows])
        self.engine.announce("piece", shape, width, self.capacity)
        with self.pace.piece(shape, sum(self.work(piece.start, shape) for _, piece in given)):
            args = self.engine.params, self.state, batch, where, *how
            self.state, chosen = programs.prefill(self.engine.cfg, self.engine.mesh, *args)
            ids = np.asarray(chosen.tokens)
        for number, row in enumerate(rows):
            if row.piece is not None and row.slot.job is not None:
                job, row.slot.length = row.slot.job, row.piece.stop
                row.slot.items = job.items.upto(row.piece.stop)
                if row.ends:
                    self._take(row.slot, _tokens(chosen, ids, number, job.request.logprobs))

    def decode(self) -> None:
        """Decode a block for all slots that answer."""
        active = self.slots.decoding
        if not active:
            return
        rows = self.slots.filled(active, _least(self.widths, len(active)))
        args = self.engine.params, self.state, tuple(self.slots.rows(rows, self.block)), self.slots.choosing(rows)
        self.engine.announce("block", len(rows), self.block, self.capacity)
        with self.pace.block(len(rows)):
            self.state, chosen = programs.decode(self.engine.cfg, self.engine.mesh, self.block, *args)
            ids = np.asarray(chosen.tokens)
        for row, slot in enumerate(rows):
            if slot not in active:
                continue
            assert slot.job is not None and slot.token is not None
            tokens = _tokens(chosen, ids, row, slot.job.request.logprobs)
            read = [slot.token, *(token.id for token in tokens)][: len(tokens)]
            slot.items, slot.length = slot.items.followed_by(read), slot.length + len(tokens)
            self._take(slot, tokens)

    def _take(self, slot: Slot, tokens: list[Token]) -> None:
        """Give new tokens of `slot` to its listener, and its end where one of them is one."""
        job = slot.job
        assert job is not None
        stops = (BROKEN, *job.request.stop_ids)
        end = next((n for n, token in enumerate(tokens) if token.id in stops), None)
        if end is not None and tokens[end].id == BROKEN:
            self.end(slot, tokens[:end], Finish("error", self.not_finite))
        elif end is not None:
            self.end(slot, tokens[:end], Finish("stop", stop_id=tokens[end].id))
        elif len(tokens) == job.left:
            self.end(slot, tokens, Finish("length"))
        else:
            slot.token = tokens[-1].id
            job.give(tokens)

    @cached_property
    def not_finite(self) -> str:
        """Why logits are not finite; it reads every weight, which is done once."""
        return str(self.engine.not_finite([]))

    def end(self, slot: Slot, tokens: list[Token], finish: Finish) -> None:
        """End the answer of `slot`, which is free from now on."""
        job = slot.job
        assert job is not None
        if finish.reason == "error":
            slot.items = NOTHING
            self.state = programs.clear(self.engine.mesh, self.state, np.int32(slot.number))
        self.slots.release(slot, self.turns)
        job.give(tokens, finish)

    def start_over(self, error: str) -> None:
        """End all answers with `error`; the cache is made anew, once the memory of the old one is free."""
        self.store.clear()
        self.state = _nothing()
        for slot in self.slots.all:
            job, slot.items = slot.job, NOTHING
            self.slots.release(slot, self.turns)
            if job is not None:
                job.give([], Finish("error", error))
        self.state = self._empty()


def _nothing() -> programs.State:
    """A state that no program takes, in place of one whose memory is given away."""
    return programs.State((0, 0), 0)  # type: ignore[arg-type]


def attended_for_a_token(cfg: ModelConfig) -> float:
    """Entries of a row whose attention is as many multiplications as all matrices of a layer for a token."""
    of_heads = (cfg.num_heads + cfg.num_kv_heads) * (cfg.qk_dim + cfg.head_dim)
    return cfg.hidden_size * (of_heads + 3 * cfg.intermediate_size) / (cfg.num_heads * (cfg.qk_dim + cfg.head_dim))


def widths(count: int, mesh: Mesh | None) -> tuple[int, ...]:
    """How many of `count` slots are decoded at a time: 1, 2, 4 and so on, and all, a program for each.

    All alone where a mesh divides them, since there every row has its place.
    """
    fewer = [] if batch_parts(mesh) > 1 else [2**n for n in range(count.bit_length()) if 2**n < count]
    return (*fewer, count)


def _blocks(tokens: int) -> int:
    """Blocks of a row that hold its first `tokens` entries."""
    return -(-tokens // BLOCK)


def _least(sizes: Sequence[int], entries: int) -> int:
    return next(size for size in sizes if size >= entries)


def _tokens(chosen: Chosen, ids: np.ndarray, row: int, alternatives: int) -> list[Token]:
    """The tokens of `row`, with log-probabilities if they are wanted."""
    plain = [int(token) for token in ids[row] if token != NONE]
    if alternatives < 0:
        return [Token(token) for token in plain]
    one, top, top_ids = (np.asarray(part)[row] for part in chosen.logprobs)
    pairs = (
        zip(i.tolist(), p.tolist(), strict=True)
        for i, p in zip(top_ids[:, :alternatives], top[:, :alternatives], strict=True)
    )
    found = zip(plain, one.tolist(), map(tuple, pairs), strict=False)
    return [Token(token, own, several) for token, own, several in found]
