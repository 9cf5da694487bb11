"""The config of a stage, checked as a whole before anything is made; configs/base.py says what its fields mean.

Each section states the values of its fields; `Config.check` what must go together. The section `model` is in
`eve_jax.model.config`, `data` in `eve_jax.data.config`.
"""

import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import RequiredValueError

from eve_jax.config.evaluation import EvalConfig, check_best, check_best_by
from eve_jax.config.from_hub import fetched_fields
from eve_jax.config.lora import adapter_factors, with_adapters
from eve_jax.config.optim import MUON, OptimConfig
from eve_jax.config.stages import STAGES, frozen_by_hand, group_factors, trainable_names
from eve_jax.data.config import DataConfig
from eve_jax.data.image.rule import CODES, PAD, SQUARE, ImageRule
from eve_jax.data.text.own_template import own_template
from eve_jax.data.text.templates import OWN
from eve_jax.errors import Field, FieldError, UserError
from eve_jax.model.config import ModelConfig, ModelSection
from eve_jax.model.eve import layer_matrices
from eve_jax.model.lora_config import LoraConfig
from eve_jax.model.quantized import check_weights
from eve_jax.process.at_step import folder_of
from eve_jax.process.checks import unexpected
from eve_jax.process.compiler_options import parse_options
from eve_jax.process.paths import expand_config
from eve_jax.process.places import shown
from eve_jax.process.section import Section, setting
from eve_jax.sharding import parse_mesh

NOT_FINITE = ("stop", "skip")  # what a run does about a step whose loss or gradient is not finite
MOST = 2**63 - 1  # of a seed
EMA = Field("optim.ema")
# Configs of other commands, by a section that no stage has.
NOT_STAGES = {
    "serve": "inference, for launch.compile",
    "prompt": "captions, for launch.caption",
    "dedup": "a curation, for launch.curate",
}
REMEDY = "; begin with get_config of configs/base.py, which has every field"


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """The section `train` of a stage's config."""

    PATH = "train."

    steps: int = setting(low=0)
    log_every: int = setting(low=1)
    save_every: int = setting(low=1)
    local_dir: str
    local_every: int = setting(low=1)
    keep: int = setting(low=1)
    keep_every: int = setting(low=0)
    keep_best: int = setting(low=0)
    best_by: str = setting(reads=check_best_by)
    whole: bool
    timeout: float = setting(low=0)
    nan: str = setting(choices=NOT_FINITE)
    writers: str
    metrics: str


def profiled_steps(text: str) -> tuple[int, int]:
    """Return the first and the last step, counted from 1, that `config.profile.steps` names; (0, 0) for ""."""
    if not text:
        return 0, 0
    found = re.fullmatch(r"(\d+)(?::(\d+))?", text, re.ASCII)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last:
        raise FieldError(Field("profile.steps"), f"={text!r} is not FIRST:LAST, such as 10:12 (steps count from 1)")
    return first, last


@dataclass(frozen=True, kw_only=True)
class ProfileConfig(Section):
    """The section `profile` of a stage's config."""

    PATH = "profile."

    steps: str = setting(reads=profiled_steps)


@dataclass(frozen=True, kw_only=True)
class CompileConfig(Section):
    """The section `compile` of a stage's config."""

    PATH = "compile."

    options: str = setting(reads=parse_options)


def check_name(text: str) -> None:
    """Raise FieldError unless `text` can be the name of a folder."""
    if text in ("", ".", "..") or "/" in text or "\0" in text:
        raise unexpected(Field("name"), text, "the name of a folder below the work folder")


@dataclass(frozen=True, kw_only=True)
class Config(Section):
    """The config of a stage."""

    name: str = setting(reads=check_name)
    stage: str = setting(choices=STAGES)
    seed: int = setting(low=0, high=MOST)
    init: str
    teacher: str
    encoder: str
    model: ModelSection
    data: DataConfig
    lora: LoraConfig
    optim: OptimConfig
    train: TrainConfig
    eval: EvalConfig
    compile: CompileConfig
    profile: ProfileConfig
    mesh: str = setting(reads=parse_mesh)
    track: str

    @classmethod
    def of(cls, config: "ConfigDict | Config") -> "Config":
        """Return the config that a file of configs/ and overrides make, its paths expanded. Raise FieldError."""
        if isinstance(config, Config):
            return config
        if "order" in config:
            raise UserError(f"{config.name} is a recipe of several stages: run it with launch.recipe")
        refuse_inference(config)
        return cls.from_values(plain_values(config), REMEDY).with_own_template()

    def with_own_template(self) -> "Config":
        """Return the config with the name of the template that `data.template=own` stands for.

        It stays for a later stage of a recipe, whose folders are not there yet. Raise UserError as `own_template`.
        """
        folder = self.data.tokenizer or folder_of(self.init)
        if self.data.template != OWN or not Path(folder).is_dir() or not folder:
            return self
        return replace(self, data=replace(self.data, template=own_template(folder)))

    def check(self) -> None:
        """Raise FieldError for fields that do not go together."""
        trains = trainable_names(self.sizes, self.factors, frozen_by_hand(self.stage, self.optim.groups))
        if self.optim.rule == MUON and not trains & layer_matrices(self.sizes):
            by, value = (Field("lora.on"), self.lora.on) if self.lora.on else (Field("stage"), self.stage)
            rule = Field("optim.rule")
            raise FieldError(rule, f"={MUON} is for matrices of the layers, and ", by, f"={value} trains none")
        if self.eval.ema and not self.optim.ema:
            raise FieldError(Field("eval.ema"), "=True, but no average of the weights is kept: give its decay as ", EMA)
        if self.train.steps:
            self.optim.check_steps(self.train.steps)
        if self.data.patch != 2 * self.sizes.sub_patch:
            raise FieldError(
                Field("data.patch"),
                f"={self.data.patch} is not twice ",
                Field("model.sub_patch"),
                f"={self.sizes.sub_patch}",
            )
        if self.teacher and self.sizes.teacher is None:
            raise FieldError(
                Field("teacher"),
                f"={self.teacher} is given, but the model has no aligning layer that would use it; EVEv1's configs "
                "take it as an argument, --config=v1_prealign:teacher=DIR",
            )
        check_weights(self.lora.base, "config.lora.base")
        if self.lora.base and self.train.whole:
            raise FieldError(
                Field("train.whole"),
                "=True stores the base, which ",
                Field("lora.base"),
                " quantizes: leave one out",
            )
        self._check_aligning()
        self._check_encoder()
        check_best(self.train.keep_best, self.train.best_by, self.train.save_every, self.eval.every)
        ImageRule.of(self.data)

    def _check_aligning(self) -> None:
        teacher = self.sizes.teacher
        if not self.sizes.aligns or teacher is None:
            return
        if self.data.image_mode != SQUARE:
            raise FieldError(
                Field("data.image_mode"),
                f"={self.data.image_mode}: the aligning loss requires {SQUARE} (or set ",
                Field("model.align_weight"),
                "=0)",
            )
        sees = (teacher.image_size, teacher.patch_size)
        if self.data.teacher != sees:
            raise FieldError(
                Field("data.teacher"), f"={self.data.teacher}, but ", Field("model.teacher"), f" sees {sees}"
            )

    def _check_encoder(self) -> None:
        mode, encoder = Field("data.image_mode"), self.sizes.encoder
        for needed, has in ((PAD, encoder is not None), (CODES, self.sizes.codes > 0)):
            if (self.data.image_mode == needed) != has:
                kind, text = Field("model.patch_embed"), f"={self.sizes.patch_embed}: clip takes {PAD}, vq {CODES}"
                raise FieldError(mode, f"={self.data.image_mode}, ", kind, text)
        if encoder is None and self.encoder:
            raise FieldError(Field("encoder"), f"={self.encoder} is given, but the model has no vision encoder")
        if encoder is not None and (size := ImageRule.of(self.data).size) != encoder.image_size:
            raise FieldError(Field("data.max_size"), f": {size} pixels, but the encoder sees {encoder.image_size}")

    def check_data(self, starts: bool = True) -> None:
        """Raise FieldError where no records or no tokenizer are named, which only training needs.

        starts: False for a later stage of a recipe, which has the tokenizer of the one before.
        """
        if not self.data.records.strip(", "):
            raise FieldError(Field("data.records"), " is empty: name one or more files of records")
        if starts and self.lora.rank and not self.init:
            rank = f" is empty, but config.lora.rank={self.lora.rank}: name the model that the adapters are for"
            raise FieldError(Field("init"), rank)
        if starts and not (self.data.tokenizer or self.init):
            tokenizer = Field("data.tokenizer")
            raise FieldError(tokenizer, " is empty: name a folder with a tokenizer.json or tokenizer.model")

    @cached_property
    def sizes(self) -> ModelConfig:
        """Return the sizes of the model."""
        if not self.lora.rank:
            return self.model.sizes
        return with_adapters(self.model.sizes, self.lora, self.factors, self.seed)

    @cached_property
    def factors(self) -> dict[str, float]:
        """Return the learning-rate factor of every group of weights, 0 for frozen ones."""
        if self.lora.rank:
            return adapter_factors(self.model.sizes, self.lora, self.stage, self.optim.groups)
        return group_factors(self.stage, self.optim.groups)

    def to_json(self) -> str:
        """Return the text of a stage folder's config.json."""
        return shown(json.dumps(self.to_dict(), indent=1, sort_keys=True))


def refuse_inference(config: ConfigDict) -> None:
    """Raise UserError for a config that one command alone takes, and that trains nothing."""
    for section, what in NOT_STAGES.items():
        if section in config:
            raise UserError(f"--config={config.name} is of {what} alone; nothing trains with it")


def plain_values(config: ConfigDict) -> dict[str, Any]:
    """Return the values of `config` with its references resolved and its paths expanded. Raise UserError."""
    _check_given(config, "config")
    config = config.copy_and_resolve_references()
    expand_config(config)
    return fetched_fields(config.to_dict())


def _check_given(node: ConfigDict, name: str) -> None:
    """Raise UserError, naming the field, for a required placeholder without a value."""
    for key in node:
        try:
            value = node[key]
        except RequiredValueError as error:
            raise UserError(f"{name}.{key} must be given: it is a required placeholder") from error
        if isinstance(value, ConfigDict):
            _check_given(value, f"{name}.{key}")
