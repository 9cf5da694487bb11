"""What a report of a curation or of captions shows, apart from how it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from eve_jax.curate.experts.form import Findings
from eve_jax.data.image_file import ImageFile
from eve_jax.errors import amount

PAPER_RATE = 87_500  # captions a GPU-day: 700,000 on a node of eight A100 (arXiv 2407.08303, appendix)
BINS = 24
KEPT = "kept"  # the verdict of a card that is not rejected


@dataclass(frozen=True)
class Loss:
    """Records that a rule left out: the stage it belongs to, and how many they are."""

    stage: str
    rule: str
    count: int

    @property
    def title(self) -> str:
        """Return the title of its sheet."""
        return f"{self.stage}, {self.rule}: {amount(self.count, 'record')}"


class Histogram(NamedTuple):
    """How often values occur: counts [n] between edges [n + 1]; `mark` is a threshold, None for none."""

    title: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    mark: float | None = None
    log: bool = False  # whether the edges grow by a factor


@dataclass(frozen=True)
class Card:
    """An image and what is known about it.

    Attributes:
        id: of the record.
        file: the image, None where there is none.
        about: lines below it: its place, a rule and the value it looked at.
        findings: what experts found.
        alt, caption: texts, "" for none.
        verdict: "kept", or the rule by which it was rejected.
    """

    id: str
    file: ImageFile | None = None
    about: tuple[str, ...] = ()
    findings: Findings = field(default_factory=dict)
    alt: str = ""
    caption: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Group:
    """Cards that belong together under a title: a cluster, a pair of near-copies, a rule."""

    title: str
    cards: Sequence[Card]


@dataclass(frozen=True)
class Content:
    """Everything that a report shows; what is empty is left out.

    Attributes:
        title: of the page.
        facts: names and texts.
        total: records at the beginning.
        losses: what each rule left out, in the order of the rules.
        kept: records at the end.
        histograms: of the measured values.
        samples: images with what experts found, web caption, caption and verdict.
        clusters, copies, rejected: sheets.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    total: int
    losses: Sequence[Loss]
    kept: int
    histograms: Sequence[Histogram] = ()
    samples: Sequence[Card] = ()
    clusters: Sequence[Group] = ()
    copies: Sequence[Group] = ()
    rejected: Sequence[Group] = ()

    def remaining(self) -> list[tuple[str, int]]:
        """Return what is left at first, and after each rule."""
        left, steps = self.total, [("records", self.total)]
        for loss in self.losses:
            left -= loss.count
            steps.append((f"{loss.stage}: {loss.rule}", left))
        return steps


def histogram(title: str, values: np.ndarray, mark: float | None = None, log: bool = False) -> Histogram | None:
    """Return the histogram of the finite `values` [n]; None without any.

    mark: a threshold, which the range takes in; 0 is none. log: edges grow by a factor, for values above 0 alone.
    """
    values = values[np.isfinite(values)]
    values = values[values > 0] if log else values
    if not values.size:
        return None
    mark = mark or None
    low, high = (float(end) for end in (min(values.min(), mark or np.inf), max(values.max(), mark or -np.inf)))
    if low == high:
        low, high = (low / 1.5, high * 1.5) if log else (low - 0.5, high + 0.5)
    edges = np.geomspace(low, high, BINS + 1) if log else np.linspace(low, high, BINS + 1)
    edges[0], edges[-1] = low, high  # geomspace may round its ends inwards
    counts, _ = np.histogram(values, edges)
    return Histogram(title, tuple(edges.tolist()), tuple(counts.tolist()), mark, log)


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` places of `count`, at equal distances: nothing else chooses what is shown."""
    shown = min(most, count)
    return [number * count // shown for number in range(shown)]
