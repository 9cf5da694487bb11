"""Questions with their answers as fields: a list of {user, assistant}, and the question with answers of VQAv2.

texts: [{user, assistant} ...]                                              FineVision, The Cauldron
question, and answer, answers or multiple_choice_answer                     VQAv2 and its like
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from eve_jax.data.record import BadRecord, Fields, Turn, is_empty, text_of
from eve_jax.data.sources.forms import PAIRS, QUESTION
from eve_jax.data.sources.image_objects import check_edits
from eve_jax.data.sources.learned import check_turn
from eve_jax.errors import shorten

SAID = ("user", "assistant")
CHOICES = ("choices", "options")  # of a question, which says nothing without them


def is_pairs(value: Any) -> bool:
    """Whether a value is a list of objects with a user's or an assistant's text."""
    return isinstance(value, list) and any(isinstance(one, dict) and not one.keys().isdisjoint(SAID) for one in value)


def of_pairs(pairs: list[Any]) -> tuple[tuple[Turn, ...], Fields]:
    """Return the turns of a list of {user, assistant} and the fields. Raises `BadRecord`."""
    turns: list[Turn] = []
    unused: dict[str, None] = {}
    for number, pair in enumerate(pairs, 1):
        name = f"entry {number} of {PAIRS}"
        if not isinstance(pair, dict):
            raise BadRecord(f"{name} is not an object with user and assistant")
        said = ["" if pair.get(key) is None else text_of(pair[key], f"{key} of {name}") for key in SAID]
        more = {key: value for key, value in pair.items() if key not in SAID and not is_empty(value)}
        check_turn(more, "gpt", name)
        check_edits(more, name)
        unused.update((f"{PAIRS}[].{key}", None) for key in more)
        turns += [Turn("human", said[0]), Turn("gpt", said[1])]
    return tuple(turns), Fields((PAIRS,), tuple(unused))


def has_question(given: Mapping[str, Any]) -> bool:
    """Whether a record has a question and an answer to it."""
    return QUESTION[0] in given and any(field in given for field in QUESTION[1:])


def of_question(given: Mapping[str, Any]) -> tuple[tuple[Turn, ...], Fields]:
    """Return the turns of a question and its answer, and the fields. Raises `BadRecord`.

    Of several answers it is the one that most give, the first of those; `multiple_choice_answer` says which that is.
    """
    choices = next((field for field in CHOICES if field in given), "")
    if choices:
        raise BadRecord(f"the question has {choices}, which are not read; write them into the question")
    fields = [field for field in QUESTION if field in given]
    found = {field: _answers(given[field], field) for field in fields[1:]}
    said = found.get("multiple_choice_answer") or found.get("answer") or found["answers"]
    answer = Counter(said).most_common(1)[0][0]
    other = next((field for field, texts in found.items() if _plain(answer) not in map(_plain, texts)), "")
    if other:
        raise BadRecord(f"{fields[1]} and {other} hold different texts; keep one of them")
    turns = Turn("human", text_of(given["question"], "question")), Turn("gpt", answer)
    return turns, Fields(tuple(fields))


def _plain(text: str) -> str:
    return text.strip().lower()


def _answers(value: Any, field: str) -> list[str]:
    """Return the answers in a field: a text, a list of texts, or a list of objects with an `answer`."""
    several = value if isinstance(value, list) else [value]
    texts = [one.get("answer") if isinstance(one, dict) else one for one in several if not is_empty(one)]
    wrong = next((one for one in texts if not isinstance(one, str)), None)
    if wrong is not None or not texts:
        raise BadRecord(f"{field} is {shorten(repr(value), 80)}, not a text or a list of texts")
    return [text_of(text, field) for text in texts]
