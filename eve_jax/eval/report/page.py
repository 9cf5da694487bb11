"""report.html: an evaluation as one self-contained page, with the images of its sheets.

`document` makes it load and run nothing: bars are SVG, images are data URLs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from eve_jax.data.view.document import document, escaped, html_table
from eve_jax.data.view.report_style import STYLE
from eve_jax.data.view.thumbnails import Thumbnails
from eve_jax.eval.report.markdown import HOW, disagreement_cells, disagreement_line, numbers_of
from eve_jax.eval.report.sheet import Card, Sheet
from eve_jax.eval.report.table import COLUMNS, PAPERS, cells, notes
from eve_jax.eval.report.values import NONE, flat, interval, number

MOST_ROWS, MOST_ERRORS = 40, 50
NUMBERS = ("score", "95% interval", "n", "not parsed", "errors", "EVEv1 ¹", "EVEv2 ¹", "time", "mean score", "value")
CLASSES = {"correct": "right", "partly correct": "part"}  # of cards, the others are wrong


def page_of(report: Mapping[str, Any], sheets: Sequence[Sheet]) -> str:
    """Return the page. `report`: what report.json holds; `sheets`: of its tasks."""
    thumbnails = Thumbnails()
    entries = report["tasks"]
    facts = "".join(f"<li>{escaped(name)}: {escaped(text)}</li>" for name, text in flat(report["about"]))
    pairs = "\n".join(_disagreements(pair) for pair in report["disagreements"])
    sections = "\n".join(
        _task(name, entry, sheet, thumbnails) for (name, entry), sheet in zip(entries.items(), sheets, strict=True)
    )
    body = (
        f"<h1>Evaluation</h1>\n<ul>{facts or '<li>no facts given</li>'}</ul>\n{_overview(entries)}\n{pairs}\n{sections}"
    )
    return document("Evaluation", STYLE, body)


def _overview(entries: Mapping[str, Mapping[str, Any]]) -> str:
    if not entries:
        return "<p>No task was evaluated.</p>"
    rows = []
    for name, entry in entries.items():
        task, protocol, score, *rest = (escaped(cell) for cell in cells(entry))
        link = f'<a href="#{escaped(_anchor(name))}">{task}</a>'
        if entry["error"]:
            score = f'<span class="failed">{score}</span>'
        elif entry["headline"] is not None and entry["top"]:
            score += _bar(entry["headline"], entry["top"], entry["interval"], entry["papers"])
        rows.append([link, protocol, score, *rest])
    remarks = "".join(f"<li>{escaped(text)}</li>" for text in notes(list(entries.values())))
    marks = (
        'A bar shows the score, its interval, and <span class="v1t">EVEv1</span> and <span class="v2t">EVEv2</span>.'
    )
    return f"{_table(COLUMNS, rows)}\n<p>{escaped(HOW)} {marks}</p>\n<p>{escaped(PAPERS)}.</p>\n<ul>{remarks}</ul>"


def _anchor(name: str) -> str:
    return "task-" + "".join(c if c.isascii() and c.isalnum() else "-" for c in name)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], text_from: int | None = None) -> str:
    return html_table(head, rows, NUMBERS, text_from)


def _bar(value: float, top: float, ends: Sequence[float] | None, papers: Mapping[str, Any]) -> str:
    """Return a bar of `value` of `top`, with a line along the interval and marks of the papers' figures."""

    def at(number: float) -> str:
        return f"{min(max(number / top, 0), 1) * 100:.2f}"

    shapes = [f'<rect class="back" width="100" height="8"/><rect class="value" width="{at(value)}" height="8"/>']
    for name, kind in (("EVEv1", "v1"), ("EVEv2", "v2")):
        if (figure := papers.get(name)) is not None:
            title = f"<title>{name}, by its paper: {number(figure)}</title>"
            shapes.append(f'<path class="{kind}" d="M{at(figure)} 0V8">{title}</path>')
    if ends is not None:
        shapes.append(f'<path class="ends" d="M{at(ends[0])} 4H{at(ends[1])}"/>')
    return (
        '<svg class="bar" viewBox="0 0 100 8" width="140" height="8" preserveAspectRatio="none">'
        + "".join(shapes)
        + "</svg>"
    )


def _disagreements(pair: Mapping[str, Any]) -> str:
    one, other = pair["protocols"]
    title = f"<h2>{escaped(pair['benchmark'])}: {escaped(one)} and {escaped(other)}</h2>"
    text = f"<section>{title}\n<p>{escaped(disagreement_line(pair))}</p>"
    if not pair["rows"]:
        return f"{text}</section>"
    head, texts = disagreement_cells(pair, MOST_ROWS)
    rows = [[escaped(cell) for cell in row] for row in texts]
    title = f"{len(rows)} of {len(pair['rows']):,} rows on which they disagree"
    return f'{text}\n<details open=""><summary>{title}</summary>{_table(head, rows, text_from=0)}</details></section>'


def _task(name: str, entry: Mapping[str, Any], sheet: Sheet, thumbnails: Thumbnails) -> str:
    lines = numbers_of(entry)
    failed = f'<p class="failed">{escaped(lines.pop(0))}</p>' if entry["error"] else ""
    _, _, value, ends, measure, *_ = cells(entry)
    score = f"{value} ({ends}): {measure}"
    facts = "".join(f"<li>{escaped(line)}</li>" for line in ([score] if entry["headline"] is not None else []) + lines)
    parts = [f'<h2 id="{escaped(_anchor(name))}">{escaped(name)}</h2>', failed, f"<ul>{facts}</ul>"]
    parts += [_categories(entry), _scorer(entry)]
    for group, (total, cards) in sheet.items():
        shown = "\n".join(_card(card, CLASSES.get(group, "wrong"), thumbnails) for card in cards)
        parts.append(f'<h3>{len(cards)} of {total:,} {group}</h3>\n<div class="cards">{shown}</div>')
    parts.append(_errors(entry["errors"]))
    return f"<section>{''.join(part for part in parts if part)}</section>"


def _categories(entry: Mapping[str, Any]) -> str:
    if not entry["categories"]:
        return ""
    rows = [
        [
            escaped(name),
            f"{part['n']:,}",
            f"{part['accuracy']:.1%}{_bar(part['accuracy'], 1, None, {})}",
            number(part["value"]),
            interval(part["interval"]),
        ]
        for name, part in entry["categories"].items()
    ]
    return f"<h3>By category</h3>\n{_table(('category', 'n', 'mean score', 'value', '95% interval'), rows)}"


def _scorer(entry: Mapping[str, Any]) -> str:
    rows = [[escaped(name), escaped(text)] for name, text in flat(entry["aggregate"]) + flat(entry["further"])]
    table = _table(("number", "value"), rows, text_from=1)
    return f"<details><summary>all numbers of the scorer</summary>{table}</details>" if rows else ""


def _card(card: Card, kind: str, thumbnails: Thumbnails) -> str:
    images = "".join(
        f'<img src="{url}" alt="{escaped(about)}" title="{escaped(about)}"/>' if url else f"<p>{escaped(about)}</p>"
        for url, about in thumbnails.of(card.images)
    )
    more = f"<p>{card.more} more images</p>" if card.more else ""
    facts = [("answer", card.answer or "(empty)"), ("read as", card.read or NONE), ("expected", card.gold or NONE)]
    facts += [("score", card.score)] if kind == "part" else []
    facts += [("category", card.category)] if card.category else []
    facts += [("id", card.id)]
    listed = "".join(f"<dt>{name}</dt><dd>{escaped(text)}</dd>" for name, text in facts)
    return f'<article class="{kind}">{images}{more}<pre>{escaped(card.prompt)}</pre><dl>{listed}</dl></article>'


def _errors(errors: Sequence[Mapping[str, str]]) -> str:
    if not errors:
        return ""
    rows = [[escaped(error["id"]), escaped(error["where"]), escaped(error["error"])] for error in errors[:MOST_ERRORS]]
    title = f"<h3>{len(rows)} of {len(errors):,} errors, which are no answers and left out of the score</h3>"
    return f"{title}\n{_table(('id', 'where', 'error'), rows, text_from=0)}"
