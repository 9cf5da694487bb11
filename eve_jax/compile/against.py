"""Two reports of `launch.compile --json` side by side."""

import json
from pathlib import Path
from typing import Any, TypeGuard

from rich.console import Console
from rich.table import Table

from eve_jax.errors import UserError
from eve_jax.process.files import read_text

GIB = 2**30
# Figures that are compared: key, title, what a unit of it is, decimals.
FIGURES = (
    ("hbm_peak_bytes", "HBM per chip, GiB", GIB, 2),
    ("hlo_flops_per_chip", "FLOPs in the HLO, T", 1e12, 2),
    ("hbm_bytes_moved", "moved in the HBM, GiB", GIB, 1),
    ("collective_bytes_received", "received from other chips, GiB", GIB, 2),
    ("roofline_step_seconds", "step at the least, s", 1, 3),
    ("compiler_estimate_seconds", "compiler's cycles, attention at peak, s", 1, 3),
    ("estimate_seconds", "estimate with all parts, s", 1, 3),
    ("estimate_mfu", "MFU of that, %", 0.01, 1),
    ("cpu_seconds", "compiled in, CPU s", 1, 0),
)
SAME = ("topology", "mesh", "stage", "row_shape", "rows", "micro_batches", "parameters_trainable", "parameters_frozen")


def read_report(path: str) -> dict[str, Any]:
    """Return the report in the file `path`: the last line that --json printed, alone or after the table.

    Raises UserError where the file cannot be read or has none.
    """
    lines = read_text(Path(path)).strip().splitlines()
    try:
        report = json.loads(lines[-1]) if lines else None
    except (ValueError, RecursionError):
        report = None
    if _is_report(report):
        return report
    raise UserError(f"{path}: its last line is no report; make one by launch.compile --json > FILE")


def _is_report(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether `value` has all that is compared, in the form of a report: looked at before minutes of compiling."""
    if not isinstance(value, dict) or "hbm_peak_bytes" not in value:
        return False
    kinds, options = value.get("collectives"), value.get("compiler_options", {})
    if not isinstance(kinds, dict) or not isinstance(options, dict):
        return False
    counts = [kind.get("count") if isinstance(kind, dict) else None for kind in kinds.values()]
    figures = [value[key] for key, *_ in FIGURES if value.get(key) is not None]
    return all(isinstance(one, int | float) for one in (*figures, *counts))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return a line for each setting in which two reports are of something else."""
    lines = [f"{key}: {old.get(key)} before, {new[key]} now" for key in SAME if old.get(key) != new[key]]
    options = [one.get("compiler_options", {}) for one in (old, new)]
    for name in sorted({*options[0], *options[1]}):
        before, now = (one.get(name, "not set") for one in options)
        if before != now:
            lines.append(f"{name}: {before} before, {now} now")
    return lines


def compared(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return rows of title, figure before, figure now and the change, of what either report has."""
    rows = []
    for key, title, unit, decimals in FIGURES:
        pair = [one.get(key) for one in (old, new)]
        if pair == [None, None]:
            continue
        before, now = ("" if value is None else f"{value / unit:,.{decimals}f}" for value in pair)
        change = f"{pair[1] / pair[0] - 1:+.1%}" if None not in pair and pair[0] else ""
        rows.append((title, before, now, change))
    kinds = {kind for one in (old, new) for kind in one["collectives"]}
    for kind in sorted(kinds):
        counts = [one["collectives"].get(kind, {"count": 0})["count"] for one in (old, new)]
        change = f"{counts[1] / counts[0] - 1:+.1%}" if counts[0] else ""
        rows.append((kind, f"{counts[0]:,.0f}", f"{counts[1]:,.0f}", change))
    return rows


def show_against(old: dict[str, Any], new: dict[str, Any], console: Console | None = None) -> None:
    """Print what two reports differ in."""
    out = console or Console(width=112)
    table = Table("", "before", "now", "change", box=None, padding=(0, 2), title="against the other report")
    for row in compared(old, new):
        table.add_row(*row)
    out.print(table)
    for line in differences(old, new):
        out.print(line, highlight=False, soft_wrap=True)
