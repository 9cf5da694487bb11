"""Rows of a step as one self-contained HTML page.

rows, taken apart -> a bar of token positions in memory order and one in causal order
                  -> a card per sample: its images with their patches ruled, its text with the target tokens underlined

The page loads and runs nothing (`document`): bars are SVG, zooming is done by check boxes.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from eve_jax.data.view.document import data_url, document, escaped
from eve_jax.data.view.style import STYLE
from eve_jax.data.view.take_apart import PAD, PATCH, SPECIAL, TEXT, Piece, ShownRow, ShownSample

COLORS = 8  # of samples, as `.c1` to `.c8` in STYLE; then they repeat
KINDS = {PATCH: "patch", SPECIAL: "class, split", TEXT: "text", PAD: "pad"}
CLASSES = {PATCH: "patch", SPECIAL: "special", TEXT: "text", PAD: "pad"}
ZOOMED_SLOT = 6  # width of a token position in an enlarged bar, pixels
MANY = 256  # token positions, of which lines between them show in an enlarged bar only
MAX_IMAGE, MAX_SCALE = 210, 2.5  # height of an image, pixels, and how much it is enlarged to reach that
BAR, MARK = 12, 3  # units of height: of a bar, of the line below it that marks target tokens


def page_of(rows: Sequence[ShownRow], title: str, about: str) -> str:
    """Return the page: `title` and `about` on top, then the rows. All text is escaped."""
    legend = "".join(f'<li><i class="c1 {CLASSES[kind]}"></i>{name}</li>' for kind, name in KINDS.items())
    sections = "\n".join(_row(row, number) for number, row in enumerate(rows, 1))
    body = f"""<svg width="0" height="0"><pattern id="slots" width="1" height="{BAR}" patternUnits="userSpaceOnUse">
<rect width=".12" height="{BAR}" class="edge"/></pattern></svg>
<h1>{escaped(title)}</h1>
<p>{escaped(about)}</p>
<ul>{legend}<li><i class="target"></i>target token (loss)</li><li>one color per sample</li></ul>
{sections}"""
    return document(title, STYLE, body)


def _row(row: ShownRow, number: int) -> str:
    used = int((row.sample > 0).sum())
    parts = f"{row.shape.patches} patches + {row.shape.specials} specials + {row.shape.text} text"
    in_memory = np.argsort(row.slots)
    names = zip(("patches", "specials", "text"), (PATCH, SPECIAL, TEXT), row.shape, strict=True)
    blocks = ", ".join(f"{name} {int((row.kind == kind).sum()):,}/{size:,}" for name, kind, size in names if size)
    cards = "\n".join(_card(sample, number, k) for k, sample in enumerate(row.samples, 1))
    return f"""<section><h2>{escaped(row.title)}</h2>
<p>{parts} = {row.shape.length:,} slots, {used / row.shape.length:.1%} filled</p>
<label class="zoom"><input type="checkbox"/>zoom the bars</label>
<figure><figcaption>memory order: {blocks}</figcaption>
<div class="bar">{_bar(row, in_memory, number, np.cumsum(row.shape)[:-1].tolist())}</div></figure>
<figure><figcaption>causal order</figcaption>
<div class="bar">{_bar(row, np.arange(row.shape.length), number, [])}</div></figure>
<div class="samples">
{cards}
</div></section>"""


def _bar(row: ShownRow, order: np.ndarray, number: int, edges: Sequence[int]) -> str:
    """Return the tokens order[0], order[1], ... of the row side by side, with lines at `edges`."""
    sample, kind, target = row.sample[order], row.kind[order], row.target[order]
    shapes = []
    for start, stop in _runs(np.stack([sample, kind], axis=1)):
        own, what = int(sample[start]), int(kind[start])
        if what == PAD:
            shapes.append(f'<rect x="{start}" width="{stop - start}" height="{BAR}" class="pad"/>')
            continue
        name = f"sample {own}: {stop - start:,} {KINDS[what]}"
        shapes.append(
            f'<a href="#row{number}-{own}"><rect x="{start}" width="{stop - start}" height="{BAR}" '
            f'class="{_color(own)} {CLASSES[what]}"><title>{name}</title></rect></a>'
        )
    for start, stop in _runs(target[:, None]):
        if target[start]:
            shapes.append(f'<rect x="{start}" y="{BAR + 1}" width="{stop - start}" height="{MARK}" class="target"/>')
    length = len(order)
    lines = "slots many" if length > MANY else "slots"
    blocks = "".join(f"M{edge} 0V{BAR}" for edge in edges)
    return (
        f'<svg viewBox="0 0 {length} {BAR + 1 + MARK}" preserveAspectRatio="none" width="{ZOOMED_SLOT * length}" '
        f'height="40">{"".join(shapes)}<rect width="{length}" height="{BAR}" fill="url(#slots)" class="{lines}"/>'
        f'<path d="{blocks}" class="line"/></svg>'
    )


def _runs(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield [start, stop) of each longest run of equal lines of `values` [n, k]."""
    starts = np.flatnonzero(np.any(values[1:] != values[:-1], axis=1)) + 1
    return pairwise([0, *starts.tolist(), len(values)])


def _color(number: int) -> str:
    return f"c{(number - 1) % COLORS + 1}"


def _card(sample: ShownSample, row: int, number: int) -> str:
    """Return a sample: its number and id, counts, then images and text in causal order."""
    counts = [(sample.counts.vision, "vision"), (sample.counts.text, "text"), (sample.n_targets, "target tokens")]
    about = " · ".join(f"{n:,} {what}" for n, what in counts if n or what == "target tokens")
    broken = "" if sample.n_targets else ": masked, an image or the record broke"
    pieces = "".join(_image(piece) if piece.image is not None else _text(piece) for piece in sample.pieces)
    return (
        f'<article id="row{row}-{number}" class="{_color(number)}">'
        f"<h3>{number} <bdi>{escaped(sample.id)}</bdi></h3>\n<p>{about}{broken}</p>\n<div>{pieces}</div></article>"
    )


def _text(piece: Piece) -> str:
    tag = "u" if piece.target else "span"
    return f"<{tag}>{escaped(piece.text)}</{tag}>"


def _image(piece: Piece) -> str:
    """Return an image with lines between its patches, in a check box that enlarges it."""
    assert piece.image is not None
    height, width = piece.image.shape[:2]
    lines = [f"M{x} 0V{height}" for x in range(piece.patch, width, piece.patch)]
    lines += [f"M0 {y}H{width}" for y in range(piece.patch, height, piece.patch)]
    shown = round(width * min(MAX_IMAGE / height, MAX_SCALE))
    return (
        f'<label class="image"><input type="checkbox" aria-label="enlarge"/><svg viewBox="0 0 {width} {height}" '
        f'width="{shown}"><title>{width} x {height} pixels; click to enlarge</title>'
        f'<image href="{data_url(Image.fromarray(piece.image))}" width="{width}" height="{height}"/>'
        f'<path d="{"".join(lines)}" class="line"/></svg></label>'
    )
