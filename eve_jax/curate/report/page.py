"""report.html: a curation or captions as one self-contained page (`document`): histograms are SVG, images data URLs."""

import math
from collections.abc import Sequence
from functools import partial

from PIL import Image

from eve_jax.curate.experts.draw import draw_findings
from eve_jax.curate.experts.form import Findings
from eve_jax.curate.report.content import KEPT, Card, Content, Group, Histogram
from eve_jax.data.view.document import document, escaped, html_table
from eve_jax.data.view.report_style import STYLE
from eve_jax.data.view.thumbnails import Thumbnails
from eve_jax.errors import clip

SAMPLE_SIDE, SMALL_SIDE = 384, 128  # pixels of the longer side of an image
SAMPLE_BYTES, SMALL_BYTES = 12 * 2**20, 8 * 2**20  # of all images of either size
MOST_TEXT = 1500  # characters

OWN_STYLE = """
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: .8rem }
.charts { display: flex; flex-wrap: wrap; gap: 1rem }
.charts figure { margin: 0 } .charts figcaption { font-size: .88rem }
.chart { display: block; width: 20rem; max-width: 100%; height: auto }
.chart rect { fill: var(--bar) } .chart path { stroke: var(--wrong); stroke-width: 1.5; stroke-dasharray: 4 3 }
.chart text { fill: var(--soft); font-size: 10px }
.group { margin: .6rem 0 1rem }
.strip { display: flex; flex-wrap: wrap; gap: .5rem; align-items: flex-start }
.strip figure { margin: 0; max-width: 10rem } .strip figcaption { font-size: .75rem; color: var(--soft);
  overflow-wrap: anywhere }
"""


def page_of(content: Content) -> str:
    """Return the page."""
    large, small = Thumbnails(SAMPLE_BYTES, SAMPLE_SIDE), Thumbnails(SMALL_BYTES, SMALL_SIDE)
    facts = "".join(f"<li>{escaped(name)}: {escaped(text)}</li>" for name, text in content.facts)
    sections = [
        f"<h1>{escaped(content.title)}</h1>\n<ul>{facts}</ul>",
        _section("Funnel", _funnel(content)),
        _section("Distributions", _charts(content.histograms)),
        _section("Images, experts, captions", _samples(content.samples, large)),
        _section("Clusters, the nearest to each center first", _groups(content.clusters, small)),
        _section("Near-copies, the one that is kept first", _groups(content.copies, small)),
        _section("Left out, by rule", _groups(content.rejected, small)),
    ]
    return document(content.title, STYLE + OWN_STYLE, "\n".join(section for section in sections if section))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escaped(title)}</h2>\n{body}</section>" if body else ""


def _funnel(content: Content) -> str:
    rows, left = [["records", "", "", f"{content.total:,}", _bar(content.total, content.total)]], content.total
    for loss in content.losses:
        left -= loss.count
        share = f"{loss.count:,} ({loss.count / content.total:.1%})" if content.total else "0"
        rows.append([escaped(loss.stage), escaped(loss.rule), share, f"{left:,}", _bar(left, content.total)])
    return html_table(("stage", "rule", "left out", "left", ""), rows, ("left out", "left"))


def _bar(value: int, total: int) -> str:
    width = f"{100 * value / total:.2f}" if total else "0"
    shapes = f'<rect class="back" width="100" height="8"/><rect class="value" width="{width}" height="8"/>'
    return f'<svg class="bar" viewBox="0 0 100 8" width="240" height="8" preserveAspectRatio="none">{shapes}</svg>'


def _charts(histograms: Sequence[Histogram]) -> str:
    return f'<div class="charts">{"".join(_chart(one) for one in histograms)}</div>' if histograms else ""


def _chart(given: Histogram) -> str:
    """Return a histogram as a figure: 240 x 100 units, with the ends of its range below."""
    width, height, bins = 240, 100, len(given.counts)
    most = max(given.counts) or 1
    bars = "".join(
        f'<rect x="{width * k / bins:.2f}" y="{height - height * n / most:.2f}" width="{width / bins - 1:.2f}" '
        f'height="{height * n / most:.2f}">'
        f"<title>{given.edges[k]:.4g} to {given.edges[k + 1]:.4g}: {n:,}</title></rect>"
        for k, n in enumerate(given.counts)
    )
    mark = "" if given.mark is None else f'<path d="M{width * place_of(given, given.mark):.2f} 0V{height}"/>'
    low, high = (f"{given.edges[k]:.4g}" for k in (0, -1))
    ends = f'<text x="0" y="112">{low}</text><text x="{width}" y="112" text-anchor="end">{high}</text>'
    threshold = "" if given.mark is None else f" (threshold {given.mark:.4g})"
    return (
        f'<figure><svg class="chart" viewBox="0 0 {width} 116">{bars}{mark}{ends}</svg>'
        f"<figcaption>{escaped(given.title + threshold)}</figcaption></figure>"
    )


def place_of(given: Histogram, value: float) -> float:
    """Return where in a histogram's range `value` lies, 0 to 1."""
    low, high = given.edges[0], given.edges[-1]
    if not given.log:
        return (value - low) / (high - low)
    return math.log(value / low) / math.log(high / low)


def _samples(cards: Sequence[Card], thumbnails: Thumbnails) -> str:
    return f'<div class="samples">{"".join(_sample(card, thumbnails) for card in cards)}</div>' if cards else ""


def _sample(card: Card, thumbnails: Thumbnails) -> str:
    image = _image(card, thumbnails, card.findings)
    found = {
        "tags": ", ".join(f"{one['name']} {one['score']:.2f}" for one in card.findings.get("tags", ())),
        "boxes": ", ".join(f"{one['name']} {one['score']:.2f}" for one in card.findings.get("boxes", ())),
        "text": "\n".join(one["text"] for one in card.findings.get("ocr", ())),
    }
    facts = [("web caption", card.alt), *found.items(), ("caption", card.caption), ("verdict", card.verdict)]
    facts += [("", line) for line in card.about] + [("id", card.id)]
    listed = "".join(
        f"<dt>{escaped(name)}</dt><dd>{escaped(clip(text, MOST_TEXT))}</dd>" for name, text in facts if text
    )
    kind = "right" if card.verdict == KEPT else "wrong" if card.verdict else ""
    return f'<article class="{kind}">{image}<dl>{listed}</dl></article>'


def _image(card: Card, thumbnails: Thumbnails, findings: Findings) -> str:
    if card.file is None:
        return "<p>no image</p>"
    draw = partial(_drawn, findings) if findings else None
    ((url, about),) = thumbnails.of([card.file], draw)
    return f'<img src="{url}" alt="{escaped(about)}" title="{escaped(about)}"/>' if url else f"<p>{escaped(about)}</p>"


def _drawn(findings: Findings, image: Image.Image) -> Image.Image:
    return draw_findings(image, findings)


def _groups(groups: Sequence[Group], thumbnails: Thumbnails) -> str:
    return "\n".join(_group(group, thumbnails) for group in groups)


def _group(group: Group, thumbnails: Thumbnails) -> str:
    if any(card.verdict for card in group.cards):
        return f'<div class="group"><h3>{escaped(group.title)}</h3>\n{_samples(group.cards, thumbnails)}</div>'
    strip = "".join(
        f"<figure>{_image(card, thumbnails, {})}<figcaption>{'<br/>'.join(map(escaped, (*card.about, card.id)))}"
        "</figcaption></figure>"
        for card in group.cards
    )
    return f'<div class="group"><h3>{escaped(group.title)}</h3>\n<div class="strip">{strip}</div></div>'
