"""What is trainable in each stage (EVEv2 paper, Table 1 and section 3.3)."""

import re

from eve_jax.errors import UserError
from eve_jax.model.eve import Params

# Every parameter belongs to the one group whose pattern it matches in full. The gated deltas of variant rep work on all
# tokens and train with the vision weights, in whose place they stand. EVEv1's teacher trains in no stage.
GROUPS = {
    "patch_embed": r"patch_embed\..+",
    "vision": r"layers\.(.+\.)?vision\..+|layers\.mlp\.text\.delta_.+",
    "align": r"align\..+",
    "teacher": r"teacher\..+",
    "text": r"layers\.(.+\.)?text\.(?!delta_).+|embed|norm\.scale|head",
}

TRAINABLE = {
    "llm": ("text",),
    "1": ("patch_embed", "align"),
    "2.1": ("patch_embed", "align", "vision"),
    "2.2": ("patch_embed", "align", "vision", "text"),
    "3": ("patch_embed", "align", "vision", "text"),
}

# Stages of which the smaller part of the model trains: their checkpoints store that part and refer to the rest.
PARTIAL = ("1", "2.1")


def group_of(name: str) -> str:
    """The group of a parameter; ValueError unless exactly one pattern matches."""
    found = [group for group, pattern in GROUPS.items() if re.fullmatch(pattern, name)]
    if len(found) != 1:
        raise ValueError(f"parameter {name} matches {found or 'no group'}")
    return found[0]


def trainable_names(names: list[str], stage: str) -> set[str]:
    """Names of the parameters that train in `stage`.

    Raises UserError for an unknown stage, or for one that trains vision weights in a model that has none.
    """
    if stage not in TRAINABLE:
        raise UserError(f"config.stage={stage!r}: expected one of {', '.join(TRAINABLE)}")
    groups = {name: group_of(name) for name in names}
    wanted = TRAINABLE[stage]
    if stage == "2.1" and "vision" not in groups.values():
        raise UserError("stage 2.1 trains the vision weights of the layers, but model.variant=dense has none")
    return {name for name, group in groups.items() if group in wanted}


def partition(params: Params, stage: str) -> tuple[Params, Params]:
    """(trainable, frozen) parameters of `stage`; works on arrays and on abstract values."""
    train = trainable_names(list(params), stage)
    return {k: v for k, v in params.items() if k in train}, {k: v for k, v in params.items() if k not in train}
