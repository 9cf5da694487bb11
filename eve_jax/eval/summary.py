"""The end of an evaluation: the reports in its folder, a table on the screen, a line for everything that failed."""

import importlib
import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from eve_jax.errors import shorten
from eve_jax.eval.outcome import Answered, Outcome
from eve_jax.process.files import write_atomically, write_json

REPORT, SUBMISSIONS = "report.json", "submissions"
REPORTS = "eve_jax.eval.report"  # its write_reports writes report.json, report.md and report.html
MOST_NAMED = 3  # failed questions that a line names


def write_results(out: Path, outcomes: Sequence[Outcome], about: dict[str, Any]) -> None:
    """Write the reports and the files for servers into `out`."""
    for outcome in outcomes:
        entries = None if outcome.error or not outcome.items else outcome.task.submission(*outcome.scored)
        if entries is not None:
            (out / SUBMISSIONS).mkdir(parents=True, exist_ok=True)
            text = json.dumps(entries, ensure_ascii=False, default=str)
            write_atomically(out / SUBMISSIONS / f"{outcome.task.name}.json", text)
    write_reports(out, outcomes, about)


def write_reports(out: Path, outcomes: Sequence[Outcome], about: dict[str, Any]) -> None:
    """Write report.json, and report.md and report.html where that module is there."""
    out.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec(REPORTS):
        importlib.import_module(REPORTS).write_reports(out, outcomes, about)
        return
    write_json(out / REPORT, {"about": about, "tasks": {one.task.name: _numbers(one) for one in outcomes}})


def _numbers(outcome: Outcome) -> dict[str, Any]:
    return {
        "headline": outcome.headline,
        "aggregate": outcome.aggregate,
        "further": outcome.further,
        "questions": len(outcome.items),
        "parse_failed": parse_failures(outcome),
        "errors": len(outcome.failed),
        "left_out": outcome.left_out,
        "data": outcome.digest,
        "error": outcome.error,
    }


def parse_failures(outcome: Outcome) -> int:
    """Return how many answers could not be parsed; they count as wrong."""
    return sum(not verdict.parsed for verdict in outcome.scored[1])


def progress_line(outcome: Outcome) -> str:
    """Return the line about a task that has just been scored."""
    if outcome.error:
        return f"{outcome.task.name}: no numbers"
    return f"{outcome.task.name}: {_headline(outcome)} ({len(outcome.items):,} questions)"


def _headline(outcome: Outcome) -> str:
    return "-" if outcome.headline is None else f"{outcome.headline:,.2f}"


def print_table(outcomes: Sequence[Outcome]) -> None:
    """Print task, protocol, headline, questions, parse failures, errors and minutes of each."""
    table = Table()
    for name in ("task", "protocol", "headline", "questions", "parse failures", "errors", "minutes"):
        table.add_column(name, justify="left" if name in ("task", "protocol") else "right")
    for one in outcomes:
        minutes = sum(answered.seconds for answered in one.answered) / 60
        counts = (len(one.items), parse_failures(one), len(one.failed) or int(bool(one.error)))
        cells = [one.task.benchmark, one.task.protocol, _headline(one), *(f"{count:,}" for count in counts)]
        table.add_row(*cells, f"{minutes:.1f}")
    Console(width=100).print(table)


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a line for each task without numbers, and one for each with questions that have no verdict."""
    lines = []
    for one in outcomes:
        if one.error:
            lines.append(f"{one.task.name}: no numbers: {one.error}")
        elif one.failed:
            kinds = Counter(_reason(answered) for answered in one.failed)
            named = "; ".join(shorten(reason, 200) for reason in list(kinds)[:MOST_NAMED])
            more = "; ..." if len(kinds) > MOST_NAMED else ""
            count = f"{len(one.failed):,} of {len(one.items):,} questions"
            lines.append(f"{one.task.name}: {count} have no verdict and count in no number: {named}{more}")
    return lines


def print_failures(outcomes: Sequence[Outcome]) -> bool:
    """Print the lines of `failures` on stderr; return whether there are any."""
    lines = failures(outcomes)
    for line in lines:
        print(f"error: {line}", file=sys.stderr, flush=True)
    return bool(lines)


def _reason(answered: Answered) -> str:
    verdict = answered.verdict
    return answered.error or (verdict.error if verdict else "")
