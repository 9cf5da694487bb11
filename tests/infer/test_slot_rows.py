"""How many slots a block is for: no more than answers need. How long pieces are: no longer than two blocks."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.errors import UserError
from eve_jax.infer import pace, slot_programs, slot_rows
from eve_jax.infer.choosing import Logprobs
from eve_jax.infer.engine import Engine
from eve_jax.infer.pieces import OVERHEAD
from eve_jax.infer.programs import NONE
from eve_jax.infer.requests import Request
from eve_jax.infer.scheduler import CHUNK_WORK, Scheduler, SchedulerSettings
from eve_jax.infer.slot_programs import Chosen
from eve_jax.infer.slot_rows import widths
from eve_jax.infer.unthreaded import run_all
from tests import reference as ref
from tests.infer.mixed import Heard, alone, prompt, words


def test_numbers_of_slots_that_are_decoded_together():
    assert [widths(count, None) for count in (1, 2, 3, 8, 12)] == [
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 4, 8),
        (1, 2, 4, 8, 12),
    ]


def test_rows_that_a_mesh_divides_are_decoded_all_at_once(monkeypatch):
    monkeypatch.setattr(slot_rows, "batch_parts", lambda mesh: 2)
    assert widths(8, None) == (8,)


def test_few_answers_are_decoded_by_themselves(monkeypatch):
    """One, two and three of four slots, whichever they are, next to others that keep what they had."""
    cfg = ref.config()
    engine, seen = Engine(cfg, ref.params(cfg)), list[int]()
    scheduler = Scheduler(engine, SchedulerSettings(slots=4, context=160, chunk=16, block=4))
    decode = slot_programs.decode

    def watched(*args):
        seen.append(len(args[5][0]))
        return decode(*args)

    monkeypatch.setattr(slot_programs, "decode", watched)
    heard, asked = Heard(), [Request(prompt([5, 6, n]), 4 * n) for n in (1, 3, 2)]
    for number, request in enumerate([*asked, asked[1]]):
        scheduler.submit(request, heard.listener(number))
        if number < 2:
            scheduler.turn()
    while scheduler.busy:
        scheduler.turn()
    assert seen[0] == 1 and set(seen) == {1, 2, 4}
    assert [heard.ids(n) for n in range(4)] == [alone(engine, request) for request in (*asked, asked[1])]


NOTHING = Logprobs(jnp.zeros(0), jnp.zeros(0), jnp.zeros(0))  # no request asks for them


class Machine:
    """Programs that take time of a clock and compute nothing: a piece by its length and place, a block by its rows."""

    def __init__(self, token: float, entry: float, block: float, row: float):
        self.token, self.entry, self.block, self.row = token, entry, block, row
        self.now, self.waits, self.read = 0.0, 0.0, list[float]()
        self.pieces = 0
        self.copies = 0.0  # seconds that entries for a prompt that begins as another one take

    def prefill(self, cfg, mesh, params, state, batch, where, ends, how):
        length, start = batch["perm"].shape[1], int(where[1][0])
        spent = self.token * (length + 32) + self.entry * length * start
        self.now, self.waits, self.pieces = self.now + spent, self.waits + spent, self.pieces + 1
        return state, Chosen(jnp.array([[5]]), NOTHING)

    def copy(self, mesh, state, source, target, blocks):
        self.now, self.waits = self.now + self.copies, self.waits + self.copies
        return state

    def decode(self, cfg, mesh, block, params, state, rows, how):
        spent = self.block + self.row * len(rows[0])
        self.read.append(self.waits / spent)
        self.now, self.waits = self.now + spent, 0.0
        return state, Chosen(jnp.where(np.arange(block) < rows[3][:, None], 5, NONE), NOTHING)


def started(monkeypatch: pytest.MonkeyPatch, machine: Machine, **settings: Any) -> Scheduler:
    """A scheduler on `machine`, whose programs are measured."""
    for name in ("prefill", "decode", "copy"):
        monkeypatch.setattr(slot_programs, name, getattr(machine, name))
    monkeypatch.setattr(pace, "clock", lambda: machine.now)
    cfg = ref.config()
    scheduler = Scheduler(Engine(cfg, ref.params(cfg)), SchedulerSettings(**{"context": 1024, **settings}))
    scheduler.rows.warm_up(lambda done, total: None)
    machine.now = machine.waits = 0.0
    machine.read.clear()
    return scheduler


@pytest.mark.parametrize(
    ("token", "block", "row"), [(1e-4, 0.5, 0.1), (1e-3, 0.1, 0.03), (2e-3, 0.1, 0.03), (2e-3, 0.3, 0.0)]
)
def test_reading_a_long_prompt_holds_answers_up_by_two_blocks_at_most(monkeypatch, token, block, row):
    """On machines of several speeds, few or many answers; a piece costs more the further behind it is."""
    machine = Machine(token, token / 2000, block, row)
    scheduler = started(monkeypatch, machine, context=4096)
    for others in (1, 3, 7):
        machine.read.clear()
        for _ in range(others):
            scheduler.submit(Request(prompt(words(np.random.default_rng(others), 20)), 2000), Heard().listener(0))
        while len(scheduler.rows.slots.decoding) < others:
            scheduler.turn()
        machine.read.clear()
        ticket = scheduler.submit(Request(prompt([*range(1, 301)] * 10), 1), Heard().listener(1))
        while ticket.finished is None:
            scheduler.turn()
        assert len(machine.read) > 5 and max(machine.read) <= 2
        scheduler.rows.start_over("next")
    stats = scheduler.stats()
    assert sum(stats.stalls) >= len(machine.read) and stats.stalled >= sum(machine.read)
    assert not any(count for bound, count in zip((*pace.BOUNDS, math.inf), stats.stalls, strict=True) if bound > 2)


def test_a_piece_that_takes_longer_than_known_is_the_last_before_a_block(monkeypatch):
    """On a machine that becomes slower while it reads a prompt."""
    machine = Machine(1e-3, 5e-7, 0.1, 0.03)
    scheduler = started(monkeypatch, machine, context=4096)
    scheduler.submit(Request(prompt([7] * 20), 2000), Heard().listener(0))
    while not scheduler.rows.slots.decoding:
        scheduler.turn()
    ticket = scheduler.submit(Request(prompt([*range(1, 301)] * 10), 1), Heard().listener(1))
    pieces = []
    while ticket.finished is None:
        machine.pieces = 0
        scheduler.turn()
        pieces.append(machine.pieces)
        if len(pieces) == 3:
            machine.token, machine.entry = 4 * machine.token, 4 * machine.entry
    assert max(pieces[:3]) > 1 and pieces[3] == 1, pieces


@pytest.mark.parametrize(("copies", "most"), [(0.12, 2.0), (0.2, 2.0), (0.5, 3.8)])
def test_copies_that_a_prompt_begins_with_are_no_further_wait(monkeypatch, copies, most):
    """Of what others have read of it, 0.1 to 0.5 s where a block takes 0.132: then nothing else is done before it."""
    machine, begins = Machine(1e-3, 0.0, 0.1, 0.008), list(range(1, 101))
    scheduler = started(monkeypatch, machine, slots=4)
    for number in range(3):
        scheduler.submit(Request(prompt([*begins, number]), 200), Heard().listener(0))
    while len(scheduler.rows.slots.decoding) < 3:
        scheduler.turn()
    machine.read.clear()
    machine.copies = copies
    ticket = scheduler.submit(Request(prompt([*begins, 7] * 6), 1), Heard().listener(1))
    while ticket.finished is None:
        scheduler.turn()
    assert ticket.cached_tokens == 100 and max(machine.read) <= most


def test_many_that_wait_for_their_first_token_are_read_in_chunks(monkeypatch):
    """Prompts that take as long as their answers: more at a time are faster, also where answers are held up little."""
    asked = [Request(prompt([n, *range(1, 300)] * 2), 64) for n in range(1, 33)]
    spent: dict[tuple[int, str], float] = {}
    for slots, prefer in ((1, "latency"), (8, "latency"), (8, "throughput")):
        machine = Machine(7e-4, 0.0, 0.055, 0.007)
        scheduler = started(monkeypatch, machine, slots=slots, prefer=prefer)
        assert len(list(run_all(scheduler, asked))) == len(asked)
        spent[slots, prefer] = machine.now
        if (slots, prefer) == (8, "latency"):
            assert 2 < max(machine.read[1:]) < 7e-4 * (CHUNK_WORK * 256 + OVERHEAD) / 0.062, machine.read
    one = spent[1, "latency"]
    assert one > 1.1 * spent[8, "latency"] and one > 1.5 * spent[8, "throughput"], spent


def test_to_prefer_throughput_reads_what_there_is_first(monkeypatch):
    """But no more prompts than slots between two blocks, however many wait whose answers end at once."""
    machine = Machine(1e-3, 0.0, 0.1, 0.01)
    scheduler = started(monkeypatch, machine, slots=4, prefer="throughput")
    for number in range(4):
        scheduler.submit(Request(prompt([number + 1] * 300), 40), Heard().listener(0))
    while len(scheduler.rows.slots.decoding) < 4:
        scheduler.turn()
    assert len(machine.read) == 1 and machine.read[0] > 4
    scheduler.rows.start_over("next")
    heard = Heard()
    scheduler.submit(Request(prompt([9] * 20), 40), heard.listener(0))
    for number in range(1, 30):
        scheduler.submit(Request(prompt([number] * 20), 1), heard.listener(number))
    while 0 not in heard.ends:
        scheduler.turn()
    assert 4 < len(heard.ends) < 30


def test_a_cache_that_no_device_has_room_for():
    cfg = ref.config()
    with pytest.raises(UserError, match=r"^slots=999 and context=1000000000 do not fit into the device's memory"):
        Scheduler(Engine(cfg, ref.params(cfg)), SchedulerSettings(slots=999, context=10**9))
