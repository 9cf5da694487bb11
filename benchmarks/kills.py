"""Kills training at random moments and compares what comes of it with an undisturbed run.

    python -m benchmarks.kills --workdir=runs/kills [--kills=20 --terms=10 --seed=0 --steps=12]

Runs three stages of the demo at test size (an LLM, stage 1, stage 2.1; the last two store what they train and refer to
the LLM for the rest), once undisturbed and once for each signal: started anew, killed by SIGKILL (`--kills` times) or
SIGTERM (`--terms` times) after a random share of the undisturbed run's time, and started again until it is done. A
save after every second step makes many moments fall into saves. Prints a table, a line a signal: when it came, what
the run was doing, its status, from which step it resumed, and whether every line of every metrics.jsonl but for what
follows the clock equals the undisturbed run's, bit for bit. Exit status 1 if one does not, or if
SIGTERM did not end in 130.

Writes the work folder (about 100 MB, removed run by run); compiled programs of the runs are kept in it.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from configs import demo
from eve_jax.checkpoint.stage_folder import CHECKPOINTS, UNFINISHED, steps_in
from eve_jax.demo.dataset import write_dataset
from eve_jax.process import interrupt
from eve_jax.train.metrics import TIMED, read_metrics
from launch._flags import run

WORKDIR = flags.DEFINE_string("workdir", "runs/kills", "folder of the runs")
KILLS = flags.DEFINE_integer("kills", 20, "how many runs are ended by SIGKILL", lower_bound=0)
TERMS = flags.DEFINE_integer("terms", 10, "how many runs are ended by SIGTERM", lower_bound=0)
STEPS = flags.DEFINE_integer("steps", 12, "steps of a stage", lower_bound=2)
JSON = flags.DEFINE_bool("json", False, "print the figures as a line of JSON last", allow_override=True)
SEED = flags.DEFINE_integer("seed", 0, "of the moments")

ROOT = Path(__file__).parents[1]
STAGES = ("llm", "stage1", "stage2_1")
LOADING = "loading"  # what a run does before it says anything
RUN = "--run_stages"


def recipe(workdir: Path) -> ConfigDict:
    """The stages, a step of 2 rows of one shape, on the records in the folder next to `workdir`."""
    config = demo.get_config("tiny")
    with config.unlocked():
        del config["demo"]
    config.order = STAGES
    for name in STAGES:
        c = config.stages[name]
        for field in ("records", "images", "tokenizer"):
            c.data[field] = c.data[field].replace("WORKDIR", str(workdir.parent))
        c.data.rows, c.data.micro_batches, c.data.max_shapes = 2, 1, 1
        c.train.steps, c.train.save_every = STEPS.value, 2
    return config


def run_stages() -> None:
    """What is killed."""
    from eve_jax.process.setup import setup
    from eve_jax.recipe import run_recipe

    setup(computes=True)
    workdir = Path(WORKDIR.value or "")
    run_recipe(recipe(workdir), workdir)


def start(workdir: Path, output: Path) -> subprocess.Popen:
    """The run in a process of its own, what it prints in the file `output`."""
    command = [sys.executable, "-m", "benchmarks.kills", f"--workdir={workdir}", f"--steps={STEPS.value}", RUN]
    environment = os.environ | {"EVE_CACHE": str(workdir.parent / "cache")}
    with output.open("w") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=environment)


def lines(workdir: Path) -> dict[str, list[dict[str, Any]]]:
    """The metrics of every stage without what follows the clock."""
    return {s: [{k: v for k, v in m.items() if k not in TIMED} for m in read_metrics(workdir / s)] for s in STAGES}


def doing(workdir: Path, printed: str) -> str:
    """What a run is in the midst of, from what it has printed and left."""
    begun = [s for s in STAGES if f"] {s}" in printed]
    if not begun:
        return LOADING
    stage = begun[-1]
    folder = workdir / stage
    if any((folder / CHECKPOINTS).glob(f"*{UNFINISHED}*")):
        return f"{stage}: save"
    steps = len(read_metrics(folder))
    if steps == STEPS.value:
        return f"{stage}: end"
    if steps:
        return f"{stage}: step {steps + 1}"
    return f"{stage}: compile" if f"{stage}: " in printed else f"{stage}: data and start"


def trial(number: int, name: signal.Signals, moment: float, whole: Path) -> tuple[list[str], bool]:
    """One run ended by signal `name` after `moment` seconds, then finished: its line, and whether all is right."""
    workdir, output = whole.parent / f"run{number}", whole.parent / f"run{number}.txt"
    process = start(workdir, output)
    try:
        process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        process.send_signal(name)
    at = doing(workdir, output.read_text())
    status = process.wait(timeout=600)
    saved = {s: steps_in(workdir / s) for s in STAGES}
    resumed = ", ".join(f"{s} {steps[-1]}" for s, steps in saved.items() if steps) or "the beginning"
    again = start(workdir, output).wait(timeout=3600)
    same = again == 0 and lines(workdir) == lines(whole)
    ends = {signal.SIGKILL: {0, -signal.SIGKILL}, signal.SIGTERM: {0, 130}}[name]
    right = same and (status in ends or (at == LOADING and status == -name))
    if right:
        shutil.rmtree(workdir)
    return [str(number), name.name, f"{moment:.1f}", at, str(status), resumed, "equal" if same else "DIFFERENT"], right


def main() -> None:
    interrupt.ready()
    console = Console(width=120)
    folder = Path(WORKDIR.value or "").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    whole = folder / "whole"
    write_dataset(folder / "data", "tiny")
    with console.status("undisturbed run, twice: the first compiles"):
        for _ in range(2):
            shutil.rmtree(whole, ignore_errors=True)
            began = time.perf_counter()
            if start(whole, folder / "whole.txt").wait():
                sys.exit(f"the undisturbed run failed, see {folder / 'whole.txt'}")
            seconds = time.perf_counter() - began
    console.print(f"undisturbed: {seconds:.1f} s, {sum(map(len, lines(whole).values()))} steps")
    draw = random.Random(SEED.value)
    table = Table("", "signal", "after s", "in", "status", "checkpoints then", "metrics")
    wrong = 0
    ended: dict[str, dict[str, int]] = {}
    signals = [signal.SIGKILL] * (KILLS.value or 0) + [signal.SIGTERM] * (TERMS.value or 0)
    for number, name in enumerate(signals, 1):
        with console.status(f"run {number} of {len(signals)}: {name.name}"):
            row, right = trial(number, name, draw.uniform(0.02, 1.0) * seconds, whole)
        table.add_row(*row)
        ended.setdefault(name.name, {})[row[3]] = ended.get(name.name, {}).get(row[3], 0) + 1
        console.print("  ".join(row), highlight=False)
        wrong += not right
    console.print(table)
    console.print(f"{len(signals) - wrong} of {len(signals)} runs as the undisturbed one")
    if JSON.value:
        figures = {"runs": len(signals), "equal": len(signals) - wrong, "ended_in": ended}
        print(json.dumps({"undisturbed_seconds": seconds, **figures}), flush=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    if RUN in sys.argv:
        sys.argv.remove(RUN)
        run(run_stages)
    else:
        run(main)
