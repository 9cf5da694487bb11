"""Cards of records that are read from a source."""

from eve_jax.curate.experts.form import Findings, read_findings
from eve_jax.curate.report.content import KEPT, Card, spread
from eve_jax.data.image_file import ImageFile
from eve_jax.data.record import BadRecord, Record
from eve_jax.data.sources.records import Records
from eve_jax.errors import UserError


def file_of(records: Records, index: int) -> ImageFile | None:
    """Return the image of a record; None where the record cannot be read or has not one image."""
    try:
        images = records[index].images
    except BadRecord:
        return None
    return images[0] if len(images) == 1 else None


def card_of(records: Records, index: int, about: str) -> Card:
    """Return the card of a record with its image and one line below it."""
    try:
        id = records[index].id
    except BadRecord as error:
        return Card(error.id, None, (about,))
    return Card(id, file_of(records, index), (about,))


def record_cards(records: Records, most: int) -> list[Card]:
    """Return cards of at most `most` kept records at equal distances, with findings, web caption and caption."""
    return [_kept_card(records[index]) for index in spread(len(records), most)]


def _kept_card(record: Record) -> Card:
    caption = caption_of(record)
    alt = record.kept.get("alt")
    web = alt if isinstance(alt, str) else ""
    return Card(
        id=record.id,
        file=record.images[0] if record.images else None,
        findings=findings_of(record),
        alt=web,
        caption="" if caption == web else caption,
        verdict=KEPT,
    )


def caption_of(record: Record) -> str:
    """Return the text of the last answer of a record, "" for none."""
    return next((turn.text for turn in reversed(record.turns) if turn.role == "gpt"), "")


def findings_of(record: Record) -> Findings:
    """Return what experts found in a record's image; {} where its field `experts` has another form."""
    try:
        return read_findings(record.kept.get("experts"), record.where)
    except UserError:  # of somebody else's data set: nothing to draw
        return {}
