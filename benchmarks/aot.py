"""What a pod would take, compiled without one: python -m benchmarks.aot [--quick] [--sizes] [--speed] [--json]

Compiles the 7B stages for absent TPU slices by `launch.compile`, one process each, and checks what must hold of every
one: a tenth of the memory to spare, no involuntary rematerialisation, FLOPs found within 5% of the formula's, no whole
weight stack moved, at most 8 minutes of the processor and 8 GB here. Then the memory of attention by the length of the
row and of the loss head, each next to the plain formula (`benchmarks/aot_parts.py`), and the head's time on this
processor. Prints tables and, with --json, a line of JSON last. --sizes makes instead the table of the smallest v5e
slice by LLM and stage, --quick a small model's figures in a few minutes. --speed compiles the steps whose speed is
followed (`benchmarks/aot_speed.py`), with --more="--config.FIELD=VALUE ..." changed, and keeps their figures.
About five minutes of the processor and 4 GB a 7B stage. Needs the extra `tpu` and no TPU.
"""

import json
import os
import time
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Table

from benchmarks import aot_speed
from benchmarks.child import child
from eve_jax.compile.report import WITHIN
from eve_jax.process import interrupt
from launch._flags import run

QUICK = flags.DEFINE_bool("quick", False, "a small model in place of the 7B stages")
SIZES = flags.DEFINE_bool("sizes", False, "only the smallest slice by LLM and stage")
SPEED = flags.DEFINE_bool("speed", False, "only the steps whose speed is followed, and keep their figures")
MORE = flags.DEFINE_string("more", "", "with --speed: further arguments of launch.compile")
JSON = flags.DEFINE_bool("json", False, "print the figures as a line of JSON last", allow_override=True)
ONLY = flags.DEFINE_string("only", "", "only the cases whose name contains this")
GIB = 2**30
WIDTH = 120  # columns of a table
SECONDS, HOST_BYTES = 480, 8e9  # what a compilation may take here
_SMALL = (
    "--config=stage3:llm=tiny",
    *(f"--config.model.{k}={v}" for k, v in {"head_dim": 128, "num_heads": 4, "num_kv_heads": 2}.items()),
)
QUICK_CASES = {
    "tiny, v5e:2x4": (*_SMALL, "--topology=v5e:2x4"),
    "tiny, smallest v5e": (*_SMALL, "--topologies=v5e", "--search"),
}
CASES = {
    "stage 3, v5e:16x16": ("--config=stage3", "--topology=v5e:16x16"),
    "stage 3, v5p:4x4x4": ("--config=stage3", "--topology=v5p:4x4x4"),
    "stage 3, v6e:16x16": ("--config=stage3", "--topology=v6e:16x16"),
    "stage 1, v5p:2x2x1": ("--config=stage1", "--topology=v5p:2x2x1"),
    "stage 3, smallest v5e": ("--config=stage3", "--topologies=v5e", "--search"),
}
SIZE_CASES = {
    f"{llm}, {stage}": (f"--config={stage}:llm={llm}", "--topologies=v5e", "--search")
    for llm in ("qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b")
    for stage in ("stage1", "stage2_1", "stage3")
}


def broken(s: dict[str, Any]) -> list[str]:
    """Which of the things that must hold of a case do not."""
    if "error" in s:
        return [s["error"]]
    checks = {
        "memory": s["fits_with_a_tenth_to_spare"],
        "involuntary remat": s["involuntary_remat"] == 0,
        "FLOPs": abs(s["hlo_over_formula"] - 1) <= WITHIN and not s["unknown_loops"],
        "whole weights moved": not s["whole_weights_moved"],
        "time": s["cpu_seconds"] <= SECONDS,
        "host memory": s["host_peak_bytes"] <= HOST_BYTES,
    }
    return [name for name, holds in checks.items() if not holds]


def row_of(name: str, s: dict[str, Any]) -> list[str]:
    """A case's cells."""
    if "error" in s:
        return [name, s["error"]]
    shape, moved = s["row_shape"], sum(c["bytes"] for c in s["collectives"].values())
    return [
        name,
        ", ".join(f"{axis} {size}" for axis, size in s["mesh"].items() if size > 1) or "1 chip",
        f"{s['micro_batches']} x {s['rows']} x {shape['patches'] + shape['specials'] + shape['text']}",
        f"{s['hbm_peak_bytes'] / GIB:.1f} of {s['hbm_bytes'] / GIB:.1f}",
        f"{s['model_flops_per_chip'] / 1e12:.0f}, {s['hlo_flops_per_chip'] / 1e12:.0f}",
        f"{s['hlo_over_formula']:.3f}",
        f"{moved / GIB:.1f}",
        f"{s['roofline_mfu']:.0%}, {s['compiler_estimate_mfu']:.0%}" if "roofline_mfu" in s else "",
        f"{s['cpu_seconds']:.0f}",
        f"{s['host_peak_bytes'] / 1e9:.1f}",
        ", ".join(broken(s)) or "yes",
    ]


def stages(cases: dict[str, tuple[str, ...]], console: Console) -> dict[str, Any]:
    """Every case by `launch.compile`."""
    table = Table(
        "case",
        "mesh",
        "micro-batches x rows x slots",
        "GiB a chip",
        "TFLOPs a chip: model, in HLO",
        "HLO / formula",
        "GiB moved",
        "MFU: roofline, compiler",
        "CPU s",
        "GB here",
        "holds",
    )
    figures = {}
    for n, (name, arguments) in enumerate(cases.items(), 1):
        console.print(f"{n} of {len(cases)}: {name}", highlight=False)
        figures[name] = child("launch.compile", *arguments, "--json")
        table.add_row(*row_of(name, figures[name]))
    Console(width=WIDTH).print(table)
    return figures


def speed(console: Console) -> dict[str, Any]:
    """The cases of `aot_speed`, kept one by one; what each misses."""
    figures: dict[str, Any] = {}
    more = MORE.value or ""
    for name, case in aot_speed.CASES.items():
        if ONLY.value not in name:
            continue
        console.print(name, highlight=False)
        figures[name] = s = child("launch.compile", *case.arguments, *more.split(), "--json")
        if "error" in s:
            console.print(f"[red]{name}: {s['error']}[/]", highlight=False)
            continue
        aot_speed.keep(aot_speed.entry(name, more, time.strftime("%Y-%m-%d"), s))
        console.print(", ".join(case.missed(s)) or "reaches all that is asked of it", highlight=False)
        s["missed"] = case.missed(s)
    return figures


def parts(console: Console) -> dict[str, Any]:
    """Attention and the loss head by themselves."""
    quick = ["--quick"] if QUICK.value else []
    attention = child("benchmarks.aot_parts", "--part=attention", *quick)
    title = "attention on one v5e, forward + backward, MiB"
    kernels = {"splash": "splash", "image": "splash, images", "chunked": "chunked", "plain": "plain formula"}
    table = Table("row", *kernels.values(), "images: tiles over causal", title=title)
    for length in attention.get("lengths", []):
        cells = (attention["temporary_bytes"][kernel].get(str(length)) for kernel in kernels)
        more = attention["image_tiles_over_causal"].get(str(length))
        cells = ("" if c is None else f"{c / 2**20:.0f}" for c in cells)
        table.add_row(str(length), *cells, "" if more is None else f"{more:.2f}")
    Console(width=WIDTH).print(table)
    head = child("benchmarks.aot_parts", "--part=head", *quick)
    times = child("benchmarks.aot_parts", "--part=head_time", *quick)
    if "error" not in head:
        ours, plain = head["chunked_temporary_bytes"], head["full_temporary_bytes"]
        console.print(
            f"loss head on a chip of v5e:4x8: {ours / GIB:.2f} GiB, full float32 logits {plain / GIB:.2f} GiB"
        )
    if "error" not in times:
        console.print(
            f"its time on this processor over the plain formula's: {times['over_plain']:.2f} at the same targets, "
            f"{times['over_every_token']:.2f} where that makes logits for every token"
        )
    return {"attention": attention, "loss_head": {**head, **times}}


def main() -> None:
    interrupt.ready()
    console = Console(stderr=True)
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    if SPEED.value:
        speeds = speed(console)
        if JSON.value:
            print(json.dumps(speeds))
        return
    cases = SIZE_CASES if SIZES.value else QUICK_CASES if QUICK.value else CASES
    cases = {name: arguments for name, arguments in cases.items() if ONLY.value in name}
    figures: dict[str, Any] = {"stages": stages(cases, console)} if cases else {}
    if not SIZES.value and ONLY.value in "parts":
        figures |= parts(console)
    failed = {name: why for name, s in figures.get("stages", {}).items() if (why := broken(s))}
    for name, why in failed.items():
        console.print(f"[red]{name}: {', '.join(why)}[/]", highlight=False)
    figures["holds"] = not failed
    if JSON.value:
        print(json.dumps(figures))


if __name__ == "__main__":
    run(main)
