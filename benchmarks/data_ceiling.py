"""How many images a second one process turns into rows, by its threads, and several processes; decoding is a sleep."""

import multiprocessing
import os
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.data_images import word_tokenizer
from configs import base
from eve_jax.data.rows.pipeline import open_stage_data

THREADS = (1, 2, 4, 8, 16, 32)
WORKERS = (1, 2, 4, 8)  # of FEW threads, so that they do not fill the cores of a small machine
FEW = 2
SECONDS = 8.0


class Rate(NamedTuple):
    """Images a second, and milliseconds of a core that one takes in the training process and in its workers.

    The latter two do not depend on what else runs on the machine.
    """

    images: float
    own_ms: float
    worker_ms: float


def workers_seconds() -> float:
    """Seconds of cores that this process's children have used so far."""
    ticks = 0
    for child in multiprocessing.active_children():
        user, system = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


def rate(folder: Path, workers: int, threads: int) -> Rate:
    """The rate of a process with so many worker processes of so many threads (0 workers: threads of its own)."""
    word_tokenizer(folder / "tokenizer")
    c = base.get_config("tiny")
    c.data.records, c.data.tokenizer = "benchmarks.slow_images:SlowImages", str(folder / "tokenizer")
    c.data.template, c.data.image_mode = "plain", "anyratio_ld"
    c.data.rows, c.data.micro_batches, c.data.max_shapes = 4, 1, 1
    c.data.workers, c.data.threads, c.data.prefetch = workers, threads, 4 + workers * threads // 4
    data = open_stage_data(c, folder / "stage")
    batches = data.batches()
    step, _ = next(batches)
    for _ in range(2 + workers * threads // 2):  # those that were built while processes began
        step, _ = next(batches)
    first, began, cores, workers_began = step, time.perf_counter(), time.process_time(), workers_seconds()
    while time.perf_counter() - began < SECONDS:
        step, _ = next(batches)
    seconds, own = time.perf_counter() - began, time.process_time() - cores
    others = workers_seconds() - workers_began
    data.close()
    images = data.plan.samples(step + 1) - data.plan.samples(first + 1)
    return Rate(images / seconds, 1000 * own / images, 1000 * others / images)


def ceilings(folder: Path) -> tuple[dict[int, Rate], dict[int, Rate]]:
    """The rates by threads of one process, and by worker processes of FEW threads each."""
    return {n: rate(folder, 0, n) for n in THREADS}, {n: rate(folder, n, FEW) for n in WORKERS}
