"""compare.png: the sheet of a comparison; nothing here runs a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eve_jax.compare.filters import sheet

COLORS = ("#7b818c", "#2f6fd0", "#16803c", "#d9822b", "#8a5bb5", "#b3292e", "#00889a", "#6b5b00")
NONE = "the model takes no images"


def draw(report: Mapping[str, Any], filters: Sequence[np.ndarray | None], path: Path) -> None:
    """Draw the numbers of `report` and the `filters` of its checkpoints into the file `path`."""
    panels = [*_weight_panels(report), *_number_panels(report), *_filter_panels(report, filters)]
    columns = 2
    rows = max(-(-len(panels) // columns), 1)
    figure = Figure(figsize=(15, 3.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        panel(axis)
    for axis in axes[len(panels) :]:
        axis.axis("off")
    figure.savefig(path, dpi=110)


def _weight_panels(report: Mapping[str, Any]) -> list[Any]:
    """For each checkpoint but the first and each kind of number: by layer, by kind."""
    panels = []
    base = report["checkpoints"][0]["name"]
    for name, found in report.get("weights", {}).items():
        for number, title in (("mean", "mean |change|"), ("relative", "sum |change| / sum |weight|")):
            about = f"{base} to {name}: {title}, %"

            def layers(axis: Axes, found: Any = found, number: str = number, about: str = about) -> None:
                groups = {g: v["by_layer"] for g, v in found["groups"].items() if v["by_layer"]}
                count = max((len(values) for values in groups.values()), default=0)
                _bars(axis, {g: [_percent(v[number]) for v in values] for g, values in groups.items()}, range(count))
                axis.set_xlabel("layer", fontsize=9)
                axis.set_title(f"{about}, by layer", fontsize=10)

            def kinds(axis: Axes, found: Any = found, number: str = number, about: str = about) -> None:
                names = list(dict.fromkeys(k for v in found["groups"].values() for k in v["by_kind"]))
                values = {
                    g: [_percent(v["by_kind"].get(k, {}).get(number)) for k in names]
                    for g, v in found["groups"].items()
                }
                _bars(axis, values, names)
                axis.set_title(f"{about}, by kind of weight", fontsize=10)

            panels += [layers, kinds]
    return panels


def _percent(value: float | None) -> float:
    return float("nan") if value is None else 100 * value


def _bars(axis: Axes, groups: Mapping[str, Sequence[float]], labels: Sequence[Any]) -> None:
    width = 0.8 / max(len(groups), 1)
    for number, (name, values) in enumerate(groups.items()):
        at = np.arange(len(values)) + (number - (len(groups) - 1) / 2) * width
        axis.bar(at, values, width * 0.92, label=name, color=COLORS[number % len(COLORS)])
    axis.set_xticks(range(len(labels)), [str(label) for label in labels], fontsize=8)
    if len(groups) > 1:
        axis.legend(fontsize=8, frameon=False)
    _plain(axis)


def _plain(axis: Axes) -> None:
    axis.grid(color="#ececf0", axis="y")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def _number_panels(report: Mapping[str, Any]) -> list[Any]:
    panels = []
    if texts := report.get("texts"):

        def losses(axis: Axes) -> None:
            files = list(next(iter(texts.values())))
            _bars(axis, {name: [own[file]["loss"] for file in files] for name, own in texts.items()}, files)
            axis.set_title("loss on texts, nats a token", fontsize=10)

        panels.append(losses)
    asked = {name: found for name, found in report.get("questions", {}).items() if found}
    if asked:

        def gap(axis: Axes) -> None:
            values = {"images": "loss", "blank images": "blank_loss"}
            _bars(axis, {label: [one[key] for one in asked.values()] for label, key in values.items()}, list(asked))
            count = next(iter(asked.values()))["n"]
            axis.set_title(f"loss of answers to {count} questions, nats a token", fontsize=10)

        def attention(axis: Axes) -> None:
            for number, (name, one) in enumerate(asked.items()):
                color = COLORS[number % len(COLORS)]
                axis.plot(100 * np.array(one["attention"]), color=color, marker="o", markersize=3, label=name)
                axis.axhline(100 * one["visible"], color=color, linewidth=0.8, linestyle=":")
            axis.set_xlabel("layer", fontsize=9)
            axis.set_ylim(0, 100)
            axis.legend(fontsize=8, frameon=False)
            title = "attention of answers on image tokens, % (dotted: their share of the tokens)"
            axis.set_title(title, fontsize=10)
            _plain(axis)

        panels += [gap, attention]
    return panels


def _filter_panels(report: Mapping[str, Any], filters: Sequence[np.ndarray | None]) -> list[Any]:
    panels = []
    for about, own in zip(report["checkpoints"], filters, strict=True):
        if own is None:
            continue

        def drawn(axis: Axes, own: np.ndarray = own, name: str = about["name"]) -> None:
            axis.imshow(sheet(own), interpolation="nearest")
            axis.axis("off")
            axis.set_title(f"{name}: the first {len(own)} filters of the patch embedding", fontsize=10)

        panels.append(drawn)
    return panels
