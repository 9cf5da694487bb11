"""The slots at work: rows of the cache are given, read into, decoded from, and kept for prompts that begin alike."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import jax
import numpy as np

from eve_jax.batch import RowShape
from eve_jax.infer import slot_choice, warming
from eve_jax.infer import slot_programs as programs
from eve_jax.infer.cache import round_up
from eve_jax.infer.engine import Engine
from eve_jax.infer.finite import BROKEN
from eve_jax.infer.pieces import OVERHEAD, Piece, Spelled, shapes
from eve_jax.infer.prefix import NOTHING, Kept, PrefixStore
from eve_jax.infer.programs import NONE
from eve_jax.infer.prompt import Prompt
from eve_jax.infer.requests import Finish, Token
from eve_jax.infer.slot_programs import Chosen, Sizes
from eve_jax.infer.slots import Slot, Slots
from eve_jax.infer.tickets import Job
from eve_jax.model.config import ModelConfig

UNIT = 64  # capacities are multiples of it


class SlotRows:
    """`count` slots of `context` tokens; `chunk` and `block` are sizes of a prefill's piece and of a decoded block."""

    def __init__(self, engine: Engine, count: int, context: int, chunk: int, block: int, store: PrefixStore):
        self.engine, self.context, self.block = engine, context, block
        self.whole_images = engine.cfg.patch_embed == "v1"
        self.menu = shapes(min(chunk, context), self.whole_images, context)
        self.capacities = capacities(context, max(block, *(shape.length for shape in self.menu)))
        self.decoded = capacities(context, 0)  # decoding has its new entries elsewhere
        self.slots = Slots(count)
        self.store = store
        self.turns = 0
        self.state = self._empty()

    def _empty(self) -> programs.State:
        state = programs.empty(self.engine.cfg, self.engine.mesh, len(self.slots.all), self.capacities[-1])
        if self.engine.mesh is not None:
            return state
        # Bound to its device as what programs return is, else the first one to take it is compiled twice.
        return jax.device_put(state, next(iter(self.engine.params.values())).sharding)

    def spelled(self, prompt: Prompt) -> Spelled:
        """`prompt` as it is cut into pieces; safe for threads."""
        return Spelled(prompt, self.menu, self.whole_images)

    def warm_up(self, progress: Callable[[int, int], None]) -> int:
        """Compile every program by running it on empty slots; returns how many there are."""
        sizes = warming.Menu(self.menu, self.capacities, self.decoded, self.block, self.context)
        self.state, count = warming.warm(self.engine, self.state, sizes, progress)
        return count

    def capacity(self, entries: int) -> int:
        """The smallest capacity that has room for so many entries."""
        return _least(self.capacities, entries)

    def begin(self, job: Job) -> Slot:
        """Give a free slot to `job`; its row begins with what is there of the prompt already."""
        choice = slot_choice.choose(self.slots.all, self.store, job.items)
        slot, mesh = choice.slot, self.engine.mesh
        if choice.saves:
            self._save(slot)
        number = np.int32(slot.number)
        if isinstance(choice.source, Kept):
            self.state = programs.put(mesh, self.state, choice.source.row, number)
            self.store.used(choice.source)
        elif choice.source is not None:
            source = np.int32(choice.source.number)
            self.state = programs.copy(mesh, self.capacity(choice.tokens), self.state, source, number)
        self.slots.give(slot, job, choice.tokens)
        if job.request.sampling.penalized:
            ids = np.full(self.context, -1, np.int32)
            text = job.request.prompt.text
            ids[: len(text)] = text
            self.state = programs.note_prompt(mesh, self.state, number, ids)
        return slot

    def _save(self, slot: Slot) -> None:
        capacity = self.capacity(slot.length)
        keys, values = self.state.cache
        size = (keys.nbytes + values.nbytes) // len(self.slots.all) * capacity // self.capacities[-1]
        if self.store.takes(size):
            row = programs.take(self.engine.mesh, capacity, self.state, np.int32(slot.number))
            self.store.add(Kept(slot.items, row, capacity, size))

    def work(self, start: int, shape: RowShape) -> float:
        """What a piece of `shape` behind `start` tokens costs, in tokens at the beginning of a prompt."""
        entries = self.capacity(start + shape.length)
        return shape.length * (1 + entries / attended_for_a_token(self.engine.cfg)) + OVERHEAD

    def piece(self, slot: Slot, most: float = math.inf, must: bool = True) -> Piece:
        """The next piece of the prompt of `slot`, of at most so much `work`.

        Where each is more, the one of least work, or, unless one `must` be, an empty one.
        """
        assert slot.job is not None
        spelled, start = slot.job.spelled, slot.length
        work = {shape: self.work(start, shape) for shape in self.menu}
        piece = spelled.piece(start, [shape for shape in self.menu if work[shape] <= most])
        if piece.stop > start or not must:
            return piece
        each = (spelled.piece(start, [shape]) for shape in sorted(self.menu, key=lambda shape: work[shape]))
        return next(piece for piece in each if piece.stop > start)

    def read(self, slot: Slot, piece: Piece) -> float:
        """Read `piece`, the next one of the prompt of `slot`; returns its `work`."""
        job = slot.job
        assert job is not None
        batch = job.spelled.batch(piece, self.engine.cfg.patch_bytes)
        where = tuple(np.array([slot.number, piece.start, piece.stop - piece.start], np.int32))
        work, capacity = self.work(piece.start, piece.shape), self.capacity(piece.start + piece.shape.length)
        args = self.engine.params, self.state, batch, where, self.slots.choosing([slot])
        self.state, chosen = programs.prefill(self.engine.cfg, self.engine.mesh, capacity, *args)
        slot.length, slot.items = piece.stop, job.items.upto(piece.stop)
        ids = np.asarray(chosen.tokens)
        if piece.stop == len(job.spelled) or ids[0, 0] == BROKEN:
            self._take(slot, _tokens(chosen, ids, 0, job.request.logprobs))
        return work

    def decode(self) -> None:
        """Decode a block for all slots that answer."""
        active = self.slots.decoding
        if not active:
            return
        wants = any(slot.job.request.logprobs >= 0 for slot in active if slot.job)
        sizes = Sizes(_least(self.decoded, max(slot.length for slot in active)), self.block, wants)
        args = self.engine.params, self.state, tuple(self.slots.rows(self.block)), self.slots.choosing(self.slots.all)
        self.state, chosen = programs.decode(self.engine.cfg, self.engine.mesh, sizes, *args)
        chosen = jax.device_get(chosen)
        for slot in active:
            assert slot.job is not None and slot.token is not None
            tokens = _tokens(chosen, chosen.tokens, slot.number, slot.job.request.logprobs)
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
        """End all answers with `error`; the cache is made anew."""
        self.store.clear()
        self.state = self._empty()
        for slot in self.slots.all:
            job, slot.items = slot.job, NOTHING
            self.slots.release(slot, self.turns)
            if job is not None:
                job.give([], Finish("error", error))


def attended_for_a_token(cfg: ModelConfig) -> float:
    """Entries of a row whose attention is as many multiplications as all matrices of a layer for a token."""
    heads = cfg.num_heads * cfg.head_dim
    projections = 2 * cfg.hidden_size * (heads + cfg.num_kv_heads * cfg.head_dim)
    return (projections + 3 * cfg.hidden_size * cfg.intermediate_size) / (2 * heads)


def capacities(context: int, room: int) -> tuple[int, ...]:
    """Sizes of rows that programs read: a 16th, a quarter, half and all of `context`, each with `room` behind.

    Without those that are more than three quarters of the next one.
    """
    found: list[int] = []
    for part in (1, 2, 4, 16):
        size = round_up(-(-context // part) + room, UNIT)
        if not found or 4 * size <= 3 * found[0]:
            found.insert(0, size)
    return tuple(found)


def _least(sizes: Sequence[int], entries: int) -> int:
    return next(size for size in sizes if size >= entries)


def _tokens(chosen: Chosen, ids: np.ndarray, row: int, alternatives: int) -> list[Token]:
    """The tokens of `row`, with log-probabilities if they are wanted."""
    plain = [int(token) for token in ids[row] if token != NONE]
    if alternatives < 0 or chosen.logprobs is None:
        return [Token(token) for token in plain]
    one, top, top_ids = (np.asarray(part)[row] for part in chosen.logprobs)
    pairs = (
        zip(i.tolist(), p.tolist(), strict=True)
        for i, p in zip(top_ids[:, :alternatives], top[:, :alternatives], strict=True)
    )
    found = zip(plain, one.tolist(), map(tuple, pairs), strict=False)
    return [Token(token, own, several) for token, own, several in found]
