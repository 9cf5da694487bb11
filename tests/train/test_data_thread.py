"""The thread that takes batches is watched: errors arrive, hanging and dying are said, a request to stop ends it."""

import threading
from typing import Any

import pytest

from eve_jax.errors import Hanging, UserError
from eve_jax.train import data_thread as feed
from eve_jax.train.data_thread import watched


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


def test_it_says_where_the_threads_are():
    """A record whose image cannot be had: the place and the record are named."""
    go, inside = threading.Event(), threading.Event()

    class Records:
        def where(self, index):
            return f"captions.jsonl:{index + 1}"

        def __getitem__(self, index):
            inside.set()
            go.wait(10)
            raise KeyError

    class Builder:
        records = Records()

    sample: Any = feed.RowBuilder._sample

    def build():
        with pytest.raises(KeyError):
            sample(Builder(), (6, 3, 0, ()), None, None, None)

    thread = threading.Thread(target=build, daemon=True)
    thread.start()
    assert inside.wait(10)
    said = feed.where_data_threads_are()
    go.set()
    thread.join()
    assert "rows.py:" in said
    assert "(record captions.jsonl:7)" in said
