"""The thread that takes batches is watched: errors arrive, hanging and dying are said, a request to stop ends it."""

import threading
import time
from typing import Any, cast

import pytest

from eve_jax.batch import RowShape
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.plan.plan import MicroBatch
from eve_jax.data.record import Record, Turn
from eve_jax.data.rows.build import RowBuilder
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import Records
from eve_jax.errors import Hanging, UserError
from eve_jax.train import data_thread as feed
from eve_jax.train.data_thread import watched
from tests.data.synthetic import byte_tokenizer, lengths_of


def test_items_in_order():
    assert list(watched(iter(range(50)), 10)) == list(range(50))
    assert list(watched(iter([]), 10)) == []


def test_what_is_raised_arrives_after_the_items_before_it():
    def items():
        yield 1
        raise UserError("too many bad records")

    taken = watched(items(), 10)
    assert next(taken) == 1
    with pytest.raises(UserError, match="too many bad records"):
        next(taken)


class Stuck:
    """An iterator that hangs after one item, until it is let go."""

    def __init__(self):
        self.go = threading.Event()

    def __iter__(self):
        yield 1
        self.go.wait()


def test_hanging_is_noticed():
    stuck = Stuck()
    taken = watched(iter(stuck), 0.05)
    assert next(taken) == 1
    with pytest.raises(Hanging, match=r"no batch for config\.data\.timeout=0\.05 seconds; no thread is building any"):
        next(taken)
    stuck.go.set()


def test_a_request_to_stop_ends_the_waiting():
    stuck = Stuck()
    asked: list[bool] = []
    taken = watched(iter(stuck), 0, lambda: bool(asked))
    assert next(taken) == 1
    asked.append(True)
    assert list(taken) == []
    stuck.go.set()


def test_death_is_noticed(monkeypatch):
    class Dead(threading.Thread):
        def run(self):
            pass

    monkeypatch.setattr(feed.threading, "Thread", Dead)
    with pytest.raises(UserError, match="died"):
        next(watched(iter([1]), 10))


class StuckRecords:
    """Records that cannot be read until they are let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def where(self, index: int) -> str:
        return f"captions.jsonl:{index + 1}"

    def __getitem__(self, index: int) -> Record:
        self.go.wait()
        return Record(str(index), (), (Turn("gpt", "aaaa"),), self.where(index))


def test_it_says_where_the_threads_are_and_what_they_read():
    records = StuckRecords()
    lengths = lengths_of([[0, 0, 5]] * 8)
    reporter: Any = []
    builder = RowBuilder(cast(Records, records), lengths, SampleRule(byte_tokenizer(), ImageRule(), "plain"), reporter)
    micro_batches = [MicroBatch(RowShape(0, 0, 128), [(row,)]) for row in (6, 3)]
    taken = watched(map(builder.build, micro_batches), 0.05, reading=builder.reading)
    with pytest.raises(Hanging, match=r"its threads are at rows/build\.py:\d+ \(record captions\.jsonl:7\)\. Fix what"):
        next(taken)
    records.go.set()
    assert len(list(watched(map(builder.build, micro_batches), 10))) == 2
    end = time.monotonic() + 10  # the thread of the first one ends by itself
    while builder.reading and time.monotonic() < end:
        time.sleep(0.01)
    assert builder.reading == {}


def test_a_place_that_cannot_be_looked_up_holds_nothing_up(monkeypatch):
    monkeypatch.setattr(feed, "_LOOK", 0.05)
    stuck = threading.Event()

    class Place:
        def __str__(self):
            stuck.wait()
            return "captions.jsonl:7"

    records = StuckRecords()
    lengths = lengths_of([[0, 0, 5]] * 8)
    reporter: Any = []
    builder = RowBuilder(cast(Records, records), lengths, SampleRule(byte_tokenizer(), ImageRule(), "plain"), reporter)
    thread = threading.Thread(target=builder.build, args=(MicroBatch(RowShape(0, 0, 128), [(1,)]),), daemon=True)
    thread.start()
    while thread.ident not in builder.reading:
        pass
    found = feed.where_data_threads_are({thread.ident: Place()})
    assert "(record unknown: its file cannot be read)" in found
    stuck.set()
    records.go.set()
    thread.join()
