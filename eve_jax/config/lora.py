"""Which groups of weights get low-rank adapters, and how fast these train: the section `lora` of a stage's config."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from eve_jax.config.stages import frozen_by_hand, group_factors, trainable_names
from eve_jax.errors import Field, FieldError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import declared
from eve_jax.model.lora_config import ON, RANK, LoraConfig, parse_on
from eve_jax.model.weight import GROUPS

Factors = dict[str, float]
Changed = Mapping[str, float | None]


def with_adapters(cfg: ModelConfig, lora: LoraConfig, factors: Mapping[str, float], seed: int) -> ModelConfig:
    """Return `cfg` with adapters for the groups that have a factor above 0, as `adapter_factors` gives them."""
    return replace(cfg, lora=lora.adapters(tuple(group for group, factor in factors.items() if factor), seed))


def adapter_factors(cfg: ModelConfig, lora: LoraConfig, stage: str, changed: Changed) -> Factors:
    """Return the learning-rate factor of the adapters of every group, 0 where a group has none.

    They are those of the groups that `lora.on` names, or else of those that `stage` trains. changed: as in
    `group_factors`. Raise FieldError where the model has no such matrices, or fields contradict each other.
    """
    factors = group_factors(stage, changed)
    if cfg.aligns:
        raise FieldError(RANK, f"={lora.rank} goes without the aligning loss: set ", Field("model.align_weight"), "=0")
    by_hand = frozen_by_hand(stage, changed)
    groups = _named(cfg, lora, changed) if parse_on(lora.on) else _of_stage(cfg, factors, by_hand)
    for group, factor in changed.items():
        if factor and group not in groups:
            raise FieldError(
                Field(f"optim.groups.{group}"),
                f"={factor:g}, but with ",
                RANK,
                f"={lora.rank} nothing of that group trains: only adapters of {', '.join(sorted(groups))} do",
            )
    return {group: (factor or 1.0) if group in groups else 0.0 for group, factor in factors.items()}


def _named(cfg: ModelConfig, lora: LoraConfig, changed: Changed) -> set[str]:
    """The groups that `lora.on` names."""
    found: set[str] = set()
    for name in parse_on(lora.on):
        own = {group for group in _with_matrices(cfg) if _kind(group) == ON[name]}
        if not own:
            raise FieldError(
                Field("lora.on"),
                f"={lora.on}: the model has no {name} matrices of its own (",
                Field("model.variant"),
                "); leave it out",
            )
        if off := sorted(group for group in own if changed.get(group) == 0):
            raise FieldError(Field("lora.on"), f"={lora.on}, but ", Field(f"optim.groups.{off[0]}"), "=0 freezes it")
        found |= own
    return found


def _of_stage(cfg: ModelConfig, factors: Mapping[str, float], by_hand: Sequence[str]) -> set[str]:
    """The groups with matrices that the stage trains."""
    trainable_names(cfg, factors, by_hand)
    groups = {group for group in _with_matrices(cfg) if factors[group] and _kind(group) in ON.values()}
    if not groups:
        raise FieldError(RANK, ": the groups that train have no matrices; name others by ", Field("lora.on"))
    return groups


def _with_matrices(cfg: ModelConfig) -> set[str]:
    return {weight.group for weight in declared(cfg).values() if weight.role == "matrix"}


def _kind(group: str) -> str:
    """The group of GROUPS that `group` trains with."""
    return group if group in GROUPS else "vision"


def stored_adapters(cfg: ModelConfig, config: Mapping[str, Any]) -> ModelConfig:
    """Return `cfg` with the adapters that the `config` of a stage folder says, if it says any. Raise FieldError."""
    section = config.get("lora")
    if section is None:
        return cfg
    lora = LoraConfig.from_values(section) if isinstance(section, Mapping) else None
    if lora is None:
        raise FieldError(Field("lora"), f"={section!r}: expected a section")
    if not lora.rank:
        return cfg
    optim, stage, seed = config.get("optim"), config.get("stage"), config.get("seed")
    changed = optim.get("groups") if isinstance(optim, Mapping) else None
    if not isinstance(changed, Mapping) or not all(v is None or isinstance(v, int | float) for v in changed.values()):
        raise FieldError(Field("optim.groups"), f"={changed!r}: expected a section of numbers")
    if not isinstance(stage, str):
        raise FieldError(Field("stage"), f"={stage!r}: expected a text")
    if not isinstance(seed, int):
        raise FieldError(Field("seed"), f"={seed!r}: expected a whole number")
    return with_adapters(cfg, lora, adapter_factors(cfg, lora, stage, changed), seed)
