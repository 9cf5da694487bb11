"""What a compiled step costs: memory, FLOPs, collectives, the step time that the hardware would allow."""

import math
import resource
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from eve_jax import sharding
from eve_jax.compile.abstract import Step, nbytes
from eve_jax.compile.build import Built
from eve_jax.compile.estimate import by_cycles, roofline
from eve_jax.compile.gpus import FRACTION
from eve_jax.compile.products import attention_flops, rotary_flops, tower_flops
from eve_jax.compile.topology import GIB, Topology
from eve_jax.model.eve import LAYERS
from eve_jax.model.loss import by_targets
from eve_jax.process.compiler_options import Options
from eve_jax.train.flops import slots, step_flops

SAMPLES = 4  # in a row, for the useful part of attention: about what the recipe's rows hold (configs/stage*.py)
WIDTH = 112  # columns of a table that goes to a file
SPARE = 0.1  # of the HBM that should stay free
WITHIN = 0.05  # how far FLOPs found may be from the formula's


def peak_bytes(built: list[Built]) -> float:
    """Bytes on a chip at the worst moment of a step: one program's and what lies next to its arguments."""
    return max(b.program.resident + (b.memory.total if b.memory else _wanted(b)) for b in built)


def _wanted(built: Built) -> float:
    return max(built.needed, nbytes(built.program.arguments))


def fits(topology: Topology, built: list[Built], spare: float = SPARE) -> bool:
    """Whether the step leaves `spare` of a chip's memory; virtual devices hold anything."""
    compiled = all(b.memory for b in built)
    return topology.chip is None or (compiled and peak_bytes(built) <= (1 - spare) * topology.chip.hbm)


def summarise(topology: Topology, step: Step, built: list[Built]) -> dict[str, Any]:
    """Everything that is reported, JSON-ready; figures are of one chip and one step unless their names say otherwise.

    hlo_over_formula compares the matrix products found with those of the formula, recomputed ones included and
    attention left out on both sides; what turns queries and keys is no product of the formula, nor counted.
    """
    chips, work, chip = step.mesh.size, step.work, topology.chip
    with sharding.use(step.mesh):
        again = not by_targets()
    cfg, rows = step.cfg, work.rows * work.micro_batches
    dense = step_flops(cfg, step.trains, slots(cfg, work.shape, rows), again)
    useful = step_flops(cfg, step.trains, slots(cfg, work.shape, rows, SAMPLES))
    found = sum(b.program.times * b.counts.flops for b in built)
    kinds = (attention_flops, tower_flops, rotary_flops)
    scores, of_tower, turning = (sum(b.program.times * flops(b.counts) for b in built) for flops in kinds)
    # A custom kernel hides its products from the compiler; virtual devices and a vision encoder have none.
    hidden = 0.0 if scores > of_tower or chip is None else dense.kernel / chips
    wire = sum(b.program.times * b.counts.wire for b in built)
    traffic = sum(b.program.times * b.counts.hbm for b in built)
    fit = all(b.memory for b in built) and fits(topology, built, spare=0)
    peak = peak_bytes(built)
    summary: dict[str, Any] = {
        "topology": topology.name,
        "chips": chips,
        "mesh": dict(step.mesh.shape),
        "stage": step.stage,
        "row_shape": {"name": work.name, **work.shape._asdict()},
        "rows": work.rows,
        "micro_batches": work.micro_batches,
        "tokens_per_step": work.tokens,
        "overrides": _overrides(step),
        "environment": f"XLA_PYTHON_CLIENT_MEM_FRACTION={FRACTION}" if chip and chip.network else "",
        "attention": step.cfg.attention,
        "compiler_options": step.options.taken,
        "compiler_options_unknown": [*step.options.unknown],
        "parameters_trainable": _elements(step.state.trainable),
        "parameters_frozen": _elements(step.frozen),
        "fits": fit,
        "fits_with_a_tenth_to_spare": fits(topology, built),
        "hbm_peak_bytes": round(peak),
        "hbm_bytes": round(chip.hbm) if chip else None,
        "hbm_by_kind": _by_kind(step, built),
        "model_flops_per_chip": (dense.model + dense.attention) / chips,
        "useful_flops_per_chip": (useful.model + useful.attention) / chips,
        "recomputed_flops_per_chip": dense.again / chips,
        "attention_kernel_flops_per_chip": hidden,
        "hlo_flops_per_chip": found + hidden,
        "hlo_attention_flops_per_chip": scores,
        "hlo_over_formula": (found - scores - turning) * chips / (dense.model + dense.again),
        "collectives": _collectives(built),
        "collective_bytes_received": wire,
        "collective_bytes_from_other_nodes": sum(b.program.times * b.counts.far for b in built),
        "whole_weights_moved": _whole_weights(step, built),
        "hbm_bytes_moved": traffic,
        "involuntary_remat": len({line for b in built for line in b.involuntary}),
        "involuntary_remat_warnings": sorted({line for b in built for line in b.involuntary}),
        "unknown_loops": [name for b in built for name in b.counts.unknown],
        "compile_seconds": round(sum(b.seconds for b in built), 1),
        "cpu_seconds": round(sum(b.cpu_seconds for b in built), 1),
        "host_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024),
    }
    if chip and fit:
        summary |= roofline(chip, summary, built) | by_cycles(chip, summary, built)
    return summary


def _overrides(step: Step) -> str:
    """Flags that make a run take this step's mesh, rows and micro-batches."""
    work, mesh = step.work, ",".join(f"{axis}:{size}" for axis, size in step.mesh.shape.items())
    values = {"row_tokens": work.shape.length, "rows": work.rows, "micro_batches": work.micro_batches}
    return " ".join([f"--config.mesh={mesh}", *(f"--config.data.{k}={v}" for k, v in values.items())])


def _elements(params: dict[str, Any]) -> int:
    return sum(math.prod(v.shape) for v in params.values())


def _by_kind(step: Step, built: list[Built]) -> dict[str, int]:
    """Bytes of a chip at the worst moment, by what they hold; the first five are unpadded, padding comes after them."""
    worst = max(built, key=lambda b: peak_bytes([b]))
    kinds = {
        "trainable": nbytes([step.state.trainable]),
        "frozen": nbytes([step.frozen]),
        "optimizer": nbytes([step.state.optimizer]),
        "gradient_sums": nbytes([step.sums]) if step.sums else 0.0,
        "batches": nbytes([step.batch]) * step.work.micro_batches,
    }
    if worst.memory:
        arguments = worst.program.resident + worst.memory.arguments
        kinds["padding"] = arguments - sum(kinds.values())
        kinds |= {"temporaries": worst.memory.temporaries, "outputs": worst.memory.outputs, "code": worst.memory.code}
    else:
        kinds["temporaries"] = _wanted(worst) - nbytes(worst.program.arguments)
    return {kind: round(value) for kind, value in kinds.items()}


def _collectives(built: list[Built]) -> dict[str, dict[str, float]]:
    total: dict[str, dict[str, float]] = {}
    for b in built:
        for kind, row in b.counts.by_kind().items():
            into = total.setdefault(kind, {"count": 0, "bytes": 0, "largest_bytes": 0})
            into["count"] += row["count"] * b.program.times
            into["bytes"] += row["bytes"] * b.program.times
            into["largest_bytes"] = max(into["largest_bytes"], row["largest_bytes"])
    return dict(sorted(total.items()))


def _whole_weights(step: Step, built: list[Built]) -> list[str]:
    """Collectives that move a weight of all layers, or a whole table, at once."""
    params = {**step.state.trainable, **step.frozen}
    stacks = {
        n: v.shape for n, v in params.items() if n in ("embed", "head") or (n.startswith(LAYERS) and len(v.shape) > 2)
    }
    whole = {tuple(d for d in shape if d > 1): name for name, shape in stacks.items()}
    moved = set()
    for collective in (c for b in built for c in b.counts.collectives):
        for array in collective.arrays:
            name = whole.get(tuple(d for d in array.dims if d > 1))
            if name:
                moved.add(f"{collective.kind} of {name}")
    return sorted(moved)


def show(summary: dict[str, Any], console: Console | None = None) -> None:
    """Prints the summary as a table."""
    out = console or Console()
    if not out.is_terminal:
        out.width = WIDTH
    table = Table(box=None, show_header=False, padding=(0, 2), title=_title(summary), title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    for row in (*_rows(summary), *_time_rows(summary)):
        table.add_row(*row)
    out.print(table)
    flags = f"{summary['environment']} {summary['overrides']}".strip()
    out.print(f"to train so: {flags}", highlight=False, soft_wrap=True)
    if summary["environment"]:
        out.print(f"attention compiled as {summary['attention']}, whatever a run on a card chooses", highlight=False)
    for line in Options(summary["compiler_options"], tuple(summary["compiler_options_unknown"])).lines():
        out.print(line, highlight=False, soft_wrap=True)
    for line in _warnings(summary):
        out.print(f"[yellow]warning:[/] {line}", highlight=False, soft_wrap=True)


def _title(s: dict[str, Any]) -> str:
    mesh = ", ".join(f"{axis} {size}" for axis, size in s["mesh"].items())
    return f"stage {s['stage']} on {s['topology']}, {s['chips']} chips as {mesh}"


def _rows(s: dict[str, Any]) -> list[tuple[str, str, str]]:
    shape, peak, hbm = s["row_shape"], s["hbm_peak_bytes"], s["hbm_bytes"]
    kinds = ", ".join(f"{k.replace('_', ' ')} {v / GIB:.2f}" for k, v in s["hbm_by_kind"].items() if v >= 0.005 * GIB)
    rows = [
        ("tokens per step", f"{s['tokens_per_step']:,}", f"{s['micro_batches']} micro-batch(es) of {s['rows']} rows"),
        ("row", shape["name"], f"{shape['patches']} patches, {shape['specials']} specials, {shape['text']} text"),
        (
            "parameters",
            f"{s['parameters_trainable'] / 1e6:,.1f} M",
            f"trainable; {s['parameters_frozen'] / 1e6:,.1f} M frozen",
        ),
        ("HBM per chip", f"{peak / GIB:.2f} GiB", f"{peak / hbm:.0%} of {hbm / GIB:.2f} GiB" if hbm else ""),
        ("", "", kinds),
        (
            "FLOPs per chip, model",
            _flops(s["model_flops_per_chip"]),
            "routed formula, attention over whole rows",
        ),
        ("  useful", _flops(s["useful_flops_per_chip"]), f"with {SAMPLES} samples a row: what MFU counts"),
        ("  recomputed", _flops(s["recomputed_flops_per_chip"]), "by remat and the loss; attention left out"),
        ("  in the HLO", _flops(s["hlo_flops_per_chip"]), _found(s)),
    ]
    for kind, c in s["collectives"].items():
        detail = f"{_bytes(c['bytes'])}, largest {_bytes(c['largest_bytes'])}"
        rows.append((kind, f"{c['count']:,.0f}", detail))
    return rows


def _found(s: dict[str, Any]) -> str:
    hidden = s["attention_kernel_flops_per_chip"]
    kernels = (
        f"{_flops(hidden)} attention kernels, by formula"
        if hidden
        else f"{_flops(s['hlo_attention_flops_per_chip'])} attention"
    )
    return f"{s['hlo_over_formula']:.3f} of the formula without attention; {kernels}"


def _flops(value: float) -> str:
    return _scaled(value, {"T": 1e12, "G": 1e9, "M": 1e6})


def _bytes(value: float) -> str:
    return _scaled(value, {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10})


def _scaled(value: float, units: dict[str, float]) -> str:
    """In the first unit that is not larger than the value, else in the last."""
    unit = next((name for name, size in units.items() if value >= size), list(units)[-1])
    return f"{value / units[unit]:,.1f} {unit}"


def _time_rows(s: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    if "roofline_seconds" in s:
        parts = ", ".join(f"{k} {v:.3g}" for k, v in s["roofline_seconds"].items())
        detail = f"{parts}: MFU up to {s['roofline_mfu']:.0%}"
        rows.append(("step at the least", f"{s['roofline_step_seconds']:.3g} s", detail))
    if "compiler_estimate_seconds" in s:
        rows += [
            (
                "compiler's estimate",
                f"{s['compiler_estimate_seconds']:.3g} s",
                f"what has cycles, attention at its peak: MFU {s['compiler_estimate_mfu']:.0%}",
            ),
            (
                "with all parts",
                f"{s['estimate_seconds']:.3g} s",
                ", ".join(f"{k} {v:.3g}" for k, v in s["estimate_parts"].items()) + f": MFU {s['estimate_mfu']:.0%}",
            ),
        ]
    rows.append(
        (
            "compiled in",
            f"{s['compile_seconds']:.0f} s",
            f"{s['cpu_seconds']:.0f} s of the processor, {s['host_peak_bytes'] / GIB:.1f} GiB of host memory",
        )
    )
    return rows


def _warnings(s: dict[str, Any]) -> list[str]:
    lines = []
    if not s["fits"]:
        lines.append("the step does not fit the chip's memory")
    elif not s["fits_with_a_tenth_to_spare"]:
        lines.append("less than a tenth of the chip's memory is left")
    lines += s["involuntary_remat_warnings"]
    lines += [f"a whole weight stack is moved: {w}" for w in s["whole_weights_moved"]]
    if abs(s["hlo_over_formula"] - 1) > WITHIN:
        lines.append(
            f"matrix products found are {s['hlo_over_formula']:.2f} times those of the formula: work is done more than "
            "once on this mesh, or attention's products were not recognized"
        )
    if s["unknown_loops"]:
        lines.append(f"{len(s['unknown_loops'])} loop(s) of unknown length are counted once")
    return lines
