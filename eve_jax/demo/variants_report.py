"""The table and the three images of a comparison of variants; nothing here runs a model."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from eve_jax.demo.report import TITLES
from eve_jax.eval.report.table import markdown_table
from eve_jax.model.config import TWICE, VARIANTS
from eve_jax.train.metrics import read_metrics
from eve_jax.train.report import column, smooth

COLORS = {"dense": "#7b818c", "rep": "#d9822b", "moe": "#2f6fd0", "dac": "#16803c"}
KINDS = {  # row of the figure -> weight of a layer, with `branch` for text or vision
    "q": "attn.q.branch.kernel",
    "k": "attn.k.branch.kernel",
    "v": "attn.v.branch.kernel",
    "o": "attn.o.branch.kernel",
    "gate": "mlp.branch.gate",
    "up": "mlp.branch.up",
    "down": "mlp.branch.down",
    "norm 1": "input_norm.branch.scale",
    "norm 2": "post_norm.branch.scale",
}


def table_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """The table as texts, its head first: accuracies, and the loss on held-out texts after every stage."""
    variants = report["variants"]
    stages = list(next(iter(variants.values()))["text_loss"])
    llm = report["llm"]["text_loss"]["all"]
    head = ["variant", "weights", "accuracy", "blank images", "text loss: LLM", *(f"after {stage}" for stage in stages)]
    rows = [
        [
            f"{v['name']} ({variant})",
            f"{v['parameters'] / 1e6:.1f} M",
            f"{v['accuracy']:.1%}",
            f"{v['blind_accuracy']:.1%}",
            f"{llm:.4f}",
            *(f"{v['text_loss'][stage]['all']:.4f}" for stage in stages),
        ]
        for variant, v in variants.items()
    ]
    return [head, *rows]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The rows, head first, as a Markdown table."""
    return "".join(f"{line}\n" for line in markdown_table(rows[0], rows[1:]))


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(panel: Axes) -> None:
    panel.grid(color="#ececf0")
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)


def draw_table(report: Mapping[str, Any], path: Path) -> None:
    """The table, and above it the accuracy by task and the losses on texts as bars."""
    variants = report["variants"]
    figure = _figure(11, 5)
    grid = figure.add_gridspec(2, 3, height_ratios=(3, 1.3))
    tasks, texts = figure.add_subplot(grid[0, :2]), figure.add_subplot(grid[0, 2])
    first = next(iter(variants.values()))
    names = ["all", *first["per_task"]]
    width = 0.8 / len(variants)
    for i, (variant, v) in enumerate(variants.items()):
        shares = [v["accuracy"], *(scores["accuracy"] for scores in v["per_task"].values())]
        at = np.arange(len(names)) + (i - (len(variants) - 1) / 2) * width
        tasks.bar(at, 100 * np.array(shares), width * 0.9, color=COLORS[variant], label=v["name"])
        losses = [v["text_loss"][stage]["all"] for stage in first["text_loss"]]
        texts.bar(at[: len(losses)], losses, width * 0.9, color=COLORS[variant])
    titles = [textwrap.fill(TITLES.get(name, name), 14) for name in names]
    tasks.set_xticks(range(len(names)), titles, fontsize=8)
    tasks.set_ylim(0, 112)  # the legend lies above the bars
    tasks.set_title(f"accuracy, % of {first['questions']} held-out questions", fontsize=10)
    tasks.legend(fontsize=8, frameon=False, ncols=len(variants))
    texts.axhline(report["llm"]["text_loss"]["all"], color="#1e2026", linewidth=1.2, linestyle="--", label="the LLM")
    texts.set_xticks(range(len(first["text_loss"])), [f"after {stage}" for stage in first["text_loss"]], fontsize=8)
    texts.set_title("loss on held-out texts (nats a target)", fontsize=10)
    texts.margins(y=0.25)
    texts.legend(fontsize=8, frameon=False, loc="upper center")
    _plain(tasks)
    _plain(texts)
    head, *rows = table_rows(report)
    below = figure.add_subplot(grid[1, :])
    below.axis("off")
    table = below.table(cellText=rows, colLabels=head, loc="center", cellLoc="center", edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    table.scale(1, 1.35)
    figure.savefig(path, dpi=120)


def draw_curves(folders: Mapping[str, Mapping[str, Path]], path: Path) -> None:
    """A panel a stage with the smoothed loss of every variant; `folders` maps variant and stage to a stage's folder."""
    stages = list(next(iter(folders.values())))
    figure = _figure(5.2 * len(stages), 3.8)
    panels = figure.subplots(1, len(stages), squeeze=False)[0]
    for panel, stage in zip(panels, stages, strict=True):
        for variant, own in folders.items():
            metrics = read_metrics(own[stage])
            losses = smooth(column(metrics, "loss"))
            label = f"{variant}: {losses[-1]:.3f}"
            panel.plot([m["step"] for m in metrics], losses, color=COLORS[variant], linewidth=1.5, label=label)
        panel.set_title(stage, fontsize=10)
        panel.set_xlabel("step", fontsize=9)
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_locator(NullLocator())
        panel.legend(fontsize=8, frameon=False)
        _plain(panel)
    panels[0].set_ylabel("training loss (nats a target), running mean", fontsize=9)
    figure.savefig(path, dpi=120)


def draw_changes(report: Mapping[str, Any], path: Path) -> None:
    """A panel for each set of weights of each variant: mean absolute change by layer and kind, on one color scale."""
    changes = {}
    for variant, v in report["variants"].items():
        for branch in ("text", "vision"):
            grid = _grid(v["weight_change"], branch)
            if not np.isnan(grid).all():
                shared = "" if branch == "vision" or set(VARIANTS[variant]) & set(TWICE) else ", all tokens"
                changes[f"{v['name']} ({variant})\n{branch} weights{shared}"] = grid
    largest = max(np.nanmax(grid) for grid in changes.values())
    scale = LogNorm(largest / 100, largest)
    figure = _figure(2.1 * len(changes) + 1, 3.6)
    panels = figure.subplots(1, len(changes), squeeze=False, sharey=True)[0]
    for panel, (title, grid) in zip(panels, changes.items(), strict=True):
        panel.imshow(grid, cmap="viridis", norm=scale, aspect="auto")
        panel.set_title(title, fontsize=8.5)
        panel.set_xlabel("layer", fontsize=9)
        panel.set_xticks(range(grid.shape[1]))
        panel.set_yticks(range(len(KINDS)), list(KINDS))
        panel.tick_params(labelsize=8, length=0)
        panel.set_facecolor("#ececf0")
    figure.colorbar(ScalarMappable(scale), ax=list(panels), label="mean |change| from the LLM")
    figure.savefig(path, dpi=120)


def _grid(changes: Mapping[str, list[float]], branch: str) -> np.ndarray:
    """[kinds, layers], NaN where there is no such weight."""
    layers = len(next(iter(changes.values())))
    rows = [changes.get(f"layers.{name.replace('branch', branch)}", [np.nan] * layers) for name in KINDS.values()]
    return np.array(rows)
