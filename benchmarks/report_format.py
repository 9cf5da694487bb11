"""Markdown of the tables that `benchmarks.report` renders."""

from collections.abc import Sequence
from typing import Any

GIB = 2**30
Result = dict[str, Any]  # of `benchmarks.report`, with its machine


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def about(result: Result) -> str:
    """Return when and on what it was measured."""
    machine, load = result["machine"], result["load"]
    where = f"{result['began'][:10]}, {machine['cores']} cores of {machine['processor']}"
    return f"{where}, load {load[0]:g} before and {load[1]:g} after, commit {result['commit']}:\n\n"


def megabytes(count: float) -> str:
    """Return bytes in MB."""
    return f"{count / 1e6:,.1f}"
