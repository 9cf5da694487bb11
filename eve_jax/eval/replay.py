"""Scores recorded outputs: a file with rows, outputs and a judge's replies -> prompts, verdicts and aggregate.

The file is a JSON object. Of it are read:

    benchmark, protocol            the task
    rows, outputs                  one output (a text, or null) per row
    judge_calls                    the judge's replies, in the order of the calls, where the task needs a judge
    annotation_file, test_ids      what lies next to the rows of some benchmarks, see their tasks

Nothing else is looked at.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from eve_jax.errors import UserError, shorten
from eve_jax.eval import registry
from eve_jax.eval.judge import ReplayedJudge
from eve_jax.eval.task import Row, Task, Verdict
from eve_jax.process.files import read_json

T = TypeVar("T")
FILES = ("annotation_file", "test_ids", "judge_prompt", "rule")
WRONG = (KeyError, IndexError, TypeError, ValueError, AttributeError)
# The recorded upload files of VQAv2 were written for a test set with one more question, of this id.
UNASKED = 999


def replay(path: str | Path) -> dict[str, Any]:
    """Return `prompts`, `images` (fields in order), `per_row`, `aggregate` and `parse_failed` of a recorded file.

    Raises UserError that names the file, and the row and its field if one is bad.
    """
    data = _read(Path(path))
    task, rows, outputs = _task(data, path), data["rows"], data["outputs"]
    rows = [_at(path, number, row, task.adapt, row) for number, row in enumerate(rows, 1)]
    numbered = list(enumerate(rows, 1))
    prompts = [_at(path, number, row, task.prompt, row) for number, row in numbered]
    images = [_at(path, number, row, task.images, row) for number, row in numbered]
    verdicts = [
        _at(path, number, row, task.score, row, output) for (number, row), output in zip(numbered, outputs, strict=True)
    ]
    if task.needs_judge:
        verdicts = _judged(task, rows, verdicts, data, path)
    return {
        "prompts": prompts,
        "images": images,
        "per_row": [verdict.record for verdict in verdicts],
        "aggregate": task.aggregate(rows, verdicts),
        "parse_failed": sum(not verdict.parsed for verdict in verdicts),
    }


def _read(path: Path) -> dict[str, Any]:
    data = read_json(path)
    for key, kind, what in (
        ("benchmark", str, "a text"),
        ("protocol", str, "a text"),
        ("rows", list, "a list"),
        ("outputs", list, "a list"),
    ):
        if not isinstance(data.get(key), kind):
            raise UserError(f"{path}: {key} must be {what}")
    if len(data["rows"]) != len(data["outputs"]):
        raise UserError(f"{path}: {len(data['rows']):,} rows but {len(data['outputs']):,} outputs; give one per row")
    for number, (row, output) in enumerate(zip(data["rows"], data["outputs"], strict=True), 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number} must be an object")
        if not isinstance(output, str | None):
            raise UserError(f"{path}: output {number} must be a text or null")
    return data


def _task(data: dict[str, Any], path: str | Path) -> Task:
    try:
        task = registry.get(data["benchmark"], data["protocol"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    files = {name: data[name] for name in FILES if data.get(name)}
    if (task.benchmark, task.protocol) == ("vqav2", "eve"):
        files.setdefault("test_ids", [UNASKED])
    try:
        return task.with_files(files)
    except WRONG as error:
        named = ", ".join(files)
        raise UserError(f"{path}: {named} not as {task.name} expects ({_reason(error)})") from None


def _judged(
    task: Task, rows: list[Row], verdicts: list[Verdict], data: dict[str, Any], path: str | Path
) -> list[Verdict]:
    calls = data.get("judge_calls")
    if not isinstance(calls, list) or not all(isinstance(call, dict) and "reply" in call for call in calls):
        raise UserError(f"{path}: judge_calls must be a list of objects with reply: {task.name} needs a judge")
    verdicts = task.judge(rows, verdicts, ReplayedJudge(calls))
    for number, verdict in enumerate(verdicts, 1):
        if verdict.error:
            raise UserError(f"{path}: row {number}: {verdict.error}")
    return verdicts


def _at(path: str | Path, number: int, row: Row, action: Callable[..., T], *given: Any) -> T:
    """Return `action(*given)`; what a bad row leads to becomes one line that names it."""
    try:
        return action(*given)
    except WRONG as error:
        fields: Iterable[str] = map(str, row)
        raise UserError(
            f"{path}: row {number} is not as its task expects ({_reason(error)}); its fields are {', '.join(fields)}"
        ) from None


def _reason(error: Exception) -> str:
    return f"no field {error}" if isinstance(error, KeyError) else shorten(f"{type(error).__name__}: {error}", 200)
