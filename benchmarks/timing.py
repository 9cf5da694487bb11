"""Comparisons on a machine that others may use: candidates in turn, medians, the spread of ratios within a round."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.progress import track

from benchmarks.extras import want
from eve_jax.process import host_memory, interrupt

REST = 0.5  # seconds


class Times(NamedTuple):
    """Seconds of every round: on the wall, and of the processor, all threads together."""

    wall: list[float]
    processor: list[float]


def begin(torch: bool) -> None:
    """Take over signals, check that PyTorch is there where it is compared with, say on what is measured.

    Freed memory stays with the process, as in training and `launch.chat`; PyTorch gains by it, too.
    """
    interrupt.ready()
    if torch:
        want("torch", "torch", "--notorch")
    print(f"{machine()}; jax {jax.__version__}", flush=True)
    host_memory.keep_freed()


def interleaved(candidates: Mapping[str, Callable[[], Any]], rounds: int, what: str) -> dict[str, Times]:
    """Each candidate in each of `rounds` rounds, all of them in turn in every round.

    A candidate returns when its work is done; it runs once before, untimed. Before each there is a rest, since the
    threads of PyTorch stay busy for a moment after its work, waiting for more.
    """
    console = Console(stderr=True)
    found: dict[str, Times] = {name: Times([], []) for name in candidates}
    for number in track(range(rounds + 1), what, console=console, transient=True):
        for name, call in candidates.items():
            time.sleep(REST)
            wall, processor = time.perf_counter(), time.process_time()
            call()
            if number:
                found[name].wall.append(time.perf_counter() - wall)
                found[name].processor.append(time.process_time() - processor)
    return found


def ratios(above: list[float], below: list[float]) -> list[float]:
    """above / below of each round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def spread(values: list[float], form: str = ".2f") -> str:
    """Median and the middle half of the values, as text."""
    middle = f"{statistics.median(values):{form}}"
    if len(values) < 2:
        return middle
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle} ({low:{form}} to {high:{form}})"


def machine() -> str:
    """When, on what, and how busy it is."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.split(": ", 1)[1] for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0] if models else name
    return f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores of {name}, load {os.getloadavg()[0]:.1f}"
