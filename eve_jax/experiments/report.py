"""The report of an experiment: NAME.json, NAME.md and, by `eve_jax.experiments.chart`, NAME.png."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as Printed

from eve_jax.errors import amount
from eve_jax.eval.report.table import markdown_table
from eve_jax.experiments.chart import draw
from eve_jax.experiments.config import ExperimentConfig
from eve_jax.experiments.gather import ACCURACY, CURVE_TEXT_LOSS, MEASURES, Gathered, Measure, gather
from eve_jax.experiments.score import values_of
from eve_jax.experiments.statistics import LEVEL, Spread, effects, spread, words
from eve_jax.experiments.weights import draw_weights, weight_changes, weight_rows
from eve_jax.process.files import write_atomically, write_json

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


def report(name: str, experiment: ExperimentConfig, workdir: Path) -> dict[str, Any]:
    """Write the reports of the experiment `name` into `workdir`, print the table and what follows, and return it."""
    found = gather(experiment, workdir)
    weights = weight_changes(experiment, workdir)
    shown = [measure for measure in MEASURES if measure.key in found.tables]
    content = {
        "experiment": name,
        "title": experiment.title,
        "seeds": experiment.seeds,
        "arms": {arm: _arm(experiment, arm, found) for arm in experiment.arms},
        "groups": found.groups,
        "before": _before(experiment, workdir),
        "differences": {measure.key: _differences(measure, found) for measure in shown},
        "questions_left_out": found.left_out,
        **({"weights": weights} if weights else {}),
        "deviations": list(experiment.deviations),
    }
    write_json(workdir / f"{name}.json", content, indent=1, sort_keys=False)
    write_atomically(workdir / f"{name}.md", "\n".join(_lines(content, experiment, shown)) + "\n")
    draw(experiment, found, workdir, workdir / f"{name}.png")
    files = [workdir / f"{name}{suffix}" for suffix in (".json", ".md", ".png")]
    if weights:
        files.append(draw_weights(weights, workdir / f"{name}_weights.png"))
    _print(content, experiment, shown, files)
    return content


def _arm(experiment: ExperimentConfig, arm: str, found: Gathered) -> dict[str, Any]:
    """What is known of an arm: means, standard deviations and errors at each of its points, the end last."""
    points = []
    for step in (*sorted(experiment.steps), 0):
        point: dict[str, Any] = {"step": step or "end"}
        if found.samples:
            point["samples"] = found.samples[arm][step]
        for key, steps in found.tables.items():
            if arm in steps.get(step, {}):
                point[key] = spread(steps[step][arm])._asdict()
        points.append(point)
    return {"label": experiment.labels[arm], "paper": experiment.paper.get(arm, ""), "points": points}


def _before(experiment: ExperimentConfig, workdir: Path) -> float | None:
    """The text loss of the stage that the experiment names for comparison, nats a token."""
    if not experiment.before or not experiment.texts:
        return None
    texts = values_of(workdir, experiment.before).texts
    sums = [pair for passages in texts.values() for pair in passages.values()]
    return sum(total for total, _ in sums) / sum(count for _, count in sums)


def _differences(measure: Measure, found: Gathered) -> list[dict[str, Any]]:
    """The difference of every two arms at the end."""
    lines = []
    for (first, second), effect in effects(found.tables[measure.key][0]).items():
        said = words((first, second), effect, measure.unit, measure.scale, measure.digits)
        lines.append({"above": first, "below": second, **effect._asdict(), "clear": effect.is_clear, "words": said})
    return lines


def table_rows(content: dict[str, Any], shown: Sequence[Measure]) -> list[list[str]]:
    """Return the table of the arms at the end as texts, its head first."""
    paper = any(arm["paper"] for arm in content["arms"].values())
    head = ["arm", *(f"{measure.title} ({measure.unit})" for measure in shown), *(["the paper"] if paper else [])]
    rows = [head]
    for arm in content["arms"].values():
        cells = [_cell(Spread(**arm["points"][-1][measure.key]), measure) for measure in shown]
        rows.append([arm["label"], *cells, *([arm["paper"] or "-"] if paper else [])])
    return rows


def _cell(found: Spread, measure: Measure) -> str:
    """Mean, standard error of the mean and, in brackets, standard deviation over seeds."""
    mean, *more = (
        "-" if value is None else f"{value * measure.scale:.{measure.digits}f}"
        for value in (found.mean, found.error, found.sd)
    )
    return mean if found.error is None else f"{mean} {PLUS_MINUS} {more[0]} ({more[1]})"


def _notes(content: dict[str, Any]) -> Iterator[str]:
    seeds = content["seeds"]
    yield (
        f"Mean over {amount(seeds, 'seed')}, {PLUS_MINUS} its standard error (standard deviation over seeds)."
        if seeds > 1
        else "One run with one seed: nothing can be said of differences."
    )
    if content["before"] is not None:
        yield f"Text loss before the arms: {content['before']:.3f} nats."
    if content["questions_left_out"]:
        yield f"Left out: {amount(content['questions_left_out'], 'question')} that some point has no score of."


def _lines(content: dict[str, Any], experiment: ExperimentConfig, shown: Sequence[Measure]) -> Iterator[str]:
    yield f"# {experiment.title}"
    yield ""
    head, *rows = table_rows(content, shown)
    yield from markdown_table(head, rows)
    yield ""
    yield from _notes(content)
    for measure in shown:
        lines = content["differences"][measure.key]
        if lines:
            yield ""
            yield (
                f"Differences in {measure.title}, paired by seed and question; {LEVEL:.0%} intervals, claims at "
                f"{LEVEL:.0%} for all {amount(len(lines), 'difference')} together:"
            )
            yield ""
            yield from (f"- {line['words']}" for line in lines)
    if experiment.steps:
        yield ""
        yield from markdown_table(*_curve_rows(content, shown))
    if content["groups"]:
        yield ""
        yield from markdown_table(*_group_rows(content))
    if "weights" in content:
        yield ""
        yield from markdown_table(*weight_rows(content["weights"]))
    if experiment.deviations:
        yield ""
        yield "Not as in the paper:"
        yield ""
        yield from (f"- {line}" for line in experiment.deviations)


def _curve_rows(content: dict[str, Any], shown: Sequence[Measure]) -> tuple[list[str], list[list[str]]]:
    measures = [measure for measure in shown if measure is not CURVE_TEXT_LOSS]
    rows = []
    for arm in content["arms"].values():
        for point in arm["points"]:
            cells = [_cell(Spread(**point[measure.key]), measure) for measure in measures]
            rows.append([arm["label"], str(point["step"]), f"{point['samples']:,.0f}", *cells])
    return ["arm", "step", "samples seen", *(f"{one.title} ({one.unit})" for one in measures)], rows


def _group_rows(content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Accuracy by kind of question; "-" for an arm of which no question of the kind has a score."""
    rows = []
    for group, arms in sorted(content["groups"].items()):
        tables = [np.array(arms[arm])[:, None] if arm in arms else None for arm in content["arms"]]
        rows.append([group, *("-" if table is None else _cell(spread(table), ACCURACY) for table in tables)])
    return ["accuracy (points)", *(arm["label"] for arm in content["arms"].values())], rows


def _print(content: dict[str, Any], experiment: ExperimentConfig, shown: Sequence[Measure], files: list[Path]) -> None:
    rows = table_rows(content, shown)
    table = Printed(title=experiment.title)
    for column in rows[0]:
        table.add_column(column, justify="left" if column == rows[0][0] else "right")
    for row in rows[1:]:
        table.add_row(*row)
    Console(width=140).print(table)
    print("\n".join(_notes(content)))
    clear = [
        f"{measure.title}: {line['words']}"
        for measure in shown
        for line in content["differences"][measure.key]
        if line["clear"]
    ]
    if total := sum(map(len, content["differences"].values())):
        head = f"{len(clear)} of {amount(total, 'difference')} can be told from 0{':' if clear else ''}"
        print(head, *clear, sep="\n  ")
    print(f"see {', '.join(map(str, files))}", flush=True)
