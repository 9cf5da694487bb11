"""report.md: the tables of an evaluation in GitHub's Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from eve_jax.data.view.document import visible
from eve_jax.errors import amount, shorten
from eve_jax.eval.report.sheet import Sheet
from eve_jax.eval.report.table import COLUMNS, PAPERS, cells, markdown_table, notes
from eve_jax.eval.report.values import NONE, flat, interval, number, share

MOST_ROWS, MOST_ERRORS, MOST_CELL, MOST_LINE, MOST_EXAMPLES = 20, 20, 120, 1000, 3
MARKS = re.compile(r"([\\`*_{}\[\]<>|~#&$])")
HOW = "Intervals are 95% bootstrap intervals; an answer that cannot be parsed counts as wrong, an error is left out."


def markdown_of(report: Mapping[str, Any], sheets: Sequence[Sheet]) -> str:
    """Return the text of report.md. `report`: what report.json holds; `sheets`: of its tasks."""
    entries = list(report["tasks"].values())
    lines = ["# Evaluation", "", *_about(report["about"]), ""]
    if entries:
        rows = [[_text(cell) for cell in cells(entry)] for entry in entries]
        lines += [
            *markdown_table(COLUMNS, rows),
            "",
            HOW,
            "",
            f"{PAPERS}.",
            "",
            *(f"- {_text(n, MOST_LINE)}" for n in notes(entries)),
        ]
    else:
        lines += ["No task was evaluated."]
    for pair in report["disagreements"]:
        lines += _disagreements(pair)
    for (name, entry), sheet in zip(report["tasks"].items(), sheets, strict=True):
        lines += _task(name, entry, sheet)
    return "\n".join(lines) + "\n"


def disagreement_line(pair: Mapping[str, Any]) -> str:
    """Return how many questions were compared, and on how many the protocols disagree."""
    compared, same, rows = pair["compared"], pair["same_answer"], pair["rows"]
    if not compared:
        return "The prompts differ under the two protocols; no questions to compare."
    one_text = sum(row["same_answer"] for row in rows)
    other = f"; {pair['other_prompt']:,} more have other prompts" if pair["other_prompt"] else ""
    return (
        f"Of {amount(compared, 'question')} with the same prompt{other}, {same:,} got the same answer. "
        f"The verdicts differ on {share(len(rows), compared)}, of which {one_text:,} have the same answer."
    )


def disagreement_cells(pair: Mapping[str, Any], most: int) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the cells, as texts, of a table of the first `most` rows on which protocols disagree."""
    head = [
        "id",
        "expected",
        *(f"{what}, {name}" for name in pair["protocols"] for what in ("answer", "read as", "score")),
    ]
    rows = []
    for row in pair["rows"][:most]:
        sides = [row["protocols"][name] for name in pair["protocols"]]
        texts = [text for side in sides for text in (side["answer"], side["read"], number(side["score"], 2))]
        rows.append([NONE if text is None else text for text in (row["id"], row["expected"], *texts)])
    return head, rows


def numbers_of(entry: Mapping[str, Any]) -> list[str]:
    """Return the facts of a task in a few lines: what failed, counts, rates, the data."""
    lines = [f"Failed: {entry['error']}"] if entry["error"] else []
    if entry["headline"] is None and not entry["error"]:
        lines += ["No score: nothing was scored, or the answers are not public."]
    counts = f", {entry['scored']:,} scored, {len(entry['errors']):,} errors" if entry["asks"] else ""
    lines += [f"{entry['size']}{counts}"]
    lines += [f"Left out: {count:,} {what}" for what, count in entry["left_out"].items()]
    rates = entry["throughput"]
    if rates["questions_per_second"] is not None:
        rate = f"{rates['questions_per_second']:,.2f} questions/s, {rates['tokens_per_second']:,.1f} tokens/s"
        lines += [f"{rate}, {rates['tokens']:,} tokens answered, {rates['prompt_tokens']:,} tokens of prompts"]
    return lines


def _text(value: object, most: int = MOST_CELL) -> str:
    """Return a text as Markdown that shows it on one line, also in the cell of a table."""
    return MARKS.sub(r"\\\1", visible(shorten(str(value), most))) or " "


def _about(about: Mapping[str, Any]) -> list[str]:
    return [f"- {_text(name)}: {_text(text, MOST_LINE)}" for name, text in flat(about)]


def _disagreements(pair: Mapping[str, Any]) -> list[str]:
    one, other = pair["protocols"]
    lines = ["", f"## {_text(pair['benchmark'])}: {_text(one)} and {_text(other)}", "", disagreement_line(pair)]
    if not pair["rows"]:
        return lines
    head, cells = disagreement_cells(pair, MOST_ROWS)
    rows = [[_text(cell) for cell in row] for row in cells]
    more = len(pair["rows"]) - MOST_ROWS
    return [
        *lines,
        "",
        *markdown_table([_text(name) for name in head], rows),
        *(["", f"{more:,} more in report.json."] if more > 0 else []),
    ]


def _task(name: str, entry: Mapping[str, Any], sheet: Sheet) -> list[str]:
    lines = ["", f"## {_text(name)}", "", *(f"- {_text(line, MOST_LINE)}" for line in numbers_of(entry))]
    if entry["categories"]:
        rows = [
            [_text(category), f"{c['n']:,}", f"{c['accuracy']:.1%}", number(c["value"]), interval(c["interval"])]
            for category, c in entry["categories"].items()
        ]
        lines += ["", *markdown_table(["category", "n", "mean score", "value", "95% interval"], rows)]
    numbers = flat(entry["aggregate"]) + flat(entry["further"])
    if numbers:
        rows = [[_text(key), _text(text)] for key, text in numbers]
        lines += ["", *markdown_table(["number of the scorer", "value"], rows)]
    examples = [
        [
            group,
            _text(card.id),
            _text(card.prompt),
            _text(card.answer),
            _text(card.read or NONE),
            _text(card.gold or NONE),
        ]
        for group, (_, cards) in sheet.items()
        for card in cards[:MOST_EXAMPLES]
    ]
    if examples:
        lines += ["", *markdown_table(["", "id", "prompt", "answer", "read as", "expected"], examples)]
    if entry["errors"]:
        shown = entry["errors"][:MOST_ERRORS]
        lines += ["", f"Errors, {len(shown)} of {len(entry['errors']):,}:", ""]
        lines += [f"- {_text(e['id'])} ({_text(e['where'])}): {_text(e['error'], MOST_LINE)}" for e in shown]
    return lines
