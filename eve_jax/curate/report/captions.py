"""What a report shows of a folder that `launch.caption` made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eve_jax.curate.report.content import PAPER_RATE, Card, Content, Group, Histogram, Loss, histogram, spread
from eve_jax.curate.report.records import caption_of, file_of, findings_of, record_cards
from eve_jax.curate.report.rejected import Line, picked_lines
from eve_jax.data.record import BadRecord
from eve_jax.data.sources.records import Records, open_records
from eve_jax.process.files import read_json

CAPTION, FUNNEL, REJECTED, USAGE = "caption.json", "funnel.json", "rejected.jsonl", "usage.json"
SAMPLES, OF_RULE = 12, 4  # that are shown at most
COUNTED = 10_000  # records whose words are counted, at most
DAY = 86_400.0


def caption_content(path: Path, source: Records | None = None) -> Content:
    """Return what is shown of the captioned records in the folder `path`. Raises UserError.

    source: the records that were captioned, for the images of those that were rejected; None shows them without.
    """
    about, funnel, usage = (read_json(path / name) for name in (CAPTION, FUNNEL, USAGE))
    losses = [Loss(stage, rule, count) for stage, rules in funnel["rejected"].items() for rule, count in rules.items()]
    records = open_records(str(path)) if funnel["kept"] else None
    return Content(
        title="Captions",
        facts=[
            ("model", str(about["asked"]["endpoint.model"])),
            ("records", ", ".join(about["names"])),
            ("captioned", f"{funnel['kept']:,} of {funnel['in']:,}, {funnel['again']:,} asked twice"),
            *cost_facts(usage, funnel["in"]),
        ],
        total=funnel["in"],
        losses=losses,
        kept=funnel["kept"],
        histograms=_histograms(records, about["checks"]) if records is not None else (),
        samples=record_cards(records, SAMPLES) if records is not None else (),
        rejected=_rejected(path, losses, source),
    )


def cost_facts(usage: Mapping[str, Any], records: int) -> list[tuple[str, str]]:
    """Return what answers cost, next to the paper's rate; `usage`: what usage.json holds."""
    requests, seconds = usage["requests"], usage["busy_seconds"]
    facts = [
        ("requests answered", f"{requests:,}, {requests / records:.3f} a record" if records else f"{requests:,}"),
        ("tokens", f"{usage['prompt_tokens']:,} of prompts, {usage['tokens']:,} of answers"),
    ]
    if seconds > 0:
        facts.append(("tokens of answers a second", f"{usage['tokens'] / seconds:,.1f}"))
        rate = f"{records * DAY / seconds:,.0f} with all endpoints together"
        facts.append(("images a day", f"{rate}; DenseFusion: {PAPER_RATE:,} a GPU"))
    return facts


def _histograms(records: Records, checks: Mapping[str, Any]) -> list[Histogram]:
    """Return the histograms of the words of captions and web captions, of COUNTED records at equal distances."""
    words: dict[str, list[int]] = {"caption": [], "alt": []}
    for index in spread(len(records), COUNTED):
        record = records[index]
        words["caption"].append(len(caption_of(record).split()))
        alt = record.kept.get("alt")
        if isinstance(alt, str):
            words["alt"].append(len(alt.split()))
    found = [
        histogram("words of the caption", np.array(words["caption"], np.float64), checks["min_words"]),
        histogram("words of the web caption", np.array(words["alt"], np.float64)),
    ]
    return [one for one in found if one is not None]


def _rejected(path: Path, losses: list[Loss], source: Records | None) -> list[Group]:
    picked = picked_lines(path / REJECTED, losses, {}, OF_RULE)
    return [Group(loss.title, [_card(line, source) for line in lines]) for loss, lines in picked.items()]


def _card(line: Line, source: Records | None) -> Card:
    """Return the card of a rejected record, which says the rule, what it found, and the caption."""
    index, verdict = line.get("index"), f"{line['rule']}: {line['value']}"
    card = Card(str(line["id"]), caption=line.get("caption", ""), verdict=verdict)
    if source is None or index is None:
        return card
    try:
        record = source[index]
    except BadRecord:
        return card
    alt = record.kept.get("alt")
    return Card(
        card.id,
        file_of(source, index),
        findings=findings_of(record),
        alt=alt if isinstance(alt, str) else caption_of(record),
        caption=card.caption,
        verdict=verdict,
    )
