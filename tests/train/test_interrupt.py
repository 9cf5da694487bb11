"""SIGTERM and Ctrl-C: remembered, honored at the next safe point, never lost between stages."""

import io
import logging
import signal
import sys
import threading
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from eve_jax.checkpoint.stage_folder import Checkpoints
from eve_jax.process import interrupt
from eve_jax.train.trainer import train


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(interrupt, "_asked", False)
    monkeypatch.setattr(interrupt, "_ready", False)
    old = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    yield
    for number, handler in old.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_before_and_after_the_imports(number):
    interrupt.install()
    signal.raise_signal(number)
    assert interrupt.asked()
    with pytest.raises(KeyboardInterrupt):
        interrupt.ready()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_while_training(number):
    before = signal.getsignal(number)
    with interrupt.StopRequest() as stop:
        assert not stop.wanted
        signal.raise_signal(number)
        assert stop.wanted
        signal.raise_signal(signal.SIGTERM)  # a second one changes nothing
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(number) is before
    assert interrupt.asked()
    with pytest.raises(interrupt.Interrupted, match="stopped before stage2"):
        train(ConfigDict({"name": "stage2"}), Path("nowhere"))


def test_in_another_thread_nobody_is_asked() -> None:
    before = [signal.getsignal(number) for number in interrupt.SIGNALS]
    found: list[object] = []

    def train_there() -> None:
        with interrupt.StopRequest() as stop:
            found.append(stop.wanted)

    thread = threading.Thread(target=train_there)
    thread.start()
    thread.join()
    assert found == [False]
    assert [signal.getsignal(number) for number in interrupt.SIGNALS] == before


class Closed:
    """A stream without anything."""


@pytest.mark.parametrize("stream", [io.StringIO(), None, Closed()])
def test_where_nothing_can_be_written(stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", stream)  # as in a notebook, or in a program without a console
    with interrupt.StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.wanted


def test_a_program_keeps_its_hooks(tmp_path: Path) -> None:
    hook, filters = sys.unraisablehook, list(logging.getLogger("asyncio").filters)
    Checkpoints(tmp_path).close()
    assert sys.unraisablehook is hook
    assert logging.getLogger("asyncio").filters == filters
