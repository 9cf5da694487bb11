"""The image of an experiment: means with standard errors, and every seed by itself, thin."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eve_jax.errors import amount
from eve_jax.experiments.config import ExperimentConfig, stage_name
from eve_jax.experiments.gather import ACCURACY, MEASURES, TEXT_LOSS, Gathered, Measure
from eve_jax.experiments.statistics import Table, spread
from eve_jax.train.metrics import read_metrics
from eve_jax.train.report import column, smooth

COLUMNS = 3  # of panels
COLORS = ("#7b818c", "#d9822b", "#2f6fd0", "#16803c", "#7a5ea8", "#c8553d", "#2f8f8b", "#b0862c")


def draw(experiment: ExperimentConfig, found: Gathered, workdir: Path, path: Path) -> None:
    """Draw `path`: the training loss of the curve's stage, then a panel a measure as `experiment.chart` says."""
    shown = [measure for measure in MEASURES if measure.key in found.tables]
    scatter = experiment.chart == "scatter" and {ACCURACY, TEXT_LOSS} <= {*shown}
    panels = bool(experiment.curve) + len(shown) + scatter
    rows, columns = -(-panels // COLUMNS), min(panels, COLUMNS)
    figure = Figure(figsize=(4.4 * columns, 3.9 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = iter([figure.add_subplot(rows, columns, place + 1) for place in range(panels)])
    if experiment.curve:
        _draw_losses(next(axes), experiment, workdir)
    if scatter:
        _draw_scatter(next(axes), experiment, found)
    for measure in shown:
        steps = found.tables[measure.key]
        if experiment.chart == "curves" and len(steps) > 1:
            _draw_curves(next(axes), experiment, measure, steps, found.samples)
        else:
            _draw_bars(next(axes), experiment, measure, steps[0])
    figure.suptitle(f"{experiment.title} ({amount(experiment.seeds, 'seed')}; bars and bands: standard errors)")
    figure.savefig(path, dpi=120)


def _color(experiment: ExperimentConfig, arm: str) -> str:
    return COLORS[experiment.arms.index(arm) % len(COLORS)]


def _draw_losses(panel: Axes, experiment: ExperimentConfig, workdir: Path) -> None:
    for arm in experiment.arms:
        for seed in range(experiment.seeds):
            metrics = read_metrics(workdir / stage_name(arm, seed, experiment.curve))
            seen = np.cumsum(column(metrics, "samples"))
            label = experiment.labels[arm] if not seed else None
            color = _color(experiment, arm)
            panel.plot(seen, smooth(column(metrics, "loss")), color=color, linewidth=0.9, alpha=0.8, label=label)
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_formatter("{x:.3g}")
    panel.legend(fontsize=7, frameon=False)
    _finish(panel, f"training loss of {experiment.curve} (nats, running mean)", "samples seen")


def _draw_curves(
    panel: Axes,
    experiment: ExperimentConfig,
    measure: Measure,
    steps: Mapping[int, Mapping[str, Table]],
    samples: Mapping[str, Mapping[int, float]],
) -> None:
    order = [*sorted(step for step in steps if step), 0]
    for arm in experiment.arms:
        at, color = [samples[arm][step] for step in order], _color(experiment, arm)
        spreads = [spread(steps[step][arm] * measure.scale) for step in order]
        for seed in range(experiment.seeds):
            panel.plot(at, [one.seeds[seed] for one in spreads], color=color, linewidth=0.6, alpha=0.5)
        means = np.array([one.mean for one in spreads])
        errors = np.array([one.error or 0.0 for one in spreads])
        panel.plot(at, means, color=color, linewidth=1.8, marker="o", markersize=3, label=experiment.labels[arm])
        panel.fill_between(at, means - errors, means + errors, color=color, alpha=0.15, linewidth=0)
    _finish(panel, f"{measure.title} ({measure.unit})", f"samples seen in {experiment.curve}")


def _draw_bars(panel: Axes, experiment: ExperimentConfig, measure: Measure, arms: Mapping[str, Table]) -> None:
    for place, arm in enumerate(experiment.arms):
        found, color = spread(arms[arm] * measure.scale), _color(experiment, arm)
        panel.bar(place, found.mean, 0.7, yerr=found.error, color=color, ecolor="#1e2026", capsize=3)
        panel.scatter([place] * len(found.seeds), found.seeds, s=7, color="#1e2026", alpha=0.5, zorder=3)
    labels = [experiment.labels[arm] for arm in experiment.arms]
    panel.set_xticks(range(len(labels)), labels, rotation=40, ha="right")
    _finish(panel, f"{measure.title} ({measure.unit})", "")
    panel.set_ylim(bottom=0)


def _draw_scatter(panel: Axes, experiment: ExperimentConfig, found: Gathered) -> None:
    for arm in experiment.arms:
        x, y = (spread(found.tables[measure.key][0][arm] * measure.scale) for measure in (ACCURACY, TEXT_LOSS))
        color = _color(experiment, arm)
        panel.errorbar(x.mean, y.mean, xerr=x.error, yerr=y.error, color=color, fmt="o", label=experiment.labels[arm])
        panel.scatter(x.seeds, y.seeds, s=7, color=color, alpha=0.5)
    panel.legend(fontsize=7, frameon=False)
    _finish(panel, "text loss (nats) against accuracy (points)", "accuracy")


def _finish(panel: Any, title: str, below: str) -> None:
    panel.set_title(title, fontsize=9)
    panel.set_xlabel(below, fontsize=8)
    panel.grid(color="#ececf0")
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=7)
