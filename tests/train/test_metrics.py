"""metrics.jsonl: one line a step whatever log_every, cut back on resume, a torn last line ignored."""

import jax.numpy as jnp
import pytest

from eve_jax.train.metrics import FIELDS, METRICS, MetricsLog, cut_back, read_metrics


def write(folder, start, steps, log_every=1):
    log = MetricsLog(folder, "test", start, steps, log_every, quiet=True)
    for step in range(start + 1, steps + 1):
        values = {k: jnp.float32(step) for k in ("loss", "lr", "grad_norm", "targets")}
        log.add(step, values, {"tokens": 10 * step, "vision_tokens": 5, "rows": 2})
    log.close()


@pytest.mark.parametrize("log_every", [1, 3, 100])
def test_a_line_a_step(tmp_path, log_every):
    write(tmp_path, 0, 7, log_every)
    lines = read_metrics(tmp_path)
    assert [m["step"] for m in lines] == list(range(1, 8))
    assert all(tuple(m) == FIELDS for m in lines)
    assert [m["targets"] for m in lines] == list(range(1, 8))
    assert all(m["loss"] == m["step"] and m["seconds"] > 0 for m in lines)


def test_nothing_is_read_from_the_device_between_logged_steps(tmp_path):
    log = MetricsLog(tmp_path, "test", 0, 6, 3, quiet=True)
    reads = []

    class Value:
        def __init__(self, step):
            self.step = step

        def __array__(self, dtype=None, copy=None):
            reads.append(self.step)
            return jnp.float32(self.step).__array__()

    counts = {"tokens": 1, "vision_tokens": 0, "rows": 1}
    for step in range(1, 5):
        log.add(step, {k: Value(step) for k in ("loss", "lr", "grad_norm", "targets")}, counts)
        assert set(reads) == (set() if step < 4 else {1, 2, 3})
    log.close()


def test_cut_back_and_torn_line(tmp_path):
    write(tmp_path, 0, 5)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 6, "lo')
    assert len(read_metrics(tmp_path)) == 5
    cut_back(tmp_path, 3)
    assert [m["step"] for m in read_metrics(tmp_path)] == [1, 2, 3]
    write(tmp_path, 3, 5)
    assert [m["step"] for m in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
