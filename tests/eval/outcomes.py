"""Outcomes of tasks without a model, from the reference files' rows and outputs."""

import io
from collections.abc import Sequence
from typing import Any

from eve_jax.data.image_file import ImageFile, StoredImage
from eve_jax.eval import registry
from eve_jax.eval.judge import ReplayedJudge
from eve_jax.eval.outcome import Answered, Outcome
from eve_jax.eval.sources.base import Ids, Item
from eve_jax.eval.task import Row, Task
from tests.eval.data_files import png
from tests.eval.goldens import golden

ABOUT = {"checkpoint": "runs/demo/stage3", "version": "0.1", "flags": {"protocol": "both", "limit": None}}


def stored(number: int = 0) -> ImageFile:
    """Return an image as Parquet files hold it."""
    return StoredImage(f"image {number}", lambda: io.BytesIO(png(number)))


def answered(task: Task, row: Row, name: str, output: str | None) -> Answered:
    """Return a question with its answer, half a second and 100 + 5 tokens."""
    return Answered(name, task.prompt(row), output, task.score(row, output), 100, 5, 0.5)


def outcome_of(task: Task, rows: Sequence[Row], outputs: Sequence[str | None], **fields: Any) -> Outcome:
    """Return the outcome of a task: `rows` as the task expects them, each with its output and one image."""
    ids = Ids(task)
    names = [ids.of(row, number) for number, row in enumerate(rows)]
    images = [tuple(stored(number) for _ in task.images(row)) for number, row in enumerate(rows)]
    places = range(1, len(rows) + 1)
    items = [Item(*one) for one in zip(names, rows, images, (f"data#{n}" for n in places), strict=True)]
    answers = [answered(task, *one) for one in zip(rows, names, outputs, strict=True)]
    verdicts = [one.verdict for one in answers if one.verdict]
    if task.needs_judge:
        verdicts = task.judge(rows, verdicts, ReplayedJudge(fields.pop("judge_calls")))
        answers = [Answered(a.id, a.prompt, a.answer, v) for a, v in zip(answers, verdicts, strict=True)]
    numbers = (task.aggregate(rows, verdicts), task.further(rows, verdicts))
    return Outcome(task, items, answers, *numbers, **{"digest": "d1", **fields})


def recorded(name: str) -> Outcome:
    """Return the outcome of a reference file."""
    data = golden(name)
    files = {key: data[key] for key in ("annotation_file",) if key in data}
    task = registry.get(data["benchmark"], data["protocol"]).with_files(files)
    judge = {"judge_calls": data["judge_calls"]} if task.needs_judge else {}
    return outcome_of(task, data["rows"], data["outputs"], **judge)


def with_protocol(name: str, protocol: str) -> Outcome:
    """Return the outcome of a reference file's rows and outputs under another protocol of its benchmark."""
    data = golden(name)
    task = registry.get(data["benchmark"], protocol)
    return outcome_of(task, [task.adapt(row) for row in data["rows"]], data["outputs"])
