"""Requests through the scheduler: each gets the answer that it gets alone, whatever the others are."""

import gc
import random
import threading
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.batch import RowShape
from eve_jax.errors import UserError
from eve_jax.infer.engine import Engine
from eve_jax.infer.pieces import OVERHEAD, Piece
from eve_jax.infer.requests import Finish, QueueFull, Request, Ticket, Token
from eve_jax.infer.sampling import Sampling
from eve_jax.infer.scheduler import CHUNK_WORK, Scheduler, SchedulerSettings
from eve_jax.infer.slots import Slot
from eve_jax.infer.unthreaded import run_all
from tests import reference as ref
from tests import reference_v1
from tests.compiles import watched
from tests.infer.mixed import Heard, Picture, alone, mix, picture, prompt, words

SETTINGS = SchedulerSettings(slots=4, context=160, chunk=16, queue=8, block=4, prefix_bytes=2**20)
VISION = "layers.attn.v.vision.kernel"


@pytest.fixture(scope="module")
def engine() -> Engine:
    cfg = ref.config()
    return Engine(cfg, ref.params(cfg))


@pytest.fixture(scope="module")
def warm(engine: Engine) -> Scheduler:
    scheduler = Scheduler(engine, SETTINGS)
    seen: list[tuple[int, int]] = []
    count = scheduler.warm_up(lambda done, total: seen.append((done, total)))
    assert count == 2 + 3 + 5 and seen[-1] == (count, count)  # pieces, numbers of slots decoded, copies of rows
    assert scheduler.stats().compiled >= count - 1
    return scheduler


@pytest.fixture
def fresh(engine: Engine, warm: Scheduler) -> Scheduler:
    """A scheduler whose cache is empty; the programs are those of `warm`."""
    return Scheduler(engine, SETTINGS)


def finish(scheduler: Scheduler) -> None:
    while scheduler.busy:
        scheduler.turn()


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
            listener = heard.listener(number, cancelled.get(number, -1) or -1)
            while len(tickets) == number:
                try:
                    tickets.append(scheduler.submit(request, listener))
                except QueueFull:
                    scheduler.turn()
            if cancelled.get(number) == 0:
                tickets[-1].cancel()
            if rng.random() < 0.3:
                scheduler.turn()
        finish(scheduler)
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
        assert None not in times and times == sorted(times)  # type: ignore[type-var]
    assert len({end.reason for end in heard.ends.values()}) == 3
    assert scheduler.stats().used_tokens == scheduler.stats().running == scheduler.stats().waiting == 0


def test_a_mix_of_requests_is_answered_as_each_alone(engine, warm):
    check_mix(engine, warm, 30, 1)
    assert warm.stats().prefix_hits > 200


@pytest.mark.slow
def test_many_requests_are_answered_as_each_alone(engine, warm):
    check_mix(engine, warm, 200, 2)


@pytest.mark.slow
def test_memory_is_flat(fresh):
    """Arrays on the device and objects of Python after 500 short requests, and after 2,000."""
    rng = np.random.default_rng(0)

    def answer(count: int) -> tuple[int, int, int]:
        requests = [Request(prompt(words(rng, 20)), 3, Sampling(0.5, seed=n)) for n in range(count)]
        assert sum(end.reason == "length" for _, _, end in run_all(fresh, requests)) == count
        del requests
        gc.collect()
        return len(jax.live_arrays()), sum(x.nbytes for x in jax.live_arrays()), len(gc.get_objects())

    arrays, size, objects = answer(500)
    after = answer(1500)
    assert after[:2] == (arrays, size)
    assert after[2] < objects + 500


@pytest.mark.slow
@pytest.mark.parametrize("name", reference_v1.NAMES)
def test_requests_to_evev1(name):
    """Its images stay whole, also those of more tokens than a chunk."""
    cfg = reference_v1.config(name)
    v1, rng = Engine(cfg, reference_v1.params(cfg, name)), np.random.default_rng(0)

    def image(h: int, w: int) -> Picture:
        return rng.integers(0, 256, (h * w, cfg.patch_bytes), np.uint8), (h, w)

    large, small = image(6, 6), image(2, 3)
    asked = [prompt([*range(5, 30), ref.IMAGE_ID, 7], large), prompt([5, ref.IMAGE_ID, ref.IMAGE_ID], small, large)]
    requests = [Request(one, 6) for one in (*asked, prompt([5, 6]), asked[0])]
    found = {number: ids for number, ids, _ in run_all(Scheduler(v1, SETTINGS), requests)}
    assert found == {number: alone(v1, request) for number, request in enumerate(requests)}


def test_prompts_are_read_in_chunks_while_others_decode(engine, monkeypatch):
    """Where none waits for it, in the pieces that take least time."""
    scheduler = Scheduler(engine, SchedulerSettings(slots=4, context=1024, chunk=64))
    rows = scheduler.rows
    turns: list[list[tuple[RowShape, float, bool]]] = []

    def read(given: list[tuple[Slot, Piece]]) -> None:
        ((slot, piece),) = given
        work = rows.work(piece.start, piece.shape)
        turns[-1].append((piece.shape, work, bool(rows.slots.decoding)))
        slot.length = piece.stop
        assert slot.job
        slot.token = 5 if slot.length == len(slot.job.spelled) else None

    monkeypatch.setattr(rows, "read", read)
    monkeypatch.setattr(rows, "decode", lambda: None)
    for length in (300, 500, 20, 20):
        scheduler.submit(Request(prompt([5] * length), 4), Heard().listener(0))
    while len(rows.slots.decoding) < 4:
        turns.append([])
        scheduler.turn()
    most, whole = CHUNK_WORK * 64 + OVERHEAD, RowShape(0, 0, 64)
    alone, waiting = ([turn for turn in turns if turn[0][2] == waits] for waits in (False, True))
    assert [shape for turn in alone for shape, _, waits in turn if not waits][:4] == [whole] * 4
    assert all(sum(work for _, work, _ in turn) <= most or len(turn) == 1 for turn in waiting)
    assert len(waiting) > 4 and max(work for turn in waiting for _, work, _ in turn) <= most


def test_a_full_queue_refuses(fresh):
    heard = Heard()
    request = Request(prompt([5, 6, 7]), 40)
    room = SETTINGS.slots + SETTINGS.queue
    for number in range(room):
        fresh.submit(request, heard.listener(number))
    with pytest.raises(QueueFull, match=r"may wait already \(12\)"):
        fresh.submit(request, heard.listener(room))
    for _ in range(SETTINGS.slots):
        fresh.turn()
    assert (fresh.stats().running, fresh.stats().waiting) == (4, 8)
    with pytest.raises(QueueFull, match=r"may wait already \(8\)"):
        fresh.submit(request, heard.listener(room))
    finish(fresh)
    assert {tuple(heard.ids(number)) for number in range(room)} == {tuple(alone(fresh.engine, request))}


def test_a_cancelled_answer_frees_its_slot_at_once(fresh):
    """Seven long ones are cancelled while they are read, answered and waiting: the eighth is next."""
    heard = Heard()
    long = Request(prompt([5] * 60), 100)
    tickets = [fresh.submit(long, heard.listener(number)) for number in range(7)]
    fresh.turn()
    last = Request(prompt([5, 6, 7]), 4)
    fresh.submit(last, heard.listener(7))
    for ticket in tickets:
        ticket.cancel()
        ticket.cancel()
    for _ in range(2):
        fresh.turn()
    assert [heard.ends[number] for number in range(7)] == [Finish("cancelled")] * 7
    assert heard.ids(7) == alone(fresh.engine, last)


def test_logits_that_are_not_finite_end_their_request_alone(engine, fresh):
    """Vision weights that are NaN: texts next to an image, and in its slot afterwards, are answered."""
    broken = Engine(engine.cfg, engine.params | {VISION: jnp.full_like(engine.params[VISION], np.nan)})
    scheduler, heard, rng = Scheduler(broken, replace(SETTINGS, slots=2)), Heard(), np.random.default_rng(0)
    asked = [prompt(words(rng, 9)), prompt([5, ref.IMAGE_ID, 6], picture(rng, 5, 6)), prompt(words(rng, 30))]
    requests = [Request(asked[n], 9) for n in (0, 1, 2, 1, 2, 0)]
    found = {number: (ids, end) for number, ids, end in run_all(scheduler, requests)}
    for number, request in enumerate(requests):
        ids, end = found[number]
        if request.prompt is asked[1]:
            assert (ids, end.reason) == ([], "error") and f"not finite; {VISION} is NaN" in end.error
        else:
            assert (ids, end) == (alone(engine, request), Finish("length"))
    assert not heard.ends


def test_an_error_later_in_an_answer_and_a_padding_id_without_an_embedding(engine, fresh):
    request = Request(prompt([5, 6, 7]), 12)
    good = alone(engine, request)
    assert good[6] not in good[:6]
    embed = jnp.asarray(engine.params["embed"]).at[jnp.array([0, good[6]])].set(np.nan)
    scheduler = Scheduler(Engine(engine.cfg, engine.params | {"embed": embed}), SETTINGS)
    other = Request(prompt([9, 10]), 5)
    assert not {0, good[6]} & set(alone(engine, other))
    found = {number: (ids, end.reason) for number, ids, end in run_all(scheduler, [request, other, request, other])}
    assert found[0] == found[2] == (good[:7], "error")
    assert found[1] == found[3] == (alone(engine, other), "length")


def test_the_thread_answers_and_drains(engine, fresh):
    heard, requests = Heard(), mix(8, 3)
    fresh.start()
    for number, request in enumerate(requests):
        fresh.submit(request, heard.listener(number))
    fresh.close(drain=True)
    assert [heard.ids(n) for n in range(8)] == [alone(engine, request) for request in requests]
    with pytest.raises(UserError, match="the scheduler is closed"):
        fresh.submit(requests[0], heard.listener(8))


def test_closing_without_draining_cancels(fresh):
    heard, began = Heard(), threading.Event()

    def listen(ticket: Ticket, tokens: list[Token], end: Finish | None) -> None:
        began.set()
        heard.ends |= {0: end} if end else {}

    fresh.start()
    fresh.submit(Request(prompt([5]), 150), listen)
    began.wait(60)
    for number in range(1, 9):
        fresh.submit(Request(prompt([5]), 150), heard.listener(number))
    fresh.close(drain=False)
    assert heard.ends == dict.fromkeys(range(9), Finish("cancelled"))


def test_a_listener_that_raises_and_a_program_that_fails_harm_no_one_else(engine, fresh, monkeypatch, capsys):
    heard, request = Heard(), Request(prompt([5, 6, 7]), 9)

    def bad(ticket: Ticket, tokens: list[Token], end: Finish | None) -> None:
        raise RuntimeError("a defect of the listener")

    fresh.submit(request, bad)
    fresh.submit(request, heard.listener(0))
    finish(fresh)
    assert heard.ids(0) == alone(engine, request)
    assert "a defect of the listener" in capsys.readouterr().err
    fresh.submit(request, heard.listener(1))
    monkeypatch.setattr(fresh.rows, "decode", lambda: 1 / 0)
    fresh._guarded_turn()
    monkeypatch.undo()
    assert heard.ends[1] == Finish("error", "the server failed: ZeroDivisionError")
    fresh.submit(request, heard.listener(2))
    finish(fresh)
    assert heard.ids(2) == alone(engine, request)


@pytest.mark.parametrize("lacking", [("begin",), ("decode", "_empty")])
def test_no_answer_is_lost_where_the_device_has_no_room(engine, fresh, monkeypatch, lacking):
    heard, request = Heard(), Request(prompt([5, 6, 7]), 9)
    for name in lacking:
        monkeypatch.setattr(fresh.rows, name, lambda *given: [][0])
    fresh.submit(request, heard.listener(0))
    fresh._guarded_turn()
    monkeypatch.undo()
    fresh.submit(request, heard.listener(1))
    fresh._guarded_turn()  # with "_empty", the one that makes the cache anew
    fresh.submit(request, heard.listener(2))
    finish(fresh)
    assert heard.ends[0].reason == "error" and heard.ids(2) == alone(engine, request)
    assert heard.ends[1].reason == ("error" if "_empty" in lacking else "length")
