"""What trains in each stage, and how fast (EVEv2 paper, Table 1 and section 3.3).

The groups that weights belong to are declared with the weights (`eve_jax.model.weight`). A stage gives each group a
factor of the learning rate, 0 for one that stays frozen: `config.stage` names one of STAGES, and the fields of
`config.optim.groups` change the factor of single groups.
"""

import math
from collections.abc import Mapping

from ml_collections import ConfigDict

from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, of_groups
from eve_jax.model.weight import GROUPS, groups, trainable_groups

STAGES: dict[str, tuple[str, ...]] = {
    "llm": ("text",),
    "1": ("patch_embed", "align"),
    "2.1": ("patch_embed", "align", "vision"),
    "2.2": ("patch_embed", "align", "vision", "text"),
    "3": ("patch_embed", "align", "vision", "text"),
}


def stage_factors(stage: str) -> dict[str, float]:
    """Return the learning-rate factor of every group in `stage`; further sets of vision weights train with "vision".

    Raise UserError for a stage that is not in STAGES.
    """
    if stage not in STAGES:
        raise UserError(f"config.stage={stage!r}: expected one of {', '.join(STAGES)}")
    return {group: float((group if group in GROUPS else "vision") in STAGES[stage]) for group in groups()}


def group_factors(config: ConfigDict) -> dict[str, float]:
    """Return the learning-rate factor of every group, as `config.stage` and `config.optim.groups` say; 0 is frozen.

    Raise UserError for a factor that is not a number of at least 0, an unknown group, or when nothing trains.
    """
    factors = stage_factors(config.stage)
    for group, factor in config.get("optim", {}).get("groups", {}).items():
        if group not in trainable_groups():
            raise UserError(f"config.optim.groups.{group}: expected one of {', '.join(trainable_groups())}")
        if factor is None:
            continue
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor < math.inf:
            raise UserError(f"config.optim.groups.{group}={factor!r}: expected a number of at least 0 (0 = frozen)")
        factors[group] = float(factor)
    if not any(factors.values()):
        raise UserError("config.optim.groups freezes every group: nothing would train")
    return factors


def trainable_names(cfg: ModelConfig, factors: Mapping[str, float]) -> set[str]:
    """Return the names of the parameters that train when groups have the learning-rate factors `factors`.

    Raise UserError when the vision weights are to train without the text weights in a model that has none.
    """
    if factors["vision"] and not factors["text"] and not of_groups(cfg, "vision"):
        raise UserError(
            "this stage trains the vision weights of the layers (2.1), but the model has none "
            "(config.model.variant=dense)"
        )
    names = of_groups(cfg, *trained_groups(factors))
    if not names:
        raise UserError(
            f"the model has no weights of the groups that train: {', '.join(sorted(trained_groups(factors)))}"
        )
    return names


def trained_groups(factors: Mapping[str, float]) -> frozenset[str]:
    """Return the groups that train when they have the learning-rate factors `factors`."""
    return frozenset(group for group, factor in factors.items() if factor)


def partition(cfg: ModelConfig, params: Params, factors: Mapping[str, float]) -> tuple[Params, Params]:
    """Return the (trainable, frozen) ones of `params`, arrays or abstract values; see `trainable_names`."""
    train = trainable_names(cfg, factors)
    return {k: v for k, v in params.items() if k in train}, {k: v for k, v in params.items() if k not in train}
