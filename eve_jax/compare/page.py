"""compare.html: a comparison as one self-contained page, with the sheet, tables of its numbers, and the cards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from eve_jax.compare.cards import Card
from eve_jax.compare.text_errors import marked_words
from eve_jax.data.view.document import data_url, document, escaped, html_table
from eve_jax.data.view.report_style import STYLE

SIDE = 520  # pixels of a card's image, its longer side
GRID = (255, 255, 255, 90)  # of the lines between patches
OWN_STYLE = """
.sheet img { max-width: 100% }
.card { display: grid; grid-template-columns: minmax(16rem, 34rem) 1fr; gap: 1rem; margin: 1rem 0 }
.card img { max-width: 100%; height: auto }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: .8rem }
del { color: var(--soft); text-decoration: none; border-bottom: 1px dotted var(--soft) }
mark { background: none; color: var(--wrong); text-decoration: underline }
"""


def page_of(report: Mapping[str, Any], cards: Sequence[Card], png: Path) -> str:
    """Return the page. png: of the sheet, which is put into it."""
    with Image.open(png) as image:
        sheet = f'<p class="sheet"><img src="{data_url(image.convert("RGB"))}" alt="charts of the numbers below"/></p>'
    sections = [_checkpoints(report), sheet, *_weights(report), _texts(report), _questions(report)]
    sections += _cards(report, cards)
    return document("Comparison", STYLE + OWN_STYLE, "<h1>Comparison</h1>\n" + "\n".join(filter(None, sections)))


def _checkpoints(report: Mapping[str, Any]) -> str:
    head = ("checkpoint", "folder", "parameters", "layers", "width", "parts of its own for vision", "patch embedding")
    rows = [
        [
            escaped(one["name"]),
            escaped(one["folder"]),
            f"{one['parameters']:,}",
            str(one["layers"]),
            str(one["hidden_size"]),
            escaped(", ".join(one["parts"]) or "none"),
            escaped(one["patch_embed"] or "none"),
        ]
        for one in report["checkpoints"]
    ]
    return html_table(head, rows, ("parameters", "layers", "width"))


def _weights(report: Mapping[str, Any]) -> list[str]:
    base, out = report["checkpoints"][0]["name"], []
    for name, found in report.get("weights", {}).items():
        rows = [
            [escaped(group), escaped(kind), f"{one['mean']:.3e}", _share(one["relative"])]
            for group, own in found["groups"].items()
            for kind, one in own["by_kind"].items()
        ]
        notes = [f"only in {name}: {', '.join(found['new'])}"] if found["new"] else []
        notes += [f"only in {base}: {', '.join(found['gone'])}"] if found["gone"] else []
        text = "".join(f"<p>{escaped(note)}</p>" for note in notes)
        head = ("group", "kind", "mean |change|", "relative")
        title = f"<h2>Weights: {escaped(base)} to {escaped(name)}</h2>"
        out.append(f"<section>{title}{html_table(head, rows, head[2:])}{text}</section>")
    return out


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3%}"


def _texts(report: Mapping[str, Any]) -> str:
    rows = [
        [escaped(name), escaped(file), f"{one['loss']:.4f}", f"{one['tokens']:,}"]
        for name, own in report.get("texts", {}).items()
        for file, one in own.items()
    ]
    head = ("checkpoint", "text", "loss, nats a token", "tokens")
    return f"<section><h2>Texts</h2>{html_table(head, rows, head[2:])}</section>" if rows else ""


def _questions(report: Mapping[str, Any]) -> str:
    rows = []
    for name, one in report.get("questions", {}).items():
        if one is None:
            rows.append([escaped(name), "takes no images", *[""] * 4])
            continue
        error = "" if one["gap_se"] is None else f" ± {one['gap_se']:.4f}"
        losses = [f"{one['loss']:.4f}", f"{one['blank_loss']:.4f}", f"{one['gap']:.4f}{error}"]
        mean = sum(one["attention"]) / len(one["attention"])
        rows.append([escaped(name), str(one["n"]), *losses, f"{mean:.1%} of {one['visible']:.1%}"])
    head = ("checkpoint", "questions", "loss", "with blank images", "gap ± SE", "attention on image tokens")
    about = (
        "<p>Mean over answers of the mean loss of their tokens, nats. The last column: mean over layers, and the share"
    )
    about += " that the image tokens are of all that the answers see.</p>"
    return f"<section><h2>Questions</h2>{html_table(head, rows, head[1:])}{about}</section>" if rows else ""


def _cards(report: Mapping[str, Any], cards: Sequence[Card]) -> list[str]:
    found = report.get("cards", {})
    out = []
    for number, card in enumerate(cards):
        answers = {name: own[number] for name, own in found.items() if own is not None}
        parts = [_answer(name, one, card) for name, one in answers.items()]
        if paper := report["paper"][number]:
            parts.append(_answer("the paper", paper, card))
        grid = next(iter(answers.values()))["grid"] if answers else [0, 0]
        width, height = card.image.size
        about = f"{card.name}: {width} × {height} pixels"
        url = data_url(_small(card.image, grid), "JPEG", quality=85)
        image = f'<img src="{url}" alt="{escaped(about)}"/><p>{escaped(about)}</p><pre>{escaped(card.prompt)}</pre>'
        shown = f'<div>{image}</div><div class="answers">{"".join(parts)}</div>'
        out.append(f'<section><h2>Card {number + 1}</h2><div class="card">{shown}</div></section>')
    return out


def _answer(name: str, one: Mapping[str, Any], card: Card) -> str:
    facts = []
    if "grid" in one:
        h, w = one["grid"]
        facts.append(f"{h} × {w} patches, {one['tokens']:,} tokens")
    if one["error_rate"] is not None:
        facts.append(f"character error rate {one['error_rate']:.1%}")
    words = _words(one["answer"], card.text)
    return f"<article><h3>{escaped(name)}</h3><p>{', '.join(facts)}</p><p>{words}</p></article>"


def _words(answer: str, text: str) -> str:
    """The answer, wrong words marked and missing ones struck in where the true text is given."""
    if not text:
        return escaped(answer or "(empty)")
    tags = {"right": "{}", "wrong": "<mark>{}</mark>", "missing": "<del>[{}]</del>"}
    return " ".join(tags[word.kind].format(escaped(word.text)) for word in marked_words(answer, text)) or "(empty)"


def _small(image: Image.Image, grid: Sequence[int]) -> Image.Image:
    """A small image with lines between the patches."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(small, "RGBA")
    rows, columns = grid
    for n in range(1, columns):
        x = round(n * small.width / columns)
        pen.line((x, 0, x, small.height), fill=GRID)
    for n in range(1, rows):
        y = round(n * small.height / rows)
        pen.line((0, y, small.width, y), fill=GRID)
    return small
