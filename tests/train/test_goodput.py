"""Where the time went adds up, sessions are listed, and the report is drawn from what a stage left."""

import json
import time

import jax
import numpy as np
import pytest

from eve_jax.process import connect
from eve_jax.train.goodput import GOODPUT, KINDS, Goodput, describe, read_goodput
from eve_jax.train.metrics import FIELDS, METRICS
from eve_jax.train.report import REPORT, column, smooth, write_report
from tests.process.test_peers import three

__all__ = ["three"]


def test_kinds_add_up(tmp_path):
    with Goodput(tmp_path) as goodput:
        with goodput.on("start"):
            jax.jit(lambda x: x * 3 + 1)(np.arange(7.0)).block_until_ready()
        taken = list(goodput.waiting(iter([1, 2])))
        with goodput.on("save"):
            time.sleep(0.02)
        totals = goodput.totals()
        goodput.write(4)
    assert taken == [1, 2]
    assert tuple(sorted(totals)) == tuple(sorted(KINDS))
    assert totals["compile"] > 0
    assert totals["save"] >= 0.02
    assert all(seconds >= 0 for seconds in totals.values())
    with Goodput(tmp_path) as later:
        later.first_step = 4
        later.write(6)
        later.write(9)
    sessions = read_goodput(tmp_path)
    assert [(s["first_step"], s["last_step"]) for s in sessions] == [(0, 4), (4, 9)]


def test_waiting_for_a_peer_that_compiles_is_compiling(three, tmp_path, monkeypatch):
    def of(number: int, compiled: float, steps: int) -> Goodput:
        """One of three processes whose steps compiled for a while, as it has seen it."""
        monkeypatch.setattr(connect, "_peers", three[number])
        goodput = Goodput(tmp_path / "stage1")
        goodput.clock -= 100
        goodput._heard("/jax/core/compile/backend_compile_duration", compiled)
        for _ in goodput.waiting(iter(range(steps))):
            pass
        return goodput

    of(1, 40.0, 2)
    of(2, 3.0, 2)
    totals = of(0, 10.0, 2).totals()
    assert totals["compile"] == pytest.approx(40.0), "10 s of its own, and 30 more until process 1 was there"
    assert totals["step"] == pytest.approx(60.0, abs=5)
    assert of(0, 50.0, 2).totals()["compile"] == pytest.approx(50.0), "the others wait for this one"


def test_sessions_that_cannot_be_read(tmp_path):
    for text in ("null", "{", "3"):
        (tmp_path / GOODPUT).write_text(text)
        assert read_goodput(tmp_path) == []


def test_describe():
    seconds = {"start": 1.0, "compile": 2.0, "data": 0.5, "save": 0.5, "step": 6.0}
    text = "1,200 steps in 10.0 s: 60.0% steps, 10.0% start, 20.0% compile, 5.0% data wait, 5.0% saving"
    assert describe(seconds, 1200) == text


def test_report(tmp_path):
    assert write_report(tmp_path) is None
    rng = np.random.default_rng(0)
    lines: list[dict] = [dict.fromkeys(FIELDS, 1.0) | {"step": i + 1, "loss": float(rng.normal())} for i in range(50)]
    lines[7]["loss"] = lines[7]["grad_norm"] = None
    (tmp_path / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Goodput(tmp_path) as goodput:
        goodput.write(50)
    assert write_report(tmp_path) == tmp_path / REPORT
    assert (tmp_path / REPORT).stat().st_size > 10_000
    losses = column(lines, "loss")
    assert np.isnan(losses[7])
    assert np.isfinite(smooth(losses)).all()
