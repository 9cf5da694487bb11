"""The values of all points of an experiment as tables [seeds, questions], arms and seeds with the same questions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eve_jax.errors import UserError
from eve_jax.experiments.config import ExperimentConfig, Point, stage_name
from eve_jax.experiments.score import FOLDER, Values, values_of
from eve_jax.experiments.statistics import Table, over_questions
from eve_jax.train.metrics import read_metrics


class Measure(NamedTuple):
    """What is measured: its name in reports, the unit of its values times `scale`, and digits that are printed."""

    key: str
    title: str
    unit: str
    scale: float
    digits: int


ACCURACY = Measure("accuracy", "accuracy", "points", 100.0, 1)
ANSWER_LOSS = Measure("answer_loss", "loss of the correct answer", "nats", 1.0, 3)
TEXT_LOSS = Measure("text_loss", "text loss", "nats", 1.0, 3)
CURVE_TEXT_LOSS = Measure("curve_text_loss", "text loss before fine-tuning", "nats", 1.0, 3)
MEASURES = (ACCURACY, ANSWER_LOSS, TEXT_LOSS, CURVE_TEXT_LOSS)


@dataclass(frozen=True)
class Gathered:
    """All that was measured.

    Attributes:
        tables: key of a measure -> step (0 for the end) -> arm -> values [S, Q]; measures that there are.
        groups: task or category of questions -> arm -> accuracy by seed, at the end.
        samples: arm -> step -> samples that its run had seen, mean over seeds; empty without a curve.
        left_out: questions that some point has no value for.
    """

    tables: dict[str, dict[int, dict[str, Table]]]
    groups: dict[str, dict[str, list[float]]]
    samples: dict[str, dict[int, float]]
    left_out: int


def gather(experiment: ExperimentConfig, workdir: Path) -> Gathered:
    """Read the values of all points. Raises UserError for points without scores, and for such of other questions.

    Also where no question has a score at every point.
    """
    points = {point: values_of(workdir, point.scored) for point in experiment.points}
    _check_digests(points)
    left_out = 0
    tables: dict[str, dict[int, dict[str, Table]]] = {}
    for measure, rows in (
        (ACCURACY, {point: _accuracies(values) for point, values in points.items()}),
        (ANSWER_LOSS, {point: values.losses for point, values in points.items()}),
        (TEXT_LOSS, {point: _passages(values) for point, values in points.items()}),
        (CURVE_TEXT_LOSS, _of_curves(experiment, workdir)),
    ):
        common, lost = _common(rows.values())
        left_out += lost if measure is ACCURACY else 0
        if common:
            tables[measure.key] = _tables(rows, common)
    if ACCURACY.key not in tables:
        raise UserError(f"no question has a score at every point; see the answers in {workdir / FOLDER}")
    return Gathered(tables, _groups(points), _samples(experiment, workdir), left_out)


def _check_digests(points: Mapping[Point, Values]) -> None:
    (first, values), *others = points.items()
    for point, other in others:
        if other.digests != values.digests:
            raise UserError(
                f"{point.scored} and {first.scored} were asked on different data: remove the folder scores to ask again"
            )


def _accuracies(values: Values) -> dict[tuple[str, str], float]:
    """Scores by task and question; each task weighs the same, so that their mean is the mean over the tasks."""
    tasks = {task: scores for task, scores in values.scores.items() if scores}
    total = sum(map(len, tasks.values()))
    return {
        (task, id): score * total / (len(tasks) * len(scores))
        for task, scores in tasks.items()
        for id, score in scores.items()
    }


def _passages(values: Values) -> dict[tuple[str, str], float]:
    """Losses by text and passage, whose mean is the mean over all tokens."""
    names = [(text, id) for text, passages in values.texts.items() for id in passages]
    if not names:
        return {}
    sums, counts = np.array([values.texts[text][id] for text, id in names]).T
    return dict(zip(names, over_questions(sums / counts, counts).tolist(), strict=True))


def _of_curves(experiment: ExperimentConfig, workdir: Path) -> dict[Point, dict[tuple[str, str], float]]:
    if not experiment.texts or not experiment.curve or experiment.curve == experiment.scored:
        return {}
    ends = [point for point in experiment.points if not point.step]
    return {point: _passages(values_of(workdir, point.trained)) for point in ends}


def _common(rows: Iterable[Mapping]) -> tuple[list, int]:
    """The questions that all points have a value for, and how many others there are."""
    every = [row.keys() for row in rows]
    if not every:
        return [], 0
    common = set.intersection(*map(set, every))
    return [key for key in every[0] if key in common], len(set.union(*map(set, every)) - common)


def _tables(rows: Mapping[Point, Mapping], common: Sequence) -> dict[int, dict[str, Table]]:
    found: dict[int, dict[str, list[list[float]]]] = {}
    for point, values in rows.items():  # in the order of the seeds
        found.setdefault(point.step, {}).setdefault(point.arm, []).append([values[key] for key in common])
    return {step: {arm: np.array(table) for arm, table in arms.items()} for step, arms in found.items()}


def _groups(points: Mapping[Point, Values]) -> dict[str, dict[str, list[float]]]:
    """Mean score of each task, where there are several, and of each category of questions."""
    found: dict[str, dict[str, list[float]]] = {}
    for point, values in points.items():
        if point.step:
            continue
        groups: dict[str, list[float]] = {}
        for task, scores in values.scores.items():
            if len(values.scores) > 1:
                groups[task] = list(scores.values())
            for id, category in values.categories.get(task, {}).items():
                groups.setdefault(category if len(values.scores) == 1 else f"{task} {category}", []).append(scores[id])
        for name, given in groups.items():
            found.setdefault(name, {}).setdefault(point.arm, []).append(float(np.mean(given)))
    return found


def _samples(experiment: ExperimentConfig, workdir: Path) -> dict[str, dict[int, float]]:
    if not experiment.curve:
        return {}
    found: dict[str, dict[int, float]] = {}
    for arm in experiment.arms:
        runs = [stage_name(arm, seed, experiment.curve) for seed in range(experiment.seeds)]
        seen = [np.cumsum([line["samples"] for line in read_metrics(workdir / run)]) for run in runs]
        found[arm] = {
            step: float(np.mean([run[min(step or len(run), len(run)) - 1] for run in seen]))
            for step in (*experiment.steps, 0)
        }
    return found
