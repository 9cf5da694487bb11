"""The flags of XLA that launchers set on NVIDIA GPUs: known to XLA, never in place of the user's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eve_jax.process.xla_flags import FLAGS, on_gpu, prepare, with_flags


def test_xla_knows_the_flags() -> None:
    """It ends the process for one that it does not know, on any processor."""
    env = os.environ | {"XLA_FLAGS": with_flags(""), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]


def test_what_the_user_has_set_stays() -> None:
    name = "xla_gpu_enable_latency_hiding_scheduler"
    given = f"--{name}=false --xla_dump_to=/tmp/x"
    flags = with_flags(given).split()
    assert flags[-2:] == given.split()
    assert len(flags) == len(FLAGS) + 1 and f"--{name}=true" not in flags
    assert with_flags("").split() == [f"--{name}={value}" for name, value in FLAGS.items()]


@pytest.mark.parametrize(
    ("platforms", "driver", "plugin", "gpu"),
    [
        ("", True, True, True),
        ("cuda", True, True, True),
        ("cpu", True, True, False),
        ("", False, True, False),
        ("", True, False, False),
    ],
)
def test_where_gpus_are_used(tmp_path: Path, platforms: str, driver: bool, plugin: bool, gpu: bool) -> None:
    file = tmp_path / "version"
    if driver:
        file.touch()
    environ = {"JAX_PLATFORMS": platforms} if platforms else {}
    assert on_gpu(environ, lambda name: plugin or None, file) == gpu


def test_elsewhere_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--a"}
    prepare(environ)
    assert environ["XLA_FLAGS"] == "--a"
    monkeypatch.setattr("eve_jax.process.xla_flags.on_gpu", lambda environ: True)
    prepare(environ)
    assert environ["XLA_FLAGS"] == with_flags("--a")
