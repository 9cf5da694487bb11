"""The numbers of one task's outcome, as report.json holds them (docs/eval.md#reports)."""

from collections.abc import Sequence
from typing import Any

from eve_jax.errors import shorten
from eve_jax.eval.outcome import Answered, Outcome
from eve_jax.eval.report.intervals import by_category, interval_of, value_of
from eve_jax.eval.report.papers import figures_of
from eve_jax.eval.report.values import finite
from eve_jax.eval.task import Row, Task, Verdict, mean
from eve_jax.eval.units import Units

MOST_TEXT = 300  # characters of a message
ROUNDED = 0.051  # reference scorers round headlines to at least one digit after the point


def summary_of(outcome: Outcome) -> dict[str, Any]:
    """Return the entry of a task in report.json."""
    task, headline = outcome.task, outcome.headline
    rows, verdicts = ([], []) if outcome.error else outcome.scored
    units = None if headline is None else _units(task, rows, verdicts, headline)
    figures = figures_of(task.benchmark)
    return {
        "benchmark": task.benchmark,
        "protocol": task.protocol,
        "error": shorten(outcome.error, MOST_TEXT),
        "headline": finite(headline),
        "interval": None if units is None else interval_of(units),
        "measure": task.measure,
        "top": task.top,
        "digits": task.digits,
        "units": None if units is None else {"kind": units.kind, "n": len(units.numbers)},
        "papers": {"EVEv1": figures.v1, "EVEv2": figures.v2, "source": figures.source, "remark": figures.remark},
        "asks": task.asks,
        "size": outcome.size,
        "n": len(outcome.items) or len(outcome.answered),
        "scored": len(verdicts),
        "not_parsed": _not_parsed(outcome, verdicts),
        "errors": _errors(outcome),
        "left_out": outcome.left_out,
        "aggregate": finite(outcome.aggregate),
        "further": finite(outcome.further),
        "categories": _categories(verdicts, units),
        "throughput": throughput(outcome.answered),
        "needs_judge": task.needs_judge,
        "data": outcome.digest,
    }


def throughput(answered: Sequence[Answered]) -> dict[str, Any]:
    """Return seconds, tokens and the rates of what was asked; rates are None without a time."""
    asked = [a for a in answered if a.answer is not None]
    seconds = sum(a.seconds for a in answered)
    tokens = sum(a.tokens for a in asked)
    return {
        "seconds": seconds,
        "answers": len(asked),
        "prompt_tokens": sum(a.prompt_tokens for a in asked),
        "tokens": tokens,
        "questions_per_second": len(asked) / seconds if seconds > 0 else None,
        "tokens_per_second": tokens / seconds if seconds > 0 else None,
    }


def error_of(answered: Answered) -> str:
    """Return why a question has no verdict; "" where it has one, or has an answer that nothing scored."""
    missing = "no answer" if answered.answer is None else ""
    return answered.error or (answered.verdict.error if answered.verdict else missing)


def _not_parsed(outcome: Outcome, verdicts: list[Verdict]) -> dict[str, Any]:
    ids = [a.id for a in outcome.answered if a.verdict and not a.verdict.error and not a.verdict.parsed]
    return {"n": len(ids), "rate": len(ids) / len(verdicts) if verdicts else None, "ids": ids}


def _errors(outcome: Outcome) -> list[dict[str, str]]:
    places = {item.id: item.where for item in outcome.items}
    reasons = [(answered.id, error_of(answered)) for answered in outcome.failed]
    return [
        {"id": name, "where": places.get(name, ""), "error": shorten(reason, MOST_TEXT)}
        for name, reason in reasons
        if reason
    ]


def _units(task: Task, rows: list[Row], verdicts: list[Verdict], headline: float) -> Units | None:
    """Return the units of the headline; None where they do not give it: a task's own headline may be another number."""
    if not task.asks:
        return None
    units = task.units(rows, verdicts)
    value = value_of(units)
    return units if value is not None and abs(value - headline) <= ROUNDED else None


def _categories(verdicts: list[Verdict], units: Units | None) -> dict[str, dict[str, Any]]:
    """Return of each category the questions, their mean score, and the headline's value with its interval."""
    scores: dict[str, list[float]] = {}
    for verdict in verdicts:
        if verdict.category:
            scores.setdefault(verdict.category, []).append(verdict.score)
    parts = by_category(units) if units is not None else {}
    return {
        name: {
            "n": len(values),
            "accuracy": mean(values),
            "value": value_of(parts[name]) if name in parts else None,
            "interval": interval_of(parts[name]) if name in parts else None,
        }
        for name, values in sorted(scores.items())
    }
