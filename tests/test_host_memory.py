"""Freed memory stays with the process where JAX computes on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

SCRIPT = """
import resource, sys
from eve_jax.process import host_memory
if sys.argv[1] == "keep":
    assert host_memory.keep_freed() and host_memory.keep_freed()
import jax, jax.numpy as jnp
f = jax.jit(lambda x: jnp.sum(jnp.tanh(x @ x.T) @ x))
x = jnp.ones((4096, 16))
for _ in range(3):
    f(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    f(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str, **environment: str) -> int:
    """Pages that five calls of a function with 64 MB of temporaries take from the system."""
    env = os.environ | {"JAX_PLATFORMS": "cpu"} | environment
    done = subprocess.run([sys.executable, "-c", SCRIPT, mode], env=env, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_temporaries_are_not_taken_anew():
    assert faults("keep") < 1000
    if "[always]" not in HUGE_PAGES.read_text():  # a fault there brings 2 MB, whoever has freed what
        assert faults("leave") > 1000  # how many more depends on the kernel, which may bring several pages at a fault


SETTLE = """
import sys
from eve_jax.process import host_memory
assert sys.argv[1] == "never" or host_memory.keep_freed()
def resident():
    return next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmRSS"))
before = resident()
def use():
    block = bytearray(200 << 20)
    block[:] = b"1" * len(block)
    del block
    return resident() - before
first = use()
memory = host_memory.machine_memory()
host_memory.settle(int(memory * float(sys.argv[2])))
settled = resident() - before
print(first, settled, use())
"""


def resident(mode: str, share: float) -> list[int]:
    """MiB more than before: after 400 MB were freed, after programs of a share of the memory came, and once more."""
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SETTLE, mode, str(share)]
    return [*map(int, subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split())]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_memory_is_given_back_where_programs_need_much():
    """What compiling took always goes back; what is freed later stays where programs need little of the machine."""
    first, settled, later = resident("keep", 0.01)
    assert min(first, later) >= 200 and settled < 50
    first, settled, later = resident("keep", 0.2)
    assert first >= 200 and max(settled, later) < 50
    assert max(resident("never", 0.01)) < 50


def test_nothing_is_done_where_an_accelerator_may_be():
    code = "from eve_jax.process import host_memory; print(host_memory.keep_freed())"
    env = os.environ | {"JAX_PLATFORMS": "tpu"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(("given", "found"), [({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")])
def test_arrow_gives_back_what_is_freed_unless_told_otherwise(given, found):
    code = (
        "from eve_jax.process import host_memory; host_memory.return_freed();"
        "import pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    )
    env = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"} | given
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found
