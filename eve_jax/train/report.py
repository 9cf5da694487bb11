"""The image at the end of a stage: its curves, what was evaluated while it trained, and where the time went."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eve_jax.config.evaluation import PREFIX, smaller_is_better
from eve_jax.errors import InUse, amount
from eve_jax.process.connect import is_leader
from eve_jax.process.published import own
from eve_jax.train.goodput import KINDS, describe, read_goodput
from eve_jax.train.metrics import KNOWN, TIMED, Metric, evaluated_names, read_evaluations, read_metrics
from eve_jax.train.shared_data import training_in_bucket

REPORT = "report.png"
HELD_OUT = "loss of held-out records (nats a target)"
_THIN, _THICK, _GRID = "#b9c6e4", "#2450a8", "#ececf0"
_COLORS = dict(zip(KINDS, ("#9aa3b2", "#d9a441", "#c8553d", "#7a5ea8", "#4f7fc4", "#2f8f5b"), strict=True))


@contextlib.contextmanager
def reported(folder: Path) -> Iterator[None]:
    """Draws `write_report` after the block, in one process, also when it ended early, but not in a folder that another
    run writes. A folder in a bucket is published at the end."""
    folder = own(folder)
    with training_in_bucket(folder):
        try:
            yield
        except InUse:
            raise
        except Exception:
            with contextlib.suppress(Exception):  # the block's own error is the one to be seen
                if is_leader():
                    write_report(folder)
            raise
        if is_leader():
            write_report(folder)


def write_report(folder: Path) -> Path | None:
    """Draw `folder`/report.png from its metrics.jsonl and goodput.json; returns it, None when no step was taken."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = read_metrics(folder)
    if not metrics:
        return None
    shown = [metric for metric in KNOWN.values() if metric.panel and any(metric.name in line for line in metrics)]
    evaluated = read_evaluations(folder)
    groups = _evaluated_groups(evaluated_names(evaluated))
    rows = -(-(len(shown) + len(groups)) // 2)
    figure = Figure(figsize=(11, 1.2 + 2.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows + 1, 2, height_ratios=(*[1] * rows, 0.42))
    for place, metric in enumerate(shown):
        _draw_metric(figure.add_subplot(grid[place // 2, place % 2]), metric, metrics)
    for place, (title, names) in enumerate(groups.items(), len(shown)):
        panel = figure.add_subplot(grid[place // 2, place % 2])
        if title == HELD_OUT:
            panel.plot(column(metrics, "step"), smooth(column(metrics, "loss")), color=_THIN, label="training")
        draw_evaluated(panel, title, evaluated, names)
    empty = column(metrics, "targets") == 0
    skipped = int((np.isnan(column(metrics, "loss") + column(metrics, "grad_norm")) & ~empty).sum())
    note = f", {skipped} of them not finite" if skipped else ""
    note += f", {empty.sum()} of them without a target" if empty.any() else ""
    figure.suptitle(f"{folder.name}: {amount(len(metrics), 'step')}{note}", fontsize=12)
    _draw_goodput(figure.add_subplot(grid[rows, :]), read_goodput(folder))
    figure.savefig(folder / REPORT, dpi=110)
    return folder / REPORT


def column(metrics: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Return a field of every line, float64 [steps]; NaN where it is null or not there."""
    return np.array([line.get(name) for line in metrics], np.float64)


def smooth(values: np.ndarray) -> np.ndarray:
    """Running mean over a twentieth of the values, shorter at the ends, of those that are finite."""
    half = max(1, len(values) // 40)
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    ends = np.minimum(np.arange(len(values)) + half + 1, len(values))
    starts = np.maximum(np.arange(len(values)) - half, 0)
    with np.errstate(invalid="ignore"):
        return (sums[ends] - sums[starts]) / (counts[ends] - counts[starts])


def _draw_metric(panel: Any, metric: Metric, metrics: Sequence[Mapping[str, Any]]) -> None:
    """One curve over the steps."""
    steps, values = column(metrics, "step"), column(metrics, metric.name)
    panel.plot(steps, values, color=_THIN if metric.noisy else _THICK, linewidth=0.8 if metric.noisy else 1.6)
    if metric.noisy:
        panel.plot(steps, smooth(values), color=_THICK, linewidth=1.6)
    if metric.name in TIMED:  # a step that was logged late, as after a save, seems fast beyond measure
        panel.set_ylim(0, 1.5 * np.nanpercentile(values, 90))
    _plain(panel, metric.panel)


def _plain(panel: Any, title: str) -> None:
    panel.set_title(title, fontsize=10)
    panel.grid(color=_GRID)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)
    panel.locator_params(axis="x", integer=True)  # steps


def _evaluated_groups(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of each panel of what was evaluated, by title: losses together, each score alone."""
    losses = [name for name in names if smaller_is_better(name) and name.startswith(f"{PREFIX}loss")]
    others = {name.removeprefix(PREFIX): [name] for name in names if name not in losses}
    if len(losses) == 2:  # that of all and that of the only source
        losses = losses[:1]
    return ({HELD_OUT: losses} if losses else {}) | others


def draw_evaluated(panel: Any, title: str, evaluated: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Draw the curves `names` of the lines of evaluations, a mark at each of their steps."""
    steps = column(evaluated, "step")
    for number, name in enumerate(names):
        values = column(evaluated, name)
        there = np.isfinite(values)
        color = _THICK if not number else f"C{number}"
        label = "held out" if name == f"{PREFIX}loss" else name.removeprefix(f"{PREFIX}loss/").removeprefix(PREFIX)
        panel.plot(steps[there], values[there], color=color, linewidth=1.6, marker="o", markersize=3, label=label)
    if len(panel.get_lines()) > 1:
        panel.legend(fontsize=7, frameon=False)
    _plain(panel, title)


def _draw_goodput(panel: Any, sessions: Sequence[Mapping[str, Any]]) -> None:
    """One bar of all sessions' time by kind."""
    panel.axis("off")
    seconds = {kind: sum(s["seconds"].get(kind, 0.0) for s in sessions) for kind in KINDS}
    total = sum(seconds.values())
    if not total:
        return
    left = 0.0
    for kind in ("step", *KINDS[:-1]):
        panel.barh([0], [seconds[kind] / total], left=left, color=_COLORS[kind], label=kind, height=0.6)
        left += seconds[kind] / total
    steps = sum(s["last_step"] - s["first_step"] for s in sessions)
    many = f"{len(sessions)} sessions, " if len(sessions) > 1 else ""
    panel.set_title(f"goodput: {many}{describe(seconds, steps)}", fontsize=9)
    panel.legend(ncols=len(KINDS), loc="upper center", bbox_to_anchor=(0.5, 0.12), fontsize=8, frameon=False)
    panel.set_xlim(0, 1)
