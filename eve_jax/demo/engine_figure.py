"""The image of the engine's demo, Fig. 6 of the EVEv2 paper in small: captions, and what is learned from them."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eve_jax.demo.loop_config import CAPTIONED, RAW, RECAPTIONED, SETS
from eve_jax.demo.report import TITLES

COLORS = {RAW: "#7b818c", CAPTIONED: "#2f6fd0", RECAPTIONED: "#16803c"}
SAYS = {
    "recall": "of what is there is named",
    "precision": "of what is named is there",
    "exact": "captions quite right",
}


def draw_engine(report: Mapping[str, Any], path: Path) -> None:
    """Draw the image: captions against the truth, loss while students learn, accuracies with standard errors."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3, width_ratios=(2, 2.2, 3.6))
    _draw_quality(left, report["captions"])
    _draw_losses(middle, report["unseen_loss"])
    _draw_accuracies(right, report["accuracy"])
    for panel in (left, middle, right):
        panel.grid(color="#ececf0")
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    figure.savefig(path, dpi=130)


def _offsets(count: int, place: int) -> tuple[float, float]:
    """Return where the bars of one of `count` sets stand from their middle, and how wide they are."""
    width = 0.8 / count
    return (place - (count - 1) / 2) * width, width * 0.9


def _draw_quality(panel: Axes, quality: Mapping[str, Any]) -> None:
    for place, (name, own) in enumerate(quality.items()):
        offset, width = _offsets(len(quality), place)
        panel.bar(np.arange(len(SAYS)) + offset, [100 * own[key] for key in SAYS], width, color=COLORS[name])
    panel.set_xticks(range(len(SAYS)), [textwrap.fill(text, 14) for text in SAYS.values()])
    panel.set_ylim(0, 105)
    panel.set_title("the captions, %", fontsize=10)


def _draw_losses(panel: Axes, losses: Mapping[str, Any]) -> None:
    for name, own in losses.items():
        values = np.array(own["losses"], float)
        middle, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))
        panel.plot(own["steps"], middle, color=COLORS[name], marker="o", markersize=3)
        panel.fill_between(own["steps"], middle - error, middle + error, color=COLORS[name], alpha=0.2, linewidth=0)
    panel.set_xlabel("step of pre-training on captions", fontsize=9)
    panel.set_title("loss on right captions of unseen compositions, nats", fontsize=10)


def _draw_accuracies(panel: Axes, accuracy: Mapping[str, Any]) -> None:
    tasks = list(next(iter(accuracy.values())))
    for place, (name, own) in enumerate(accuracy.items()):
        offset, width = _offsets(len(accuracy), place)
        values, errors = ([100 * own[task][key] for task in tasks] for key in ("mean", "error"))
        at, label = np.arange(len(tasks)) + offset, f"{name}: {SETS[name]}"
        panel.bar(at, values, width, yerr=errors, color=COLORS[name], label=label, ecolor="#1e2026", capsize=2)
    panel.set_xticks(range(len(tasks)), [textwrap.fill(TITLES.get(task, task), 12) for task in tasks])
    panel.set_ylim(0, 132)  # the legend lies above the bars
    panel.set_yticks(range(0, 101, 20))
    seeds = len(next(iter(accuracy.values()))[tasks[0]]["seeds"])
    panel.set_title(f"held-out questions right, %, mean and standard error of {seeds} seeds", fontsize=10)
    panel.legend(fontsize=8, frameon=False, loc="upper right")
