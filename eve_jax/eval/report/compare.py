"""Compares the evaluations of several runs: their scores side by side, and how far they differ on the same questions.

OUT/report.json              the scores
OUT/answers/TASK.jsonl       a verdict per question, of which the difference is taken
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eve_jax.errors import UserError
from eve_jax.eval import registry
from eve_jax.eval.report.intervals import interval_of, value_of
from eve_jax.eval.report.table import aligned
from eve_jax.eval.report.values import NONE, interval, number
from eve_jax.eval.units import Units
from eve_jax.process.files import read_json, read_text

HEAD = ("task", "protocol", "run", "score", "95% interval", "mean score against first", "95% interval", "questions")


@dataclass(frozen=True)
class Difference:
    """How far the mean score of one run is above another's, on the questions that both have a verdict on.

    Attributes:
        value: in points of 100.
        interval: 95%, by drawing questions with both runs' scores; None as in `interval_of`.
        n: common questions.
    """

    value: float
    interval: tuple[float, float] | None
    n: int


def compare_lines(folders: Sequence[str | Path]) -> list[str]:
    """Return a table of the runs' scores for the terminal; differences are to the first of `folders` that has the task.

    Raises UserError that names a folder without report.json, or what is wrong with a file.
    """
    if len(folders) < 2:
        raise UserError("compare takes two or more folders of evaluations: compare OUT1 OUT2")
    tasks = {str(folder): _tasks(Path(folder)) for folder in folders}
    names = dict.fromkeys(name for entries in tasks.values() for name in entries)
    rows: list[Sequence[str]] = [HEAD]
    notes = []
    for name in names:
        having = [folder for folder in tasks if name in tasks[folder]]
        entries = [tasks[folder][name] for folder in having]
        for folder, entry in zip(having, entries, strict=True):
            found = None if folder == having[0] else difference(Path(having[0]), Path(folder), name)
            rows.append([entry["benchmark"], entry["protocol"], folder, *_scores(entry), *_cells(found)])
        if len({entry["data"] for entry in entries}) > 1:
            notes.append(f"note: {name}: the runs were asked on different data")
    return [*aligned(rows, texts=3), *notes]


def difference(first: Path, second: Path, name: str) -> Difference | None:
    """Return how far the second run is above the first in the task `name`; None without a common question.

    Questions that are scored together (those of an image of MME, the rotations of one of MMBench) are drawn together.
    """
    one, other = (_verdicts(folder / "answers" / f"{name}.jsonl") for folder in (first, second))
    groups: dict[str, list[float]] = {}
    for id in (id for id in one if id in other):
        groups.setdefault(_group(name, id), []).append(other[id] - one[id])
    if not groups:
        return None
    sums = np.array([(sum(values), len(values)) for values in groups.values()], float)
    units = Units(sums, [""] * len(sums))
    value = value_of(units)
    assert value is not None  # there is a question
    return Difference(value, interval_of(units), int(sums[:, 1].sum()))


def _tasks(folder: Path) -> dict[str, Any]:
    path = folder / "report.json"
    tasks = read_json(path).get("tasks")
    if not isinstance(tasks, dict) or not all(
        isinstance(entry, dict) and "interval" in entry for entry in tasks.values()
    ):
        raise UserError(f"{path}: not a report of an evaluation; write it anew with launch.eval")
    return tasks


def _verdicts(path: Path) -> dict[str, float]:
    """Return the scores by id of a file of answers, without errors; of lines with one id the last counts."""
    scores: dict[str, float] = {}
    if not path.is_file():
        return scores
    for place, text in enumerate(read_text(path).splitlines(), 1):
        try:
            line = json.loads(text)
            verdict = line.get("verdict")
            scores.pop(line["id"], None)
            if verdict is not None and not verdict.get("error"):
                scores[line["id"]] = float(verdict["score"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}#{place}: not an answer with its verdict ({error}); rerun launch.eval score"
            ) from None
    return scores


def _group(name: str, id: str) -> str:
    """Return what a question of the task `name` is scored together with."""
    benchmark, _, protocol = name.partition(".")
    known = benchmark in registry.MODULES and protocol in registry.protocols(benchmark)
    return registry.get(benchmark, protocol).group(id) if known else id


def _scores(entry: dict[str, Any]) -> list[str]:
    score = "failed" if entry["error"] else number(entry["headline"], entry["digits"])
    return [score, interval(entry["interval"], entry["digits"])]


def _cells(found: Difference | None) -> list[str]:
    if found is None:
        return [NONE, NONE, NONE]
    return [f"{found.value:+.1f}", interval(found.interval), f"{found.n:,}"]
