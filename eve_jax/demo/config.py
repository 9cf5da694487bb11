"""The config of a recipe, stages in order, with the sections of the demo and of the comparison of variants.

All stages are checked before the first one begins, and before the demo's data is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ml_collections import ConfigDict

from eve_jax.caption.config import CaptionConfig
from eve_jax.config.stage import REMEDY, Config, check_name, plain_values, refuse_inference
from eve_jax.curate.config import CurateConfig
from eve_jax.demo.loop_config import LoopConfig
from eve_jax.demo.pretrain_config import PretrainConfig
from eve_jax.demo.settings import SIZES, DemoSettings
from eve_jax.errors import Field, FieldError, UserError, name_fields
from eve_jax.experiments.config import ExperimentConfig
from eve_jax.model.config import VARIANTS
from eve_jax.process.at_step import at_step
from eve_jax.process.checks import unexpected
from eve_jax.process.paths import WORKDIR
from eve_jax.process.section import Section, setting


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Section):
    """The section `demo` of a recipe: which dataset is written, and how its questions are answered."""

    PATH = "demo."

    size: str = setting(choices=SIZES)
    seed: int = setting(low=0)
    answer_batch: int = setting(low=1)
    max_new_tokens: int = setting(low=1)
    settings: dict[str, Any] | None = None  # fields of the size's DemoSettings that are others
    caption_sets: bool | None = None  # True: captions of other quality are written to WORKDIR/captions
    held_texts: int | None = setting(None, low=1)  # documents, and as many chats, that are written to WORKDIR/texts

    def check(self) -> None:
        """Raise FieldError for settings that the dataset does not have."""
        _ = self.dataset  # which is checked when it is made

    @cached_property
    def dataset(self) -> DemoSettings:
        """Return the settings of the dataset."""
        return DemoSettings.from_values(vars(SIZES[self.size]) | (self.settings or {}))


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Section):
    """The section `compare` of a recipe: what the comparison at its end is of."""

    PATH = "compare."

    llm: str
    variants: tuple[str, ...] = setting(choices=VARIANTS)
    stages: tuple[str, ...]
    texts: int = setting(low=1)


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(Section):
    """The config of a recipe; `stages` by name."""

    name: str = setting(reads=check_name)
    order: tuple[str, ...]
    stages: dict[str, Config]
    demo: DemoConfig | None = None
    compare: CompareConfig | None = None
    loop: LoopConfig | None = None
    experiment: ExperimentConfig | None = None
    pretrain: PretrainConfig | None = None

    @classmethod
    def of(cls, config: "ConfigDict | RecipeConfig") -> "RecipeConfig":
        """Return the config that a file of configs/ and overrides make, its paths expanded. Raise UserError."""
        if isinstance(config, RecipeConfig):
            return config
        refuse_inference(config)
        if "order" not in config:
            raise UserError(
                f"--config={config.name} is one stage, not a recipe: use launch.train, or a recipe such as demo"
            )
        values = plain_values(config)
        made = {"stages": _stages(values.get("stages"))} | ({"loop": _loop(values["loop"])} if "loop" in values else {})
        return cls.from_values(values | made, REMEDY)

    def check(self) -> None:
        """Raise FieldError for an order of stages that are not there."""
        if unknown := [name for name in self.order if name not in self.stages]:
            raise FieldError(
                Field("order"),
                f" names stages that {self.name} does not have: {', '.join(map(repr, unknown))}; a list is written as "
                "in Python, --",
                Field("order"),
                f'="{tuple(self.stages)[:2]}"; stages: {", ".join(self.stages)}',
            )
        _check_starts([self.stages[name] for name in self.order])
        if self.compare is not None:
            _check_compared(self.compare, self.order)
        if self.loop is not None:
            _check_loop(self.loop, self.order)
        if self.experiment is not None:
            self.experiment.check_stages(self.order)
        for name in ("compare", "loop", "pretrain"):
            if getattr(self, name) is not None and self.demo is None:
                raise FieldError(Field(name), " requires the section ", Field("demo"))


def _check_starts(stages: Sequence[Config]) -> None:
    """Raise FieldError for a stage that starts from a step of an earlier one which does not keep it."""
    before: dict[str, Config] = {}
    for stage in stages:
        place, step = at_step(stage.init)
        origin = before.get(place.removeprefix(f"{WORKDIR}/")) if place.startswith(f"{WORKDIR}/") else None
        before[stage.name] = stage
        if origin is None or step is None or step == origin.train.steps:
            continue
        train = origin.train
        kept = train.keep_every and step % train.keep_every == 0 and step % train.save_every == 0
        if not step or not kept or (train.steps and step > train.steps):
            raise FieldError(
                Field(f"stages.{stage.name}.init"),
                f"={stage.init}: {origin.name} keeps no checkpoint of step {step}; choose one up to its last, and ",
                Field(f"stages.{origin.name}.train.save_every"),
                " and ",
                Field(f"stages.{origin.name}.train.keep_every"),
                " that divide it",
            )


def _check_compared(compare: CompareConfig, order: tuple[str, ...]) -> None:
    """Raise FieldError unless the stages that are compared are among those of the recipe."""
    if compare.llm not in order:
        raise unexpected(Field("compare.llm"), compare.llm, f"one of {', '.join(order)}")
    for name in (f"{variant}_{stage}" for variant in compare.variants for stage in compare.stages):
        if name not in order:
            raise FieldError(Field("compare.stages"), f": there is no stage {name!r}; stages: {', '.join(order)}")


def _check_loop(loop: LoopConfig, order: tuple[str, ...]) -> None:
    """Raise FieldError unless the captioner, and after it every student, is among the stages of the recipe."""
    if loop.captioner not in order:
        raise unexpected(Field("loop.captioner"), loop.captioner, f"one of {', '.join(order)}")
    after = order[order.index(loop.captioner) + 1 :]
    names = [run for one in loop.sets for stage in loop.stages for run in loop.runs(one, stage)]
    if missing := [name for name in names if name not in after]:
        raise FieldError(
            Field("order"),
            f" has no stage {missing[0]!r} after {loop.captioner}, as the sets and seeds of ",
            Field("loop"),
            " ask for",
        )


def _loop(values: Any) -> Any:
    """Return the section `loop`, the configs in it made as by their own commands; see `_stages`."""
    if not isinstance(values, dict):
        return values
    made = dict(values)
    for name, kind in (("curate", CurateConfig), ("caption", CaptionConfig)):
        with name_fields(f"config.loop.{name}.{{}}".format):
            if isinstance(one := made.get(name), dict):
                made[name] = kind.from_values(one, REMEDY)
    return made


def _stages(values: Any) -> Any:
    """Return the configs of the stages by name; what is no section is left for the recipe's own check."""
    if not isinstance(values, dict):
        return values
    stages = {}
    for name, one in values.items():
        with name_fields(f"config.stages.{name}.{{}}".format):
            stages[name] = Config.from_values(one, REMEDY) if isinstance(one, dict) else one
    return stages
