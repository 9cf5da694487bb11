"""Figures of the data pipeline: python -m benchmarks.data [--quick] [--json]

How full planned rows are next to padded batches, how fast plans are made and how large they are, how many images a
core turns into rows next to Pillow alone and to the usual PyTorch way (alone by --images), how many one process and
several turn into rows at most (alone by --ceiling), and how the memory of a training process depends on the number of
records. Times are of the processor, one thread, without numba's compilation (which is kept between runs). Prints tables
and, with --json, a line of JSON last. --quick leaves out more than 1 M records and the ceiling, and takes a minute; all
of it takes about seven, 4 GB of memory and 2 GB in --folder. Needs the extra `torch`; `jpeg` for a part of the images.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.data_ceiling import FEW, ceilings
from benchmarks.data_images import PHOTO, TITLES, TORCH, measure_images
from benchmarks.data_tables import CASES, lengths_of, padded_fill, synthetic_counts
from benchmarks.extras import want
from eve_jax.data.plan.lengths import Lengths
from eve_jax.data.plan.plan import Plan, PlanSettings, build_plan
from eve_jax.process import interrupt
from launch._flags import run

QUICK = flags.DEFINE_bool("quick", False, "leave out what takes long")
CEILING = flags.DEFINE_bool("ceiling", False, "only images a second by threads and by worker processes")
IMAGES = flags.DEFINE_bool("images", False, "only images a second and core by each way")
JSON = flags.DEFINE_bool("json", False, "print the figures as a line of JSON last", allow_override=True)
FOLDER = flags.DEFINE_string("folder", "", 'where temporary files go; "" = the system\'s folder for them')
ROW_TOKENS, MAX_SHAPES, ROWS, MICRO_BATCHES = 8192, 8, 64, 2
RECORDS = 1_000_000
SLOWEST = "cap1600_60%_at_cap"  # fewest records a row: of the four cases, the one that takes longest to plan
SIZES = (1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000)
MEMORY_SIZES = (100_000, 10_000_000)


def planned(lengths: Lengths, rounds: int) -> tuple[Plan, float]:
    """The plan of a run of an epoch, with its hash, and the best time of some, seconds of the processor."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        plan = build_plan(lengths, PlanSettings(ROW_TOKENS, MAX_SHAPES, ROWS, MICRO_BATCHES, epochs=1, seed=0))
        assert plan.hash
        best = min(best, time.process_time() - start)
    return plan, best


def planning(console: Console) -> dict[str, Any]:
    """Fill of the four cases, by plan and by padding, with speed and size of the plans."""
    settings = PlanSettings(ROW_TOKENS, MAX_SHAPES, rows=8, micro_batches=2, epochs=1, seed=0)
    build_plan(lengths_of(synthetic_counts(30_000, 800, 0.0)), settings)  # compiles
    table = Table("case", "fill", "padded", "grouped", "shapes", "records a row", "M records/s", "bytes a record")
    fill, naive, rates = {}, {}, {}
    seconds = nbytes = 0.0
    for name, (cap, at_cap) in track(CASES.items(), "planning", console=console, transient=True):
        counts = synthetic_counts(RECORDS, cap, at_cap)
        plan, took = planned(lengths_of(counts), 2)
        assert len(plan.shapes) <= MAX_SHAPES
        assert max(shape.length for shape in plan.shapes) <= ROW_TOKENS
        fill[name] = plan.stats["fill"]
        naive[f"{name}/padded"] = padded_fill(counts)
        naive[f"{name}/grouped"] = padded_fill(counts, grouped=True)
        rates[name] = RECORDS / took
        seconds, nbytes = seconds + took, nbytes + plan.nbytes
        figures = [fill[name], naive[f"{name}/padded"], naive[f"{name}/grouped"]]
        a_row = RECORDS / plan.stats["rows"]
        table.add_row(
            name,
            *(f"{figure:.1%}" for figure in figures),
            str(len(plan.shapes)),
            f"{a_row:.1f}",
            f"{rates[name] / 1e6:.2f}",
            f"{plan.nbytes / RECORDS:.2f}",
        )
    Console(width=112).print(table)
    n = len(CASES) * RECORDS
    return {
        "fill": fill,
        "naive_fill": naive,
        "plan_records_per_s": n / seconds,
        "plan_records_per_s_by_case": rates,
        "plan_bytes_per_record": nbytes / n,
    }


def linearity(console: Console) -> dict[str, Any]:
    """Seconds of planning by the number of records."""
    table = Table("records", "seconds", "ns a record", "bytes a record", "peak memory of the process")
    found = {}
    for n in track(SIZES, "planning more records", console=console, transient=True):
        plan, seconds = planned(lengths_of(synthetic_counts(n, *CASES[SLOWEST])), 1)
        found[str(n)] = seconds
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        cells = (
            f"{n:,}",
            f"{seconds:.2f}",
            f"{seconds / n * 1e9:.0f}",
            f"{plan.nbytes / n:.2f}",
            f"{peak / 1e9:.2f} GB",
        )
        table.add_row(*cells)
    Console(width=112).print(table)
    return {"plan_seconds_by_records": found}


def images(folder: Path) -> dict[str, Any]:
    """Images a second and core by each way, next to PyTorch's usual one."""
    n, rounds = (16, 3) if QUICK.value else (48, 5)
    found = {
        "1024x768": measure_images(folder / "web", n, rounds),
        "4000x3000": measure_images(folder / "photos", n // 4, rounds, PHOTO),
    }
    table = Table("JPEG to about 800^2, images a second and core", *found)
    for name, title in TITLES.items():
        rates = [f"{of.get(name, float('nan')):.1f}" for of in found.values()]
        table.add_row(title, *rates)
    Console(width=112).print(table)
    web = found["1024x768"]
    return {
        "images_per_core_s": found,
        "images_speedup_over_pillow": {name: rate / web["pillow"] for name, rate in web.items()},
        "images_speedup_over_torch": {name: rate / web[TORCH] for name, rate in web.items()},
    }


def ceiling(folder: Path) -> dict[str, Any]:
    """Images a second by threads of one process, and by worker processes, where decoding is a sleep."""
    threads, workers = ceilings(folder)
    for what, found in (("threads of one process", threads), (f"worker processes of {FEW} threads", workers)):
        table = Table(what, "images a second", "ms of a core an image: training process", "workers")
        for n, rate in found.items():
            table.add_row(str(n), f"{rate.images:.0f}", f"{rate.own_ms:.2f}", f"{rate.worker_ms:.2f}")
        Console(width=112).print(table)
    return {
        "images_by_threads": {n: rate._asdict() for n, rate in threads.items()},
        "images_by_workers": {n: rate._asdict() for n, rate in workers.items()},
    }


def memory(folder: Path, console: Console) -> dict[str, Any]:
    """Memory of a process that opens a planned stage and builds rows, by the number of records."""
    table = Table("records", "own memory", "pages of mapped files", "peak", "plan")
    found = {}
    for n in track(MEMORY_SIZES, "opening stages", console=console, transient=True):
        command = [sys.executable, "-m", "benchmarks.data_memory", f"--records={n}", f"--folder={folder / str(n)}"]
        for _ in range(2):  # the first makes records and plan, the second trains by them
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[str(n)] = json.loads(done.stdout.splitlines()[-1])
        shutil.rmtree(folder / str(n))
        figures = (found[str(n)][name] for name in ("anonymous", "mapped", "peak", "plan"))
        table.add_row(f"{n:,}", *(f"{figure / 1e6:.1f} MB" for figure in figures))
    Console(width=112).print(table)
    resident = [found[str(n)]["anonymous"] + found[str(n)]["mapped"] - found[str(n)]["plan"] for n in MEMORY_SIZES]
    return {"memory": found, "memory_growth_beyond_plan_bytes": resident[1] - resident[0]}


def main() -> None:
    interrupt.ready()
    if not CEILING.value:
        want("torch", "torch")
        want("transformers", "torch")
    console = Console(stderr=True)
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="data_benchmark_", dir=FOLDER.value or None))
    try:
        if CEILING.value:
            figures = ceiling(folder)
        elif IMAGES.value:
            figures = images(folder)
        else:
            figures = {**planning(console), **images(folder)}
        if not (QUICK.value or CEILING.value or IMAGES.value):
            figures |= {**linearity(console), **memory(folder, console), **ceiling(folder)}
    finally:
        shutil.rmtree(folder)
    figures["load"] = os.getloadavg()[0]
    if JSON.value:
        print(json.dumps(figures))


if __name__ == "__main__":
    run(main)
