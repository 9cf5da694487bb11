"""Draws docs/architecture.svg and .png, the README's image of EVEv2 in eve_jax: `python docs/architecture.py`.

Units are pixels of the README, y grows downwards. The row shown holds two samples and three empty slots.
"""

import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path as Curve

WIDTH, HEIGHT = 940, 796
LEFT, PITCH, CELL = 32.0, 19.0, 16.0  # of the slots of a row
VISION_SLOTS, TEXT_SLOTS = (0, 21), (22, 36)
NOTES = 770  # left edge of the notes
ROW, LAYER, HEAD = 224, 274, 714  # tops of the packed row, the decoder layer, the head

INK, MUTED, LINE, PANEL = "#1f2933", "#52606d", "#9aa5b1", "#f4f6f8"
VISION, VISION_FILL = "#2b6cb0", "#dbeafe"
TEXT, TEXT_FILL = "#c05f0f", "#fdebd3"
TARGET, TARGET_FILL = "#1f9d55", "#d3f3e0"

GRIDS = ((3, 4), (1, 2))  # patches of the two images
TOKENS = (
    ("USER:", "What", "is", "left", "?", "ASSISTANT:", "A", "house", "<end>"),
    ("USER:", "Read", "ASSISTANT:", "open", "<end>"),
)
TARGETS = (3, 2)  # tokens at the end of each sample that are predicted


class Slot(NamedTuple):
    """A slot of the row; `sample` is -1 when it is empty, `number` counts within the kind and sample."""

    kind: str
    sample: int
    number: int

    @property
    def target(self) -> bool:
        """True for a token that the model learns to predict."""
        return self.kind == "text" and self.number >= len(TOKENS[self.sample]) - TARGETS[self.sample]


def packed_row() -> list[Slot]:
    """Slots in memory order: patches, specials, text."""
    row = [Slot("patch", s, i) for s, (h, w) in enumerate(GRIDS) for i in range(h * w)] + [Slot("patch", -1, 0)] * 2
    row += [Slot("special", s, i) for s, (h, _) in enumerate(GRIDS) for i in range(h + 1)]
    return row + [Slot("text", s, i) for s, t in enumerate(TOKENS) for i in range(len(t))] + [Slot("text", -1, 0)]


def causal_order(row: list[Slot]) -> list[int]:
    """Slots as attention sees them: `USER:`, image (a split token ends each line of patches), text; empty last."""

    def key(slot: int) -> tuple[int, int, float]:
        kind, sample, i = row[slot]
        if sample < 0:
            return len(GRIDS), 0, slot
        if kind == "text":
            return sample, min(i, 1), i - 1
        return sample, 0, 0.5 + (i if kind == "patch" else i * GRIDS[sample][1] - 0.5)

    return sorted(range(len(row)), key=key)


def picture(index: int, side: int = 96) -> np.ndarray:
    """The image of a sample, RGB [h * side, w * side, 3] from 0 to 1."""
    h, w = GRIDS[index]
    y, x = np.mgrid[0 : h * side, 0 : w * side] / side
    if index == 1:
        board = (abs(y - 0.5) < 0.34) & (abs(x - 1) < 0.86)
        return np.where(board[..., None], (0.80, 0.16, 0.18), (0.87, 0.90, 0.93))
    rgb = np.stack([0.62 + 0.10 * y, 0.80 + 0.05 * y, 0.97 - 0.02 * y], axis=-1)
    rgb[(x - 3.35) ** 2 + (y - 0.55) ** 2 < 0.09] = (1.0, 0.82, 0.25)  # sun
    rgb[y > 2.15 - 0.18 * np.sin(1.5 * x)] = (0.55, 0.76, 0.42)  # meadow
    rgb[(abs(x - 1.15) < 0.62) & (y > 1.25) & (y < 2.45)] = (0.93, 0.87, 0.76)  # house
    rgb[(y < 1.30) & (y > 0.50 + 0.9 * abs(x - 1.15))] = (0.78, 0.28, 0.24)  # roof
    rgb[(abs(x - 0.90) < 0.16) & (y > 1.85) & (y < 2.45)] = (0.48, 0.30, 0.20)  # door
    rgb[(abs(x - 1.45) < 0.17) & (abs(y - 1.72) < 0.17)] = (0.45, 0.68, 0.86)  # window
    rgb[(abs(x - 2.85) < 0.10) & (y > 1.7) & (y < 2.6)] = (0.45, 0.30, 0.20)  # trunk
    rgb[((x - 2.85) / 0.52) ** 2 + ((y - 1.35) / 0.62) ** 2 < 1] = (0.22, 0.55, 0.30)  # leaves
    return rgb


REMARKS = (  # y of the title, from there to the text, both
    (36, 18, "No vision encoder", "Pixels become tokens in two small convolutions learned from scratch."),
    (ROW - 20, 18, "Packed rows", "Samples share a row; its slots lie patches first, then specials, then text."),
    (LAYER + 22, 18, "Routing is a slice", "Each token meets weights of its own kind: 7 of 14 billion are at work."),
    (LAYER + 124, 143, "Joint attention", "In causal order: to all earlier tokens of the sample, of both kinds."),
    (HEAD - 10, 18, "Loss on targets", "No logits for pixels or prompts: only positions that predict a target."),
)
PICTURES = [picture(i) for i in range(len(GRIDS))]


def left_of(slot: int) -> float:
    return LEFT + slot * PITCH


def span(slots: tuple[int, int]) -> tuple[float, float, float]:
    """Left edge, center and width of the slots first..last."""
    width = (slots[1] - slots[0]) * PITCH + CELL
    return left_of(slots[0]), left_of(slots[0]) + width / 2, width


def label(ax: Axes, x: float, y: float, text: str, size: float = 12, color: str = INK, **kwargs: Any) -> None:
    """Text of `size` pixels, centerd unless told otherwise."""
    ax.text(x, y, text, fontsize=size * 0.72, color=color, **{"ha": "center", "va": "center"} | kwargs)


def box(ax: Axes, x: float, y: float, w: float, h: float, edge: str, fill: str, text: str = "") -> None:
    style = "round,pad=0,rounding_size=5"
    ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, facecolor=fill, edgecolor=edge, zorder=1))
    label(ax, x + w / 2, y + h / 2, text, zorder=3)


def chip(ax: Axes, x: float, y: float, token: str, target: bool) -> float:
    """A token in a box; returns its width."""
    edge, fill = (TARGET, TARGET_FILL) if target else (TEXT, TEXT_FILL)
    width = 7 * len(token) + 9
    ax.add_patch(Rectangle((x, y), width, 19, facecolor=fill, edgecolor=edge))
    label(ax, x + width / 2, y + 9.5, token, 11)
    return width


def line(ax: Axes, *points: tuple[float, float], color: str = MUTED, head: bool = True) -> None:
    """A line through `points`, with an arrow head at its end."""
    style = "-|>,head_length=4.5,head_width=2.4" if head else "-"
    ax.add_patch(FancyArrowPatch(path=Curve(points), arrowstyle=style, color=color, joinstyle="miter", zorder=1))


def cell(ax: Axes, x: float, y: float, edge: str, fill: str) -> None:
    """A slot; an empty one, without a fill of its own, is dotted."""
    style = ":" if fill == "white" else "-"
    ax.add_patch(Rectangle((x, y), CELL, CELL, facecolor=fill, edgecolor=edge, linestyle=style, zorder=3))


def brace(ax: Axes, slots: tuple[int, int], y: float, text: str, color: str) -> None:
    """A bracket below the slots first..last, with its name."""
    x, center, width = span(slots)
    ax.plot([x, x, x + width, x + width], [y, y + 4, y + 4, y], color=color, linewidth=1.1)
    label(ax, center, y + 13, text, 11.5, color)


def draw_row(ax: Axes, y: float, row: list[Slot]) -> None:
    """Slots side by side: patches as they look, c for class, s for split, text in orange, targets in green."""
    for n, slot in enumerate(row):
        x, edge, fill = left_of(n), VISION, "none"
        if slot.sample < 0:
            edge, fill = LINE, "white"
        elif slot.kind == "patch":
            i, j = divmod(slot.number, GRIDS[slot.sample][1])
            crop = PICTURES[slot.sample][i * 96 : i * 96 + 96 : 2, j * 96 : j * 96 + 96 : 2]
            ax.imshow(crop, extent=(x, x + CELL, y + CELL, y), interpolation="nearest", zorder=2)
        elif slot.kind == "special":
            fill = VISION_FILL
            label(ax, x + CELL / 2, y + CELL / 2, "s" if slot.number else "c", 11, VISION, weight="bold", zorder=4)
        else:
            edge, fill = (TARGET, TARGET_FILL) if slot.target else (TEXT, TEXT_FILL)
        cell(ax, x, y, edge, fill)


def draw_inputs(ax: Axes) -> None:
    """Images, text, and the layers that make tokens of them."""
    label(ax, LEFT, 20, "images in their own sizes, in patches of 32 × 32 pixels", 12, MUTED, ha="left")
    for (h, w), rgb, (x, y) in zip(GRIDS, PICTURES, ((LEFT, 36), (LEFT + 164, 106)), strict=True):
        ax.imshow(rgb, extent=(x, x + w * 35, y + h * 35, y), interpolation="bilinear")
        for i in range(1, h):
            ax.plot([x, x + w * 35], [y + i * 35] * 2, color="white", linewidth=1.6)
        for i in range(1, w):
            ax.plot([x + i * 35] * 2, [y, y + h * 35], color="white", linewidth=1.6)
    label(ax, LEFT + 199, 123.5, "OPEN", 15, "white", weight="bold", zorder=1)
    left = left_of(TEXT_SLOTS[0])
    label(ax, left, 20, "conversations or captions", 12, MUTED, ha="left")
    for y, sample, first, last in ((36, 0, 0, 5), (60, 0, 5, 9), (106, 1, 0, 5)):
        x = left
        for i in range(first, last):
            x += 4 + chip(ax, x, y, TOKENS[sample][i], Slot("text", sample, i).target)
    layers = (
        ((0, 15), VISION, VISION_FILL, "patch embedding: conv 16×16, GELU, conv 2×2"),
        ((16, 21), VISION, VISION_FILL, "learned vectors"),
        (TEXT_SLOTS, TEXT, TEXT_FILL, "word embedding"),
    )
    for slots, edge, fill, text in layers:
        x, center, width = span(slots)
        box(ax, x, 170, width, 28, edge, fill, text)
        line(ax, (center, 198), (center, ROW - 3))
        if slots[0] != 16:
            line(ax, (center, 147), (center, 169))


def draw_permutation(ax: Axes, top: float, bottom: float, pairs: list[tuple[int, int]], row: list[Slot]) -> None:
    """Curves from the upper to the lower position of each pair; `row` has the slots in the order of the pairs."""
    for (upper, lower), slot in zip(pairs, row, strict=True):
        if slot.sample < 0:
            continue
        a, b, middle = left_of(upper) + CELL / 2, left_of(lower) + CELL / 2, (top + bottom) / 2
        curve = Curve([(a, top), (a, middle), (b, middle), (b, bottom)], [Curve.MOVETO] + [Curve.CURVE4] * 3)
        color, alpha = TEXT if slot.kind == "text" else VISION, 0.45 if slot.sample else 0.8
        ax.add_patch(PathPatch(curve, facecolor="none", edgecolor=color, linewidth=0.9, alpha=alpha))


def draw_column(ax: Axes, slots: tuple[int, int], stream: float, edge: str, fill: str, name: str) -> None:
    """What a decoder layer holds for one kind of token; `stream` is the x of the residual connection."""
    x, center, width = span(slots)
    label(ax, center + 10, LAYER + 13, name, 12.5, edge, ha="left", weight="bold")
    for dy, text in ((36, "RMSNorm"), (72, "q, k, v"), (238, "o"), (308, "RMSNorm"), (344, "MLP (SwiGLU)")):
        box(ax, x, LAYER + dy, width, 24, edge, fill, text)
    for start, end in ((-10, 35), (60, 71), (262, 274), (286, 307), (332, 343), (368, 379), (391, 412)):
        line(ax, (center, LAYER + start), (center, LAYER + end), head=start != 391)
    for branch, add in ((24, 280), (296, 385)):
        rim = center + (6 if stream > center else -6)
        line(ax, *((x, LAYER + y) for x, y in ((center, branch), (stream, branch), (stream, add), (rim, add))))
        ax.add_patch(Circle((center, LAYER + add), 6, facecolor="white", edgecolor=MUTED, zorder=2))
        label(ax, center, LAYER + add - 0.5, "+", 12, MUTED, zorder=3)


def draw_layer(ax: Axes, row: list[Slot]) -> None:
    """The decoder layer: two sets of weights side by side, one attention between them."""
    box(ax, 8, LAYER, 747, 402, LINE, PANEL)
    label(ax, 26, LAYER + 13, "decoder layer × N", 12.5, weight="bold", ha="left")
    draw_column(ax, VISION_SLOTS, 20, VISION, VISION_FILL, "vision weights")
    draw_column(ax, TEXT_SLOTS, 743, TEXT, TEXT_FILL, "text weights")
    order = causal_order(row)
    causal = [row[n] for n in order]
    draw_permutation(ax, LAYER + 97, LAYER + 143, [(s, c) for c, s in enumerate(order)], causal)
    draw_row(ax, LAYER + 145, causal)
    brace(ax, (0, 24), LAYER + 165, "sample 1", MUTED)
    brace(ax, (25, 33), LAYER + 165, "sample 2", MUTED)
    draw_permutation(ax, LAYER + 187, LAYER + 237, list(enumerate(order)), causal)
    draw_mask(ax, NOTES, LAYER + 148, causal)


def draw_mask(ax: Axes, x: float, y: float, causal: list[Slot]) -> None:
    """Who sees whom: a row per query, a column per key, colored by the kind of the key, 3 pixels each."""
    n = 3 * len(causal)
    ax.add_patch(Rectangle((x, y), n, n, facecolor="white", edgecolor=LINE, linewidth=0.8))
    for i, query in enumerate(causal):
        for j, key in enumerate(causal[: i + 1]):
            if query.sample == key.sample >= 0:
                color = "#f0a35e" if key.kind == "text" else "#6ea8e0"
                ax.add_patch(Rectangle((x + 3 * j, y + 3 * i), 2.5, 2.5, facecolor=color))


def draw_head(ax: Axes, row: list[Slot]) -> None:
    """Logits where there is something to predict, and nowhere else."""
    x, _, width = span(TEXT_SLOTS)
    for slots, color in ((VISION_SLOTS, VISION), (TEXT_SLOTS, TEXT)):
        start, _, length = span(slots)
        line(ax, (start, HEAD - 28), (start + length, HEAD - 28), color=color, head=False)
    for n, following in enumerate(row[1:]):
        if following.sample >= 0 and following.target:
            line(ax, (left_of(n) + CELL / 2, HEAD - 28), (left_of(n) + CELL / 2, HEAD - 1), color=TARGET)
    box(ax, x, HEAD, width, 28, TEXT, TEXT_FILL, "final norm, LM head")
    tokens = [t for sample, n in zip(TOKENS, TARGETS, strict=True) for t in sample[-n:]]
    x += 20
    for token in tokens:
        w = chip(ax, x, HEAD + 48, token, True)
        line(ax, (x + w / 2, HEAD + 28), (x + w / 2, HEAD + 46), color=TARGET)
        x += w + (20 if token == "<end>" else 4)


def draw_legend(ax: Axes) -> None:
    for dx, text, edge, fill in (
        (0, "image token", VISION, VISION_FILL),
        (112, "text token", TEXT, TEXT_FILL),
        (214, "predicted token", TARGET, TARGET_FILL),
        (352, "empty", LINE, "white"),
    ):
        cell(ax, LEFT + dx, HEAD + 49, edge, fill)
        label(ax, LEFT + dx + CELL + 6, HEAD + 49 + CELL / 2, text, 11.5, MUTED, ha="left")


def main() -> None:
    plt.rcParams.update({"font.family": "DejaVu Sans", "patch.linewidth": 1.1, "svg.hashsalt": "eve_jax"})
    figure = plt.figure(figsize=(WIDTH / 100, HEIGHT / 100), facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1))
    row = packed_row()
    draw_inputs(ax)
    draw_row(ax, ROW, row)
    brace(ax, (0, 15), ROW + 20, "patches", VISION)
    brace(ax, (16, 21), ROW + 20, "c class, s split", VISION)
    brace(ax, TEXT_SLOTS, ROW + 20, "text", TEXT)
    draw_layer(ax, row)
    draw_head(ax, row)
    draw_legend(ax)
    for y, down, title, text in REMARKS:
        label(ax, NOTES, y, title, 12.5, weight="bold", ha="left", va="top")
        label(ax, NOTES, y + down, textwrap.fill(text, 26), 11.5, MUTED, ha="left", va="top", linespacing=1.35)
    ax.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0), aspect="auto")
    ax.axis("off")
    figure.savefig(Path(__file__).with_suffix(".svg"), dpi=200, metadata={"Date": None})
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=200)


if __name__ == "__main__":
    main()
