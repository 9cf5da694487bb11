"""Settings of the whole test run, made before JAX is imported, and the order of its files.

Most of the run is XLA's work on programs that then run once or twice: its code generator is told to take less care,
which makes that work a fifth. `XLA_FLAGS= python -m pytest` runs the tests with the programs that users get. Tracing
makes millions of small objects that last: Python looks through them for cycles a 30th as often. Each of pytest-xdist's
workers is bound to cores of its own: with threads of each on the cores of all the run took a third longer.
"""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # where nothing listens: tests use no network
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("EVE_CACHE", str(Path(__file__).parent.parent / ".cache"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(os.environ["EVE_CACHE"]) / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
WORKER, WORKERS = os.environ.get("PYTEST_XDIST_WORKER", ""), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKER and hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) >= WORKERS:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[int(WORKER.removeprefix("gw")) :: WORKERS])
MAPS, MOST_MAPS = Path("/proc/self/maps"), 30_000  # Linux lets a process have 65,530
OFTEN = gc.get_threshold()
gc.set_threshold(30 * OFTEN[0], *OFTEN[1:])


@pytest.fixture
def collected_often() -> Iterator[None]:
    """Of a test that counts bytes: cycles are freed as soon as in a user's process."""
    seldom = gc.get_threshold()
    gc.set_threshold(*OFTEN)
    yield
    gc.set_threshold(*seldom)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Drop compiled programs before Linux refuses the process more memory maps: each has some, and XLA then crashes."""
    if (nextitem and nextitem.path == item.path) or not MAPS.exists():
        return
    with MAPS.open("rb") as maps:
        if sum(1 for _ in maps) > MOST_MAPS and "jax" in sys.modules:
            sys.modules["jax"].clear_caches()
            gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files marked `long` first: each goes to one worker, and begun last it would leave the others idle."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
