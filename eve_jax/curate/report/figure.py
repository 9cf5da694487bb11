"""report.png: the funnel, the distributions and some images of a report, as one image."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import NullLocator

from eve_jax.curate.experts.draw import draw_findings
from eve_jax.curate.report.content import KEPT, Card, Content, Group, Histogram
from eve_jax.data.image.patches import open_image
from eve_jax.data.view.document import visible
from eve_jax.errors import UserError, clip

WIDTH, DPI = 13.0, 100  # inches, pixels an inch
COLUMNS = 4  # of samples and of histograms
MOST_SAMPLES, MOST_CLUSTERS, MOST_OF_CLUSTER = 8, 12, 9
BLUE, GRAY, RED, GREEN, INK = "#2f6fd0", "#d5d8de", "#ce2c32", "#168a48", "#1e2026"
TICKS = 4  # of an axis by factors
SIDE = 320  # pixels of the longer side of an image


def draw_report(content: Content, path: Path) -> None:
    """Write the image of `content`. Raises OSError."""
    histograms, samples, clusters = content.histograms, content.samples[:MOST_SAMPLES], content.clusters[:MOST_CLUSTERS]
    heights = [
        0.5 + max(0.24 * (len(content.losses) + 1), 0.2 * _fact_lines(content).count("\n")),
        2.2 * -(-len(histograms) // COLUMNS),
        3.9 * -(-len(samples) // COLUMNS),
        0.72 * -(-len(clusters) // 2) + 0.4 if clusters else 0,
    ]
    parts = [k for k, height in enumerate(heights) if height]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_plain(content.title), fontsize=14, color=INK)
    rows = figure.subfigures(len(parts), 1, squeeze=False, height_ratios=[heights[k] for k in parts])[:, 0]
    drawers = (
        lambda part: _draw_funnel(content, part),
        lambda part: _draw_histograms(histograms, part),
        lambda part: _draw_samples(samples, part),
        lambda part: _draw_clusters(clusters, part),
    )
    for part, row in zip(parts, rows, strict=True):
        drawers[part](row)
    figure.savefig(path, dpi=DPI, format="png")


def _plain(text: str) -> str:
    """Return text that matplotlib draws as it is: "$" would begin a formula."""
    return visible(text).replace("$", r"\$")


def _draw_funnel(content: Content, part: SubFigure) -> None:
    """Draw a bar of what is left after each rule, and the facts next to it."""
    bars, facts = part.subplots(1, 2, width_ratios=(2, 1))
    steps = content.remaining()
    names = [_plain(clip(name, 40)) for name, _ in steps]
    places = range(len(steps))
    bars.barh(places, [content.total] * len(steps), color=GRAY, height=0.7)
    bars.barh(places, [left for _, left in steps], color=BLUE, height=0.7)
    for place, (_, left) in enumerate(steps):
        share = f"  ({left / content.total:.1%})" if content.total else ""
        bars.text(content.total * 1.01, place, f"{left:,}{share}", va="center", fontsize=8, color=INK)
    bars.set_yticks(places, names, fontsize=8)
    bars.set_ylim(max(len(steps), 6) - 0.4, -0.6)  # few bars are no thicker than many
    bars.set_xlim(0, max(content.total, 1) * 1.18)
    bars.set_xticks([])
    bars.spines[:].set_visible(False)
    facts.axis("off")
    facts.text(0, 1, _plain(_fact_lines(content)), va="top", fontsize=8, color=INK, linespacing=1.6)


def _fact_lines(content: Content) -> str:
    lines = [textwrap.fill(clip(f"{name}: {text}", 160), 60, subsequent_indent="  ") for name, text in content.facts]
    return "\n".join(lines)


def _grid(part: SubFigure, count: int) -> list[Axes]:
    rows = -(-count // COLUMNS)
    panels = [*part.subplots(rows, COLUMNS, squeeze=False).flat]
    for panel in panels[count:]:
        panel.axis("off")
    return panels[:count]


def _draw_histograms(histograms: Sequence[Histogram], part: SubFigure) -> None:
    for panel, one in zip(_grid(part, len(histograms)), histograms, strict=True):
        panel.stairs(one.counts, one.edges, fill=True, color=BLUE)
        if one.log:
            panel.set_xscale("log")
            ticks = np.geomspace(one.edges[0], one.edges[-1], TICKS)  # by itself it labels powers of ten alone
            panel.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
            panel.xaxis.set_minor_locator(NullLocator())
        if one.mark is not None:
            panel.axvline(one.mark, color=RED, linestyle="--", linewidth=1)
        panel.set_title(_plain(one.title), fontsize=9)
        panel.tick_params(which="both", labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)


def _draw_samples(cards: Sequence[Card], part: SubFigure) -> None:
    """Draw images with their findings, below them web caption and caption."""
    for panel, card in zip(_grid(part, len(cards)), cards, strict=True):
        _show(panel, card)
        tags = ", ".join(f"{one['name']} {one['score']:.2f}" for one in card.findings.get("tags", ()))
        lines = {"web": card.alt, "tags": tags, "caption": card.caption}
        text = "\n".join(textwrap.fill(clip(f"{name}: {line}", 260), 46) for name, line in lines.items() if line)
        panel.set_title(_plain(card.verdict), fontsize=8, color=GREEN if card.verdict == KEPT else RED)
        panel.text(0, -0.04, _plain(text), fontsize=7, va="top", color=INK, transform=panel.transAxes)


def _draw_clusters(clusters: Sequence[Group], part: SubFigure) -> None:
    """Draw a strip of images for each cluster, two clusters in a row."""
    rows = -(-len(clusters) // 2)
    panels = part.subplots(rows, 2 * MOST_OF_CLUSTER + 1, squeeze=False)
    for panel in panels.flat:
        panel.axis("off")
    for number, cluster in enumerate(clusters):
        row, left = number % rows, number // rows * (MOST_OF_CLUSTER + 1)
        for place, card in enumerate(cluster.cards[:MOST_OF_CLUSTER]):
            _show(panels[row, left + place], card)
        panels[row, left].set_title(_plain(cluster.title), fontsize=7, loc="left", color=INK)


def _show(panel: Axes, card: Card) -> None:
    """Show the image of a card, or why it cannot be shown."""
    panel.axis("off")
    try:
        if card.file is None:
            raise UserError("no image")
        image = open_image(card.file)
        image.thumbnail((SIDE, SIDE), reducing_gap=2)
        panel.imshow(draw_findings(image, card.findings) if card.findings else image)
    except UserError as error:
        panel.text(0.5, 0.5, _plain(textwrap.fill(clip(str(error), 80), 20)), ha="center", va="center", fontsize=7)
