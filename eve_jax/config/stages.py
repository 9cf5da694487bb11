"""What trains in each stage, and how fast (EVEv2 paper, Table 1 and section 3.3).

The groups that weights belong to are declared with the weights (`eve_jax.model.weight`). A stage gives each group a
factor of the learning rate, 0 for one that stays frozen: `config.stage` names one of STAGES, and the fields of
`config.optim.groups` change the factor of single groups.
"""

from collections.abc import Iterator, Mapping, Sequence

from eve_jax.errors import Field, FieldError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, adapters, of_groups
from eve_jax.model.weight import EXTRA_GROUP, GROUPS, PLACE_GROUP, groups
from eve_jax.process.checks import unexpected

# What a pre-alignment adds to a base LLM: the patch embedding and what else is new of other members of the family.
NEW = ("patch_embed", "align", "vocabulary", PLACE_GROUP, EXTRA_GROUP)
STAGES: dict[str, tuple[str, ...]] = {
    "llm": ("text", PLACE_GROUP, EXTRA_GROUP),
    "1": NEW,
    "2.1": (*NEW, "vision", "encoder"),
    "2.2": (*NEW, "vision", "text", "encoder"),
    "3": (*NEW, "vision", "text", "encoder"),
}


def stage_factors(stage: str) -> dict[str, float]:
    """Return the learning-rate factor of every group in `stage`; further sets of vision weights train with "vision".

    Raise FieldError for a stage that is not in STAGES.
    """
    if stage not in STAGES:
        raise unexpected(Field("stage"), stage, f"one of {', '.join(STAGES)}")
    return {group: float((group if group in GROUPS else "vision") in STAGES[stage]) for group in groups()}


def group_factors(stage: str, changed: Mapping[str, float | None]) -> dict[str, float]:
    """Return the learning-rate factor of every group in `stage`, with the ones that are `changed`; 0 is frozen.

    Raise FieldError when nothing trains.
    """
    factors = stage_factors(stage) | {group: float(factor) for group, factor in changed.items() if factor is not None}
    if not any(factors.values()):
        raise FieldError(Field("optim.groups"), " freezes every group: nothing would train")
    return factors


def frozen_by_hand(stage: str, changed: Mapping[str, float | None]) -> list[str]:
    """Return the groups that `stage` trains and that `changed` freezes. Raise FieldError for an unknown stage."""
    trained = trained_groups(stage_factors(stage))
    return [group for group, factor in changed.items() if factor == 0 and group in trained]


def trainable_names(cfg: ModelConfig, factors: Mapping[str, float], by_hand: Sequence[str] = ()) -> set[str]:
    """Return the names of the parameters that train when groups have the learning-rate factors `factors`.

    In a model with adapters those are the only ones. by_hand: the groups of `frozen_by_hand`, for messages. Raise
    UserError when the vision weights are to train without the text weights in a model that has none, and when the model
    has no weights of any group that trains.
    """
    if factors["vision"] and not factors["text"] and not of_groups(cfg, "vision", "encoder"):
        kind = "the vision weights of the layers or a vision encoder"
        alone = "text" in by_hand
        why = (
            [Field("optim.groups.text"), f"=0 leaves {kind} to train"] if alone else [f"this stage trains {kind} (2.1)"]
        )
        raise FieldError(*why, ", but the model has none (", Field("model.variant"), "=dense)")
    names = of_groups(cfg, *trained_groups(factors))
    if cfg.lora is not None:
        names &= adapters(cfg)
    if not names:
        trained = ", ".join(sorted(trained_groups(factors)))
        if frozen := [group for group in by_hand if of_groups(cfg, group)]:
            raise FieldError("nothing would train: ", *_set_to_0(frozen), f" ({trained}); leave one of them out")
        raise FieldError(
            Field("optim.groups"),
            f": nothing would train: the model has no weights of the groups that train ({trained})",
        )
    return names


def _set_to_0(frozen: Sequence[str]) -> Iterator[str]:
    for number, group in enumerate(frozen):
        yield (" and " if number == len(frozen) - 1 else ", ") if number else ""
        yield Field(f"optim.groups.{group}")
    yield f" {'is' if len(frozen) == 1 else 'are'} set to 0, and the model has no weights of the other groups"


def trained_groups(factors: Mapping[str, float]) -> frozenset[str]:
    """Return the groups that train when they have the learning-rate factors `factors`."""
    return frozenset(group for group, factor in factors.items() if factor)


def partition(cfg: ModelConfig, params: Params, factors: Mapping[str, float]) -> tuple[Params, Params]:
    """Return the (trainable, frozen) ones of `params`, arrays or abstract values; see `trainable_names`."""
    train = trainable_names(cfg, factors)
    return {k: v for k, v in params.items() if k in train}, {k: v for k, v in params.items() if k not in train}
