"""The table of all tasks: its cells, as text for the terminal and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from eve_jax.eval.outcome import Outcome
from eve_jax.eval.report.summary import summary_of
from eve_jax.eval.report.values import NONE, duration, interval, number, share

COLUMNS = (
    "task",
    "protocol",
    "score",
    "95% interval",
    "measure",
    "n",
    "not parsed",
    "errors",
    "EVEv1 ¹",
    "EVEv2 ¹",
    "time",
)
PAPERS = "¹ The papers' own figures, not ours"


def cells(entry: Mapping[str, Any]) -> list[str]:
    """Return the cells of COLUMNS for an entry of report.json's `tasks`."""
    papers = entry["papers"]
    return [
        entry["benchmark"],
        entry["protocol"],
        "failed" if entry["error"] else number(entry["headline"], entry["digits"]),
        interval(entry["interval"], entry["digits"]),
        entry["measure"],
        f"{entry['n']:,}" if entry["asks"] else NONE,
        share(entry["not_parsed"]["n"], entry["scored"]),
        share(len(entry["errors"]), entry["n"]),
        number(papers["EVEv1"]),
        number(papers["EVEv2"]),
        duration(entry["throughput"]["seconds"]),
    ]


def table_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the table of the tasks for the terminal: score with half the width of its 95% interval, counts, time."""
    rows = [("task", "protocol", "score", "n", "not parsed", "errors", "time")]
    for outcome in outcomes:
        entry = summary_of(outcome)
        name, protocol, score, _, _, n, not_parsed, errors, _, _, time = cells(entry)
        if entry["interval"]:
            low, high = entry["interval"]
            score += f" ±{number((high - low) / 2, entry['digits'])}"
        rows.append((name, protocol, score, n, not_parsed, errors, time))
    return aligned(rows, texts=2)


def aligned(rows: Sequence[Sequence[str]], texts: int) -> list[str]:
    """Return lines with the cells below each other: the first `texts` to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if k < texts else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def notes(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the remarks on the papers' figures of the tasks, each once with the benchmarks that it is about."""
    remarks: dict[str, list[str]] = {}
    for entry in entries:
        papers = entry["papers"]
        if papers["EVEv1"] is not None or papers["EVEv2"] is not None:
            remarks.setdefault(f"{papers['source']}; {papers['remark']}", []).append(entry["benchmark"])
    return [f"{', '.join(dict.fromkeys(names))}: {text}." for text, names in remarks.items()]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; the cells are Markdown already."""
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
