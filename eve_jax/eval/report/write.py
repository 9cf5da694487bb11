"""Writes report.json, report.md and report.html (docs/eval.md#reports)."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eve_jax.data.view.document import write_text
from eve_jax.eval.outcome import Outcome
from eve_jax.eval.report.disagreements import disagreements_of
from eve_jax.eval.report.markdown import markdown_of
from eve_jax.eval.report.page import page_of
from eve_jax.eval.report.sheet import sheet_of
from eve_jax.eval.report.summary import summary_of
from eve_jax.eval.report.values import finite

SCHEMA = 1  # of report.json; grows with a change that readers of it must know


def report_of(outcomes: Sequence[Outcome], about: dict[str, Any]) -> dict[str, Any]:
    """Return what report.json holds."""
    return {
        "schema": SCHEMA,
        "about": finite(about),
        "tasks": {name: summary_of(outcome) for name, outcome in zip(_names(outcomes), outcomes, strict=True)},
        "disagreements": disagreements_of(outcomes),
    }


def _names(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the tasks' names; a second one of the same name, as of another folder's file of questions, gets `#2`."""
    seen: Counter[str] = Counter()
    names = []
    for name in (outcome.task.name for outcome in outcomes):
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return names


def write_reports(out: Path, outcomes: Sequence[Outcome], about: dict[str, Any]) -> None:
    """Write report.json, report.md and report.html to the folder `out`, each at once and complete.

    outcomes: of the tasks, also of those that failed, which the reports then say.
    about: facts about the run for all three (checkpoint, data, version, flags): names to JSON values. Raises OSError.
    """
    out.mkdir(parents=True, exist_ok=True)
    report, sheets = report_of(outcomes, about), [sheet_of(outcome) for outcome in outcomes]
    write_text(out / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_text(out / "report.md", markdown_of(report, sheets))
    write_text(out / "report.html", page_of(report, sheets))
