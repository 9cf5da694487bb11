"""What many records cost: python -m benchmarks.data_scale [--records=100000,3000000] [--json]

Text records in a JSONL file are indexed, measured by all cores, planned for one epoch, and opened by a second process.
Each step is timed, with the peak of the process's memory, that of a measuring process, and the bytes that the second
one reads. A straight line through the sizes gives seconds and memory of 100 million. The measuring of the smallest size
is also killed (SIGKILL) in its midst and resumed. 3 M records take 350 MB in --folder and ten minutes on two cores.
"""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from benchmarks.data_images import word_tokenizer
from configs import base
from eve_jax.data.plan.mixture import Mixture
from eve_jax.data.plan.plan import PlanSettings, build_plan
from eve_jax.data.rows.pipeline import PLAN_FOLDER, Inputs, open_stage_data
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.table_in_pieces import pieces_of
from eve_jax.process.cores import cores
from launch._flags import run

RECORDS = flags.DEFINE_list("records", ["100000", "3000000"], "numbers of records")
FOLDER = flags.DEFINE_string("folder", "", 'where temporary files go; "" = the system\'s folder for them')
JSON = flags.DEFINE_bool("json", False, "print the figures as a line of JSON last", allow_override=True)
STEP = flags.DEFINE_string("step", "", "(what a process of this benchmark does in --folder)")
MANY = 100_000_000
CHUNK = 100_000


def stage(folder: Path) -> ConfigDict:
    """A stage of the records in `folder`."""
    c = base.get_config("tiny")
    data = {"records": str(folder / "records.jsonl"), "tokenizer": str(folder / "tokenizer"), "template": "plain"}
    c.data.update(data | {"max_tokens": 1024, "row_tokens": 8192})
    return c


def write(folder: Path, n: int) -> None:
    """`n` captions of 10 to 59 letters a line each, about 110 bytes with what is not read."""
    word_tokenizer(folder / "tokenizer")
    with (folder / "records.jsonl").open("w") as file:
        for start in range(0, n, CHUNK):
            rows = range(start, min(start + CHUNK, n))
            more = "b" * 40
            file.write("".join(f'{{"id":"{i}","caption":"{"a" * (10 + i % 50)}","source":"{more}"}}\n' for i in rows))


@contextmanager
def timed(figures: dict[str, float], name: str) -> Iterator[None]:
    """Seconds in the block, and the process's peak of memory at its end."""
    began = time.perf_counter()
    yield
    figures[name] = time.perf_counter() - began
    figures[f"{name}_peak"] = peak("self")


def peak(process: object) -> float:
    """The largest resident memory of a process so far, bytes."""
    return 1024 * float(Path(f"/proc/{process}/status").read_text().partition("VmHWM:")[2].split()[0])


def workers_peak(over: threading.Event) -> float:
    """The peak of the largest child until `over`."""
    most = 0.0
    while not over.wait(0.2):
        for child in multiprocessing.active_children():
            with suppress(OSError, IndexError):  # it has just ended
                most = max(most, peak(child.pid))
    return most


def bytes_read() -> int:
    """Bytes that this process has read so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def make(folder: Path) -> dict[str, float]:
    """Index, measure and plan."""
    figures: dict[str, float] = {}
    config = stage(folder)
    plan_folder = folder / "run" / PLAN_FOLDER
    with timed(figures, "index"):
        rule, records = Inputs.of(config, folder / "run")
        records.keep_index()
    over = threading.Event()
    look = threading.Thread(target=lambda: figures.update(workers_peak=workers_peak(over)))
    look.start()
    with timed(figures, "measure"):
        lengths = measure(records, rule, plan_folder, processes=cores())
    over.set()
    look.join()
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures["measure_cores"] = of_children.ru_utime + of_children.ru_stime
    d = config.data
    settings = PlanSettings(d.row_tokens, d.max_shapes, d.rows, d.micro_batches, d.epochs, config.seed)
    with timed(figures, "plan"):
        build_plan(lengths, settings, Mixture.of({records.names[0]: len(lengths)}))
    open_stage_data(config, folder / "run")  # keeps a plan
    return figures


def again(folder: Path) -> dict[str, float]:
    """Open what is measured and planned."""
    figures: dict[str, float] = {}
    few = folder / "few"
    few.mkdir(exist_ok=True)
    write(few, 1000)
    for _ in range(2):
        open_stage_data(stage(few), few / "run")  # imports, and what is compiled
    before = bytes_read()
    with timed(figures, "open"):
        data = open_stage_data(stage(folder), folder / "run")
    figures["read"] = bytes_read() - before
    figures["size"] = (folder / "records.jsonl").stat().st_size
    next(data.batches(data.plan.steps // 2))
    return figures


def process(folder: Path, step: str) -> subprocess.Popen[str]:
    """A process that does `step` in `folder`."""
    command = [sys.executable, "-m", "benchmarks.data_scale", f"--folder={folder}", f"--step={step}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def done(folder: Path, step: str) -> tuple[dict[str, float], str]:
    """The figures of a step, and what it printed on standard error."""
    child = process(folder, step)
    out, err = child.communicate()
    if child.returncode:
        raise RuntimeError(err)
    return json.loads(out.splitlines()[-1]), err


def killed(folder: Path, n: int) -> str:
    """Kill the measuring when a third of its pieces are there; return what is said when it resumes."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    child = process(folder, "make")
    pieces, third = 0, len(pieces_of(range(n), n)) // 3
    while child.poll() is None and pieces < third:
        time.sleep(0.1)
        pieces = len(list((folder / "run" / PLAN_FOLDER).glob("*.pieces/[0-9]*.npz")))
    child.send_signal(signal.SIGKILL)
    child.communicate()
    _, said = done(folder, "make")
    return next((line for line in said.splitlines() if "already" in line), "it was whole").partition(" (")[0]


def line_at(sizes: dict[int, dict[str, float]], name: str) -> float:
    """The figure for MANY records by the line through those of the smallest and of the largest size."""
    low, high = min(sizes), max(sizes)
    slope = (sizes[high][name] - sizes[low][name]) / (high - low)
    return sizes[high][name] + slope * (MANY - high)


def show(sizes: dict[int, dict[str, float]]) -> None:
    """The table."""
    columns = ("index", "measure", "plan", "open")
    names = [f"{name}, s (peak, MB)" for name in columns]
    table = Table("records", *names, "core seconds of measuring", "worker, MB", "read again")
    for n, figures in sizes.items():
        cells = (f"{figures[name]:,.1f} ({figures[f'{name}_peak'] / 1e6:,.0f})" for name in columns)
        share = f"{figures['read'] / figures['size']:.2%}"
        measuring = f"{figures['measure_cores']:,.0f}", f"{figures['workers_peak'] / 1e6:,.0f}"
        table.add_row(f"{n:,}", *cells, *measuring, share)
    Console(width=150).print(table)


def main() -> None:
    if STEP.value:
        print(json.dumps({"make": make, "again": again}[STEP.value](Path(FOLDER.value))))
        return
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="data_scale_", dir=FOLDER.value or None))
    sizes: dict[int, dict[str, float]] = {}
    resumed = ""
    try:
        for n in sorted(map(int, RECORDS.value)):
            write(folder, n)
            resumed = resumed or killed(folder, n)
            shutil.rmtree(folder / "run", ignore_errors=True)
            sizes[n] = done(folder, "make")[0] | done(folder, "again")[0]
            print(f"{n:,}: {sizes[n]}", flush=True)
            shutil.rmtree(folder / "run")
    finally:
        shutil.rmtree(folder)
    figures: dict[str, Any] = {str(n): one for n, one in sizes.items()}
    sizes[MANY] = {name: line_at(sizes, name) for name in sizes[max(sizes)]}
    show(sizes)
    print(f"killed and resumed: {resumed}; load {os.getloadavg()[0]:.1f}")
    if JSON.value:
        print(json.dumps(figures | {"100 M": sizes[MANY], "resumed": resumed}))


if __name__ == "__main__":
    run(main)
