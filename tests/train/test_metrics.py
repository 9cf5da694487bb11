"""metrics.jsonl: one line a step whatever log_every, cut back on resume, a torn last line ignored."""

import math

import jax.numpy as jnp
import pytest

from eve_jax.config.stages import stage_factors, trained_groups
from eve_jax.train.flops import Tokens, step_flops
from eve_jax.train.metrics import FIELDS, LOST, METRICS, drop_lines_after, read_metrics
from eve_jax.train.metrics_log import Meter, MetricsLog
from eve_jax.train.writers.base import RunInfo
from eve_jax.train.writers.open import open_writers
from tests import reference as ref

COUNTS = {"tokens": 34, "vision_tokens": 12, "patches": 6, "pairs": 595, "rows": 1}


class Device:
    """What a meter asks a device."""

    def __init__(self, kind):
        self.device_kind = kind


def meter(kind="cpu", devices=1):
    return Meter(ref.config(), trained_groups(stage_factors("3")), [Device(kind)] * devices)


def open_log(folder, start, steps, log_every=1):
    run = RunInfo(folder, "test", start, steps, {}, quiet=True)
    return MetricsLog(open_writers("tensorboard,progress", run), log_every, meter())


def write(folder, start, steps, log_every=1):
    log = open_log(folder, start, steps, log_every)
    for step in range(start + 1, steps + 1):
        values = {k: jnp.float32(step) for k in ("loss", "lr", "grad_norm", "targets")}
        log.add(step, values, COUNTS | {"tokens": 30 + step})
    log.close()


@pytest.mark.parametrize("log_every", [1, 3, 100])
def test_a_line_a_step(tmp_path, log_every):
    write(tmp_path, 0, 7, log_every)
    lines = read_metrics(tmp_path)
    assert [m["step"] for m in lines] == list(range(1, 8))
    assert all(tuple(m) == FIELDS for m in lines)
    assert [m["targets"] for m in lines] == list(range(1, 8))
    assert all(m["loss"] == m["step"] and m["seconds"] > 0 for m in lines)
    assert all(m["tokens_per_s"] == m["tokens"] / m["seconds"] and m["mfu"] is None for m in lines)


def test_seconds_of_a_block_are_shared_by_its_steps(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("eve_jax.train.metrics_log.time.perf_counter", lambda: now[0])
    log = open_log(tmp_path, 0, 6, log_every=3)
    values = {k: jnp.float32(1) for k in ("loss", "lr", "grad_norm", "targets")}
    for step in range(1, 7):
        now[0] += 2
        log.add(step, values, COUNTS | {"tokens": 60})
    log.close()
    lines = read_metrics(tmp_path)
    assert [m["seconds"] for m in lines[:3]] == pytest.approx([8 / 3] * 3)  # written with the next block
    assert [m["seconds"] for m in lines[3:]] == pytest.approx([4 / 3] * 3)
    assert [m["tokens_per_s"] for m in lines] == pytest.approx([22.5] * 3 + [45.0] * 3)


def test_flops_and_mfu():
    record = {**COUNTS, "targets": 8, "seconds": 0.5}
    wanted = step_flops(ref.config(), trained_groups(stage_factors("3")), Tokens(6, 6, 22, 8, 595)).useful
    assert meter()(record) == {"tokens_per_s": 68.0, "flops": wanted, "mfu": None}
    assert meter("TPU v5 lite", 4)(record)["mfu"] == wanted / (0.5 * 4 * 197e12)


def test_nothing_is_read_from_the_device_between_logged_steps(tmp_path):
    log = open_log(tmp_path, 0, 6, 3)
    reads = []

    class Value:
        def __init__(self, step):
            self.step = step

        def __array__(self, dtype=None, copy=None):
            reads.append(self.step)
            return jnp.float32(self.step).__array__()

    for step in range(1, 5):
        log.add(step, {k: Value(step) for k in ("loss", "lr", "grad_norm", "targets")}, COUNTS)
        assert set(reads) == (set() if step < 4 else {1, 2, 3})
    log.close()


def test_cut_back_and_torn_line(tmp_path):
    write(tmp_path, 0, 5)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 6, "lo')
    assert len(read_metrics(tmp_path)) == 5
    drop_lines_after(tmp_path, 3)
    assert [m["step"] for m in read_metrics(tmp_path)] == [1, 2, 3]
    write(tmp_path, 3, 5)
    assert [m["step"] for m in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]


def test_damage_within_loses_no_other_line(tmp_path):
    write(tmp_path, 0, 5)
    lines = (tmp_path / METRICS).read_bytes().split(b"\n")
    lines[1] = b"\xff\x00" + lines[1]
    lines[3:3] = [b"[4]", b'{"loss": 1}']
    (tmp_path / METRICS).write_bytes(b"\n".join(lines))
    assert [m["step"] for m in read_metrics(tmp_path)] == [1, 3, 4, 5]
    drop_lines_after(tmp_path, 4)
    assert [m["step"] for m in read_metrics(tmp_path)] == [1, 3, 4]


def test_lines_that_damage_loses_are_kept(tmp_path):
    write(tmp_path, 0, 5)
    before = (tmp_path / METRICS).read_text()
    drop_lines_after(tmp_path, 5, keep_lost=True)
    assert not (tmp_path / LOST).exists()
    drop_lines_after(tmp_path, 2, keep_lost=True)
    assert (tmp_path / METRICS).read_text() + (tmp_path / LOST).read_text() == before
    assert [m["step"] for m in read_metrics(tmp_path)] == [1, 2]


def test_what_is_not_finite_is_null_and_told(tmp_path):
    log = open_log(tmp_path, 0, 4)
    for step, (loss, norm) in enumerate(((1.0, 1.0), (math.nan, 1.0), (3.0, 1.0), (1.0, math.inf)), 1):
        values = {"loss": loss, "lr": 0.1, "grad_norm": norm, "targets": 4.0}
        log.add(step, {k: jnp.float32(v) for k, v in values.items()}, COUNTS)
    log.flush()
    assert (log.pop_non_finite(), log.pop_non_finite()) == ([2, 4], [])
    assert (log.mean_loss(), log.mean_loss()) == (2.0, None)
    log.close()
    lines = read_metrics(tmp_path)
    assert [m["loss"] for m in lines] == [1.0, None, 3.0, 1.0]
    assert [m["grad_norm"] for m in lines] == [1.0, 1.0, 1.0, None]
