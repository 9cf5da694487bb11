"""The end of an evaluation: what is written into its folder, and a line for everything that failed."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eve_jax.errors import shorten
from eve_jax.eval.outcome import Answered, Outcome
from eve_jax.eval.report import write_reports
from eve_jax.process.files import write_atomically

SUBMISSIONS = "submissions"
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


def progress_line(outcome: Outcome) -> str:
    """Return the line about a task that has just been scored."""
    if outcome.error:
        return f"{outcome.task.name}: no numbers"
    return f"{outcome.task.name}: {_headline(outcome)} ({outcome.size})"


def _headline(outcome: Outcome) -> str:
    return "-" if outcome.headline is None else f"{outcome.headline:,.2f}"


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
