"""From a new process to a first answer: python -m benchmarks.startup --checkpoint=DIR [--against=CHECKOUT] [--json]

Each round begins a process that imports `EVE`, opens the checkpoint, and answers twice, with compiled programs kept
from an untimed round before; with --against, processes of another checkout of this repository in turn with those of
this one. Prints medians, seconds of the processor and of the clock; a few minutes on two free cores.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.timing import machine
from eve_jax.errors import UserError
from launch._flags import define_path, run

CHECKPOINT = define_path("checkpoint", None, "folder of a model to ask without images")
AGAINST = define_path("against", "", "another checkout, whose processes are timed in turn with this one's")
ROUNDS = flags.DEFINE_integer("rounds", 7, "rounds that are timed", lower_bound=1)
JSON = flags.DEFINE_bool("json", False, "print the figures as a line of JSON last", allow_override=True)
flags.mark_flag_as_required("checkpoint")
HERE = Path(__file__).parents[1]
PHASES = ("import", "open", "first answer", "second answer")
CODE = """
import json, sys, time
marks = [(time.process_time(), time.time())]
def mark():
    marks.append((time.process_time(), time.time()))
from eve_jax import EVE
mark()
from eve_jax.process.setup import setup
setup(computes=True)
eve = EVE.from_pretrained(sys.argv[1])
mark()
for text in ("What is the capital of France?", "What is the capital of Spain?"):
    eve.generate(text, max_new_tokens=16)
    mark()
print(json.dumps([[b - a for a, b in zip(x, y)] for x, y in zip(marks, marks[1:])]))
"""


def one(checkout: Path, cache: str) -> list[list[float]]:
    """Seconds of the processor and of the clock of each of PHASES, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "EVE_CACHE": cache}
    command = [sys.executable, "-c", CODE, CHECKPOINT.value or ""]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise UserError(
            f"{checkout}: the process failed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    checkouts = {"this": HERE} | ({"other": Path(AGAINST.value)} if AGAINST.value else {})
    print(machine(), flush=True)
    found: dict[str, list[list[list[float]]]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        for number in track(range((ROUNDS.value or 1) + 1), "starting", console=Console(stderr=True), transient=True):
            for name, checkout in checkouts.items():
                seconds = one(checkout.resolve(), str(Path(folder, name)))
                found[name] += [seconds] if number else []
    table = Table("", *(f"{phase}, CPU s (s)" for phase in PHASES), "in all, CPU s")
    figures: dict[str, Any] = {"rounds": ROUNDS.value, "load": os.getloadavg()[0], "seconds": {}}
    for name, rounds in found.items():
        own = {
            phase: [statistics.median(one[place][kind] for one in rounds) for kind in (0, 1)]
            for place, phase in enumerate(PHASES)
        }
        figures["seconds"][name] = own
        cells = (f"{cpu:.2f} ({wall:.2f})" for cpu, wall in own.values())
        table.add_row(name, *cells, f"{sum(cpu for cpu, _ in own.values()):.2f}")
    Console(width=120).print(table)
    if JSON.value:
        print(json.dumps(figures))


if __name__ == "__main__":
    run(main)
