"""What a record says of its targets, where that is not what is done: every answer is learned, and nothing else.

Other trainers read a weight, a mask or a switch from a turn, from a part of its text or from the whole record. A value
that asks for the same as what is done is only listed as not used.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from eve_jax.data.record import BadRecord, Role, Turn, is_empty
from eve_jax.errors import shorten

WEIGHTS = {"weight", "weights", "loss_weight", "loss_weights", "loss_scale", "sample_weight"}  # 1: as it is done
LEARNED = {"loss", "loss_mask", "train", "trainable", "training", "learn", "is_trained"}  # whether it is learned
MASKED = {"mask", "masked"}  # whether it is not
RANGES = {"train_detail", "train_details"}  # of characters that are learned
INPUTS = {"train_on_input", "train_on_inputs", "train_on_prompt", "train_on_prompts"}  # of a record
ANSWERS = {
    "mask_prompt",
    "mask_prompts",
    "mask_input",
    "mask_inputs",
    "train_on_responses_only",
}  # the reverse of those
LEFT_OUT = {"skip", "ignore", "exclude", "excluded", "disabled"}  # whether a record is not trained on
LAST = {"mask_history", "train_on_last", "train_on_last_turn", "last_turn_only", "only_last"}
_AS_DONE = "but every answer of a record is learned and nothing else"


def check_turn(message: Mapping[str, Any], role: Role, name: str) -> None:
    """Raise `BadRecord` for a turn, or a part of one, with a key that asks for other targets."""
    answer = role == "gpt"
    for key, value in message.items():
        plain = _plain(key)
        differs = (
            (plain in WEIGHTS and answer and value != 1)
            or (plain in LEARNED and value != answer)
            or (plain in MASKED and answer and value is not False)
            or (plain in RANGES and answer)
        )
        if differs and not is_empty(value):
            raise BadRecord(f"{name} has {key} {value!r}, {_AS_DONE}; remove {key!r} to train on it so")


def check_record(given: Mapping[str, Any], turns: Sequence[Turn]) -> None:
    """Raise `BadRecord` for a record with a field that asks for other targets; a list has a value for each turn.

    A `loss` other than 0 and 1 is a measurement.
    """
    learned = [turn.role == "gpt" for turn in turns]
    for key, value in given.items():
        if not _is_as_done(_plain(key), value, learned):
            raise BadRecord(
                f"the record has {key} {shorten(repr(value))}, {_AS_DONE}; remove {key!r} to train on it so"
            )


def _is_as_done(name: str, value: Any, learned: Sequence[bool]) -> bool:
    """Whether a field of a record asks for the same targets; `learned`: which of its turns are."""
    per_turn = isinstance(value, list)
    if name in WEIGHTS:
        same = len(learned) == len(value) if per_turn else True
        weights = [one for one, answer in zip(value, learned, strict=True) if answer] if per_turn and same else [value]
        return same and all(weight == 1 for weight in weights)
    if name in LEARNED:
        measured = name == "loss" and isinstance(value, float | str) and value not in (0, 1)
        return measured or value == (list(learned) if per_turn else True)
    if name in MASKED:  # a text, a number, or any other list may be a mask in the image
        of_turns = per_turn and len(value) == len(learned) and all(one in (0, 1) for one in value)
        return value == [not one for one in learned] if of_turns else value is not True
    if name in LEFT_OUT:
        return value is not True and value != 1
    if name in LAST:
        return not value or sum(learned) < 2
    return bool(value == 0) if name in INPUTS else name not in ANSWERS or bool(value == 1)


def _plain(key: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).replace("-", "_").lower()
