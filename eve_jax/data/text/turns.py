"""What the turns of a conversation must be like, whatever the template and the tokenizer."""

from collections.abc import Sequence

from eve_jax.data.markers import MARKER, count_markers
from eve_jax.data.record import BadRecord, Turn
from eve_jax.errors import amount

NOTHING = "nothing to learn: every answer is empty or missing"


def check_turns(turns: Sequence[Turn], n_images: int) -> None:
    """Raise `BadRecord` for turns with `n_images` images that `encode.encode_chat` refuses whatever the template."""
    markers = sum(count_markers(turn.text) for turn in turns if turn.role == "human")
    if markers and markers != n_images:
        raise other_number(markers, n_images)
    if not any(turn.text for turn in turns if turn.role == "gpt"):
        raise BadRecord(NOTHING)


def check_roles(turns: Sequence[Turn], said: int) -> None:
    """Raise `BadRecord` unless the last of `said` turns, which begin with a human one, alternate."""
    if not turns:
        raise BadRecord("no human turn")
    for number, turn in enumerate(turns):
        place = said - len(turns) + number + 1
        if turn.role == "system":
            raise BadRecord(f"turn {place} is from system, which has the first turn alone; turns do not alternate")
        if turn.role != ("human", "gpt")[number % 2]:
            raise BadRecord(f"turns do not alternate between human and gpt: turn {place} is from {turn.role}, too")


def other_number(markers: int, n_images: int) -> BadRecord:
    """Return the error of texts with another number of markers than of images."""
    return BadRecord(
        f"{amount(markers, f'{MARKER} marker')} for {amount(n_images, 'image')} "
        f"(a tag that is text and no image is written \\{MARKER})"
    )
