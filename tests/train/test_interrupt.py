"""SIGTERM and Ctrl-C: remembered, honored at the next safe point, never lost between stages."""

import signal
from pathlib import Path

import pytest
from ml_collections import ConfigDict

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
