"""How long saving holds up training, and how resident memory goes over thousands of steps.

    python -m benchmarks.saving stall [--megabytes=1200 --saves=3]
    python -m benchmarks.saving memory [--steps=2000]

stall: parameters and Adam state of `--megabytes` in float32 are saved next to a loop of matrix products. Prints, for
each save, the seconds that `save` held up the loop, those until the checkpoint had its name (all written, checksums,
too), and their ratio, which must be below a tenth. On a CPU the copy that holds up the loop is one within memory, where
an accelerator copies to the host; the loop itself gets slower meanwhile, since writing shares its cores.

memory: trains stage 1 of the demo at test size and prints the resident memory at ten moments. The last must be within
5% of the one after a tenth of the steps. Both write below --workdir (removed first).
"""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from configs import demo
from eve_jax.checkpoint.stage_folder import CHECKPOINTS, Checkpoints
from eve_jax.demo.dataset import write_dataset
from eve_jax.recipe import stage_of_recipe
from eve_jax.train.metrics import read_metrics
from eve_jax.train.trainer import train
from launch._flags import run, take_action

WORKDIR = flags.DEFINE_string("workdir", "runs/saving", "folder to write in")
MEGABYTES = flags.DEFINE_integer("megabytes", 1200, "stall: size of a checkpoint (1e6 bytes)", lower_bound=3)
SAVES = flags.DEFINE_integer("saves", 3, "stall: how many", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 2000, "memory: how many", lower_bound=20)
JSON = flags.DEFINE_bool("json", False, "print the figures as a line of JSON last", allow_override=True)
LARGEST_SHARE, LARGEST_GROWTH = 0.1, 0.05


def stall() -> bool:
    """Print a line a save; False when one held up the loop too long."""
    folder = Path(WORKDIR.value or "")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = max(1, (MEGABYTES.value or 0) // 3 // 16)
    keys = jax.random.split(jax.random.key(0), 3 * weights)
    arrays = [jax.random.normal(key, (4000, 1000)) for key in keys]
    params = {f"w{i}": a for i, a in enumerate(arrays[:weights])}
    optimizer = {"mu": arrays[weights : 2 * weights], "nu": arrays[2 * weights :]}
    step = jax.jit(lambda x: jnp.tanh(x @ x.T) @ x)
    x = step(arrays[0]).block_until_ready()
    checkpoints = Checkpoints(folder, keep=1)
    table = Table("save", "held up (s)", "until written (s)", "share")
    right = True
    figures = []
    for number in range(1, (SAVES.value or 0) + 1):
        began = time.perf_counter()
        checkpoints.save(number, params, optimizer, {})
        held_up = time.perf_counter() - began
        while not (folder / CHECKPOINTS / str(number)).exists():
            x = step(x).block_until_ready()
            checkpoints.check()
        written = time.perf_counter() - began
        table.add_row(str(number), f"{held_up:.3f}", f"{written:.2f}", f"{held_up / written:.1%}")
        figures.append({"held_up_s": held_up, "written_s": written})
        right &= held_up < LARGEST_SHARE * written
    checkpoints.close()
    Console().print(table)
    _print({"saves": figures})
    return right


def _print(figures: dict[str, Any]) -> None:
    """The figures as the last line, if --json asks for it."""
    if JSON.value:
        print(json.dumps(figures), flush=True)


def resident(pid: int) -> float:
    """Resident memory of a process in 1e6 bytes; 0 when it has ended."""
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def train_tiny() -> None:
    """The run whose memory is looked at."""
    folder = Path(WORKDIR.value or "")
    config = demo.get_config("tiny").stages.stage1
    config.data.rows, config.data.micro_batches, config.data.max_shapes = 2, 1, 1
    config.train.steps, config.train.save_every = STEPS.value, max(1, (STEPS.value or 0) // 20)
    train(stage_of_recipe(config, folder, ""), folder)


def memory() -> bool:
    """Print resident memory along a run; False when it grew."""
    folder = Path(WORKDIR.value or "")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_dataset(folder / "data", "tiny")
    command = [sys.executable, "-m", "benchmarks.saving", "train_tiny", f"--workdir={folder}", f"--steps={STEPS.value}"]
    seen: list[tuple[int, float]] = []
    with (folder / "output.txt").open("w") as file, Console().status("training"):
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        while process.poll() is None:
            seen.append((len(read_metrics(folder / "stage1")), resident(process.pid)))
            time.sleep(0.5)
    if process.returncode:
        sys.exit(f"the run failed, see {folder / 'output.txt'}")
    table = Table("step", "resident (MB)")
    total = STEPS.value or 0
    marks = [next(m for s, m in seen if s >= share * total // 10) for share in range(1, 10)]
    marks.append([m for _, m in seen if m][-1])
    for share, mark in enumerate(marks, 1):
        table.add_row(f"{share * total // 10:,}", f"{mark:,.0f}")
    Console().print(table)
    _print({"resident_mb": {share * total // 10: mark for share, mark in enumerate(marks, 1)}})
    return bool(np.less(marks[-1], (1 + LARGEST_GROWTH) * marks[0]))


if __name__ == "__main__":
    actions = {"stall": stall, "memory": memory, "train_tiny": train_tiny}
    chosen = take_action(sys.argv, "benchmarks.saving", tuple(actions))
    run(lambda: sys.exit(actions[chosen]() is False))
