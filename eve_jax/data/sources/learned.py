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
LEARNED = {  # whether it is learned
    *(
        "loss",
        "loss_mask",
        "train",
        "trainable",
        "training",
        "learn",
        "learned",
        "learnable",
        "is_trained",
        "is_target",
    ),
    *("compute_loss", "calculate_loss", "calc_loss", "has_loss", "use_loss", "with_loss", "apply_loss", "in_loss"),
    *("train_on_turn", "train_turn", "train_on", "train_on_this", "supervise", "supervised", "is_supervised"),
}
MASKED = {  # whether it is not
    *("mask", "masked", "is_masked", "no_loss", "mask_loss", "loss_masked", "no_train", "do_not_train", "context_only"),
}
RANGES = {"train_detail", "train_details"}  # of characters that are learned
INPUTS = {"train_on_input", "train_on_inputs", "train_on_prompt", "train_on_prompts"}  # of a record
ANSWERS = {
    "mask_prompt",
    "mask_prompts",
    "mask_input",
    "mask_inputs",
    "train_on_responses_only",
}  # the reverse of those
LEFT_OUT = {  # whether a record, a turn or a part is not trained on
    *("skip", "skipped", "skip_loss", "ignore", "ignored", "ignore_loss", "exclude", "excluded", "disabled", "drop"),
    *("rejected", "is_rejected"),
}
LIKED = {  # false: the answer is one to unlearn
    *(
        "label",
        "kto_tag",
        "kto_label",
        "desirable",
        "is_desirable",
        "preferred",
        "is_preferred",
        "accepted",
        "approved",
    ),
    *("correct", "is_correct"),
}
LAST = {"mask_history", "train_on_last", "train_on_last_turn", "last_turn_only", "only_last"}
_AS_DONE = "but every answer of a record is learned and nothing else"


def check_turn(message: Mapping[str, Any], role: Role, name: str) -> None:
    """Raise `BadRecord` for a turn, or a part of one, with a key that asks for other targets."""
    answer = role == "gpt"
    for key, value in message.items():
        plain = _plain(key)
        differs = (
            (plain in WEIGHTS and answer and not _is_one(value))
            or (plain in LEARNED and value != answer)
            or (plain in MASKED and answer and value is not False)
            or (plain in RANGES and answer)
            or (plain in LEFT_OUT and _is_set(value))
            or (plain in LIKED and answer and value is False)
        )
        if differs and _says(value):
            raise BadRecord(f"{name} has {key} {value!r}, {_AS_DONE}; remove {key!r} to train on it so")


def check_record(given: Mapping[str, Any], turns: Sequence[Turn]) -> None:
    """Raise `BadRecord` for a record with a field that asks for other targets; a list has a value for each turn.

    A `loss` other than 0 and 1 is a measurement.
    """
    learned = [turn.role == "gpt" for turn in turns]
    for key, value in given.items():
        if _says(value) and not _is_as_done(_plain(key), value, learned):
            raise BadRecord(
                f"the record has {key} {shorten(repr(value))}, {_AS_DONE}; remove {key!r} to train on it so"
            )


def _is_as_done(name: str, value: Any, learned: Sequence[bool]) -> bool:
    """Whether a field of a record asks for the same targets; `learned`: which of its turns are."""
    per_turn = isinstance(value, list)
    if name in WEIGHTS:
        same = len(learned) == len(value) if per_turn else True
        weights = [one for one, answer in zip(value, learned, strict=True) if answer] if per_turn and same else [value]
        return same and all(map(_is_one, weights))
    if name in LEARNED:
        measured = name == "loss" and isinstance(value, float | str) and value not in (0, 1)
        return measured or value == (list(learned) if per_turn else True)
    if name in MASKED:  # a text, a number, or any other list may be a mask in the image
        of_turns = per_turn and len(value) == len(learned) and all(one in (0, 1) for one in value)
        return value == [not one for one in learned] if of_turns else value is not True
    if name in LEFT_OUT:
        return not _is_set(value)
    if name in LIKED:
        return value is not False
    if name in LAST:
        return not value or sum(learned) < 2
    return bool(value == 0) if name in INPUTS else name not in ANSWERS or bool(value == 1)


def _says(value: Any) -> bool:
    """Whether a value says something of targets: NaN does, as it is no weight."""
    if isinstance(value, list):
        return any(map(_says, value))
    return isinstance(value, float) or not is_empty(value)


def _is_one(weight: Any) -> bool:
    return weight == 1 and not isinstance(weight, bool)


def _is_set(value: Any) -> bool:
    """Whether a switch is on; a list has one for each turn or a part of one."""
    if isinstance(value, list):
        return any(map(_is_set, value))
    return value is True or (isinstance(value, int | float) and value == 1) or str(value).lower() in ("true", "yes")


def _plain(key: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).replace("-", "_").lower()
