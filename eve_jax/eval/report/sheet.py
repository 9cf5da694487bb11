"""Which questions the reports show of a task, and their images, bounded in number and bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

from eve_jax.data.image_file import ImageFile
from eve_jax.errors import clip
from eve_jax.eval.outcome import Outcome
from eve_jax.eval.report.values import brief, number
from eve_jax.eval.task import Verdict

# Groups of a sheet, and how many of each are shown.
GROUPS = {"wrong": 8, "not parsed, so wrong": 6, "partly correct": 4, "correct": 6}
MOST_PROMPT, MOST_ANSWER = 700, 400  # characters
MOST_IMAGES = 4  # of a question


@dataclass(frozen=True)
class Card:
    """A question of the sheet.

    Attributes:
        id, category, prompt, answer, read, gold: texts, shortened; read is None where nothing could be read.
        score: 0 to 1.
        images: the files of the first images.
        more: how many further images the question has.
    """

    id: str
    category: str
    prompt: str
    answer: str
    read: str | None
    gold: str | None
    score: str
    images: Sequence[ImageFile]
    more: int


Sheet = dict[str, tuple[int, list[Card]]]


def sheet_of(outcome: Outcome) -> Sheet:
    """Return of each group of GROUPS that is not empty how many questions it has, and the cards of some.

    They are taken at equal distances in the order of the data, nothing else chooses them.
    """
    places: dict[str, list[int]] = {name: [] for name in GROUPS}
    for place, answered in enumerate(outcome.answered if not outcome.error else ()):
        if answered.verdict is not None and not answered.verdict.error:
            places[_group(answered.verdict)].append(place)
    return {
        name: (len(members), [_card(outcome, place) for place in _spread(members, GROUPS[name])])
        for name, members in places.items()
        if members
    }


def _group(verdict: Verdict) -> str:
    if not verdict.parsed:
        return "not parsed, so wrong"
    return "wrong" if verdict.score <= 0 else "correct" if verdict.score >= 1 else "partly correct"


def _spread(places: list[int], most: int) -> list[int]:
    count = min(most, len(places))
    return [places[number * len(places) // count] for number in range(count)]


def _card(outcome: Outcome, place: int) -> Card:
    answered, images = outcome.answered[place], outcome.items[place].images
    verdict = answered.verdict
    assert verdict is not None  # `sheet_of` chose the place for it
    return Card(
        id=clip(answered.id),
        category=clip(verdict.category),
        prompt=clip(answered.prompt, MOST_PROMPT),
        answer=clip(answered.answer or "", MOST_ANSWER),
        read=brief(verdict.answer) if verdict.parsed else None,
        gold=brief(verdict.gold),
        score=number(float(verdict.score), 2),
        images=images[:MOST_IMAGES],
        more=max(0, len(images) - MOST_IMAGES),
    )
