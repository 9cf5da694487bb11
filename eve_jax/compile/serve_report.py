"""What inference on a slice costs, as a table."""

from typing import Any

from rich.console import Console
from rich.table import Table

from eve_jax.compile.report import WIDTH
from eve_jax.compile.topology import GIB


def show(summary: dict[str, Any], console: Console | None = None) -> None:
    """Prints the summary of `eve_jax.compile.serve.compile_serving` as a table."""
    out = console or Console()
    if not out.is_terminal:
        out.width = WIDTH
    mesh = ", ".join(f"{axis} {size}" for axis, size in summary["mesh"].items())
    title = f"inference on {summary['topology']}, {summary['chips']} chip(s) as {mesh}, weights {summary['weights']}"
    table = Table(box=None, show_header=False, padding=(0, 2), title=title, title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    for row in (*_memory(summary), *_times(summary)):
        table.add_row(*row)
    out.print(table)
    if not summary["fits"]:
        out.print("[yellow]warning:[/] it does not fit the chip's memory with a tenth to spare", highlight=False)


def _memory(s: dict[str, Any]) -> list[tuple[str, str, str]]:
    prompt, hbm = s["prompt"], s["hbm_bytes"]
    of = f"of {hbm / GIB:.2f} GiB" if hbm else ""
    rows = [
        ("parameters", f"{s['parameters'] / 1e9:.2f} B", f"{s['parameter_bytes'] / GIB:.2f} GiB a chip {of}"),
        (
            "prefill",
            f"{s['prefill_bytes'] / GIB:.2f} GiB",
            f"a prompt of {prompt['patches']} patches, {prompt['specials']} specials, {prompt['text']} text slots",
        ),
        (
            "decoding",
            f"{(s['decode_bytes'] or 0) / GIB:.2f} GiB",
            f"{s['rows']} rows of {s['context']} tokens, {s['cache_bytes_per_row'] / 2**20:.1f} MiB each on a chip",
        ),
    ]
    if hbm:
        rows.append(("rows by context", "", ", ".join(f"{n} of {c}" for c, n in s["rows_by_context"].items())))
    return rows


def _times(s: dict[str, Any]) -> list[tuple[str, str, str]]:
    if "step_seconds" not in s:
        return []
    parts = ", ".join(f"{kind} {1000 * seconds:.2f}" for kind, seconds in s["step_seconds"].items())
    estimated = "prefill_compiler_estimate" in s
    prefill = f"compiler's estimate {1000 * s['prefill_compiler_estimate']:.0f} ms" if estimated else ""
    rows = [
        ("a token at the least", f"{1000 * s['step_seconds_at_least']:.2f} ms", parts),
        ("tokens a second at most", f"{s['tokens_per_second_at_most']:,.0f}", "of all rows together"),
        ("prefill at the least", f"{1000 * s['prefill_seconds_at_least']:.0f} ms", prefill),
    ]
    if estimated:
        rows[1:1] = [("  compiler's estimate", f"{1000 * s['step_compiler_estimate']:.2f} ms", "without collectives")]
    return rows
