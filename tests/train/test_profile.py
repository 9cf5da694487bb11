"""Traces of steps on demand."""

import jax.numpy as jnp
import pytest

from eve_jax.errors import UserError
from eve_jax.train.profile import Profiler


def test_only_the_steps_asked_for_are_traced(tmp_path):
    profiler = Profiler("2:3", tmp_path)
    traced = []
    for step in range(1, 6):
        assert profiler(step, jnp.add, jnp.ones(()), step) == step + 1
        traced.append(bool(list(tmp_path.rglob("*.xplane.pb"))))
    assert traced == [False, False, True, True, True]
    profiler.close()


def test_a_run_that_ends_early_leaves_its_trace(tmp_path, capsys):
    profiler = Profiler("1:9", tmp_path)
    profiler(1, jnp.ones, ())
    profiler.close()
    assert list(tmp_path.rglob("*.xplane.pb"))
    said = capsys.readouterr().out
    assert f"trace of steps 1 to 1: tensorboard --logdir={tmp_path / 'profile'}" in said


def test_steps_that_never_come(tmp_path, capsys):
    profiler = Profiler("8:9", tmp_path)
    profiler(1, jnp.ones, ())
    profiler.close()
    assert "no step of config.profile.steps=8:9 was run" in capsys.readouterr().out


def test_nothing_is_traced_by_default(tmp_path):
    assert Profiler("", tmp_path)(1, jnp.ones, ()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("steps", ["3:2", "0", "0:2", "a:b", "1:2:3", "-1"])
def test_other_values_are_refused(tmp_path, steps):
    with pytest.raises(UserError, match=r"config\.profile\.steps"):
        Profiler(steps, tmp_path)
