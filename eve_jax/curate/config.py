"""The config of a curation, checked as a whole before anything is made; configs/curate.py says what its fields mean."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from eve_jax.curate.experts.config import ExpertsConfig
from eve_jax.data.image.patches import FORMATS
from eve_jax.errors import Field, FieldError, UserError
from eve_jax.process.checks import is_address, unexpected
from eve_jax.process.cores import MOST_WORKERS
from eve_jax.process.paths import expand
from eve_jax.process.section import Section, setting

RUNNERS = ("native", "ray")
NONE, PIXELS, CLIP, LITE, ENDPOINT = "none", "pixels", "clip", "lite0", "endpoint"
EMBEDDERS = (NONE, PIXELS, CLIP, LITE, ENDPOINT)
WITH_MODEL = {CLIP: "the folder of a CLIP", ENDPOINT: "the name of its model"}
ALL, NEAREST, BALANCED, RANDOM = "all", "nearest", "balanced", "random"
BY_CLUSTER = (NEAREST, BALANCED)
STARTS = ("sample", "k-means++")
FORMS = ("parquet", "records")
PATHS = ("embed.model", "experts.ocr.folder", "experts.boxes.folder", "experts.tags.folder", "plan.pilot")
REMEDY = "; begin with get_config of configs/curate.py, which has every field"


class Selection(NamedTuple):
    """What `select.rule` says: which rule, and how many records (of each cluster for NEAREST, in all for others)."""

    rule: str
    number: int


def read_rule(text: str) -> Selection:
    """Return the selection that `select.rule` says: all, nearest:N, balanced:N or random:N. Raise FieldError."""
    found = re.fullmatch(rf"({NEAREST}|{BALANCED}|{RANDOM}):([1-9][0-9]{{0,11}})", text, re.ASCII)
    if text != ALL and not found:
        raise unexpected(
            Field("select.rule"), text, f"{ALL}, {NEAREST}:N of each cluster, {BALANCED}:N or {RANDOM}:N in all"
        )
    return Selection(found[1], int(found[2])) if found else Selection(ALL, 0)


def read_formats(text: str) -> list[str]:
    """Return the formats of image files that `filter.formats` names, with commas. Raise FieldError."""
    return _listed("filter.formats", text, lambda name: name in FORMATS, f"some of {', '.join(FORMATS)}, with commas")


def read_languages(text: str) -> list[str]:
    """Return the languages that `filter.languages` names, ISO 639-1 with commas. Raise FieldError."""
    is_code = re.compile("[a-z]{2}").fullmatch
    return _listed("filter.languages", text, lambda name: bool(is_code(name)), "codes of two letters, such as en,de")


def _listed(field: str, text: str, allowed: Callable[[str], bool], expected: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not all(map(allowed, names)):
        raise unexpected(Field(field), text, expected)
    return names


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Section):
    """The section `engine`: where the work is done."""

    PATH = "engine."

    runner: str = setting(choices=RUNNERS)
    address: str
    workers: int = setting(low=0, high=MOST_WORKERS)

    def check(self) -> None:
        """Raise FieldError for an address that nothing reads."""
        if self.address and self.runner != "ray":
            raise FieldError(Field("engine.address"), f"={self.address} is for ", Field("engine.runner"), "=ray")


@dataclass(frozen=True, kw_only=True)
class FilterConfig(Section):
    """The section `filter`: the thresholds of the named rules; 0, or an empty list, switches a rule off."""

    PATH = "filter."

    short_edge: int = setting(low=0)
    aspect: float = setting(low=0)
    min_bytes: int = setting(low=0)
    max_bytes: int = setting(low=0)
    formats: str = setting(reads=read_formats)
    entropy: float = setting(low=0, high=8)
    min_words: int = setting(low=0)
    max_words: int = setting(low=0)
    languages: str = setting(reads=read_languages)
    language_words: int = setting(low=1)
    caption_similarity: float = setting(low=0, high=1)
    caption_copies: int = setting(low=1)

    def check(self) -> None:
        """Raise FieldError for thresholds that no record can pass."""
        for low, high in (("min_bytes", "max_bytes"), ("min_words", "max_words")):
            least, most = getattr(self, low), getattr(self, high)
            if most and least > most:
                raise FieldError(Field(f"filter.{low}"), f"={least} is above ", Field(f"filter.{high}"), f"={most}")
        if 0 < self.aspect < 1:
            raise unexpected(Field("filter.aspect"), self.aspect, "0, or the longer side over the shorter, at least 1")


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(Section):
    """The section `embed`: the features that clusters are made of."""

    PATH = "embed."

    kind: str = setting(choices=EMBEDDERS)
    model: str
    url: str
    batch: int = setting(low=1, high=4096)

    def check(self) -> None:
        """Raise FieldError for an embedder without its model, and for what the chosen one does not read."""
        needs = WITH_MODEL.get(self.kind)
        if needs and not self.model:
            raise FieldError(Field("embed.model"), " is empty: name ", f"{needs} (embed.kind={self.kind})")
        if self.model and not needs:
            raise FieldError(Field("embed.model"), f"={self.model}: embed.kind={self.kind} has no model")
        if self.kind == ENDPOINT and not is_address(self.url):
            raise unexpected(Field("embed.url"), self.url, "the address http://HOST:PORT/v1 of an endpoint")
        if self.url and self.kind != ENDPOINT:
            raise FieldError(Field("embed.url"), f"={self.url}: embed.kind={self.kind} asks no endpoint")


@dataclass(frozen=True, kw_only=True)
class SelectConfig(Section):
    """The section `select`: clusters of the features, and which records are taken of them."""

    PATH = "select."

    rule: str = setting(reads=read_rule)
    clusters: int = setting(low=0, high=10_000_000)
    iterations: int = setting(low=1, high=10_000)
    start: str = setting(choices=STARTS)
    sample: int = setting(low=1)
    batch: int = setting(low=0)
    mesh: str

    def check(self) -> None:
        """Raise FieldError for a rule that has no clusters."""
        if self.selection.rule in BY_CLUSTER and not self.clusters:
            raise FieldError(Field("select.rule"), f"={self.rule} requires ", Field("select.clusters"), " above 0")

    @property
    def selection(self) -> Selection:
        """Return what `rule` says."""
        return read_rule(self.rule)


@dataclass(frozen=True, kw_only=True)
class DedupConfig(Section):
    """The section `dedup`: images that show the same."""

    PATH = "dedup."

    phash: int = setting(low=-1, high=8)
    semantic: float = setting(low=0, high=2)


@dataclass(frozen=True, kw_only=True)
class WriteConfig(Section):
    """The section `write`: what is left behind."""

    PATH = "write."

    form: str = setting(choices=FORMS)
    shard_records: int = setting(low=1)


@dataclass(frozen=True, kw_only=True)
class PlanConfig(Section):
    """The section `plan`: what a full run is predicted from."""

    PATH = "plan."

    sample: int = setting(low=1)
    pilot: str
    prompt_tokens: float = setting(low=0)
    answer_tokens: float = setting(low=0)
    captions_per_gpu_day: float = setting(low=0, between=True)
    gpus: float = setting(low=0, between=True)
    gpu_hour: float = setting(low=0)
    prompt_price: float = setting(low=0)
    answer_price: float = setting(low=0)
    currency: str


@dataclass(frozen=True, kw_only=True)
class CurateConfig(Section):
    """The config of a curation."""

    name: str
    seed: int = setting(low=0)
    shard_records: int = setting(low=1)
    max_pixels: int = setting(low=1)
    engine: EngineConfig
    filter: FilterConfig
    embed: EmbedConfig
    select: SelectConfig
    dedup: DedupConfig
    experts: ExpertsConfig
    write: WriteConfig
    plan: PlanConfig

    @classmethod
    def of(cls, config: "ConfigDict | CurateConfig") -> "CurateConfig":
        """Return the config that a file of configs/ and overrides make, its paths expanded. Raise FieldError."""
        if isinstance(config, CurateConfig):
            return config
        if "select" not in config or "dedup" not in config:
            raise UserError(f"--config={config.get('name', '?')} is not of a curation: use --config=curate:evev1 ...")
        values = config.copy_and_resolve_references().to_dict()
        for path in PATHS:
            section, _, name = path.rpartition(".")
            node: Any = values
            for part in section.split("."):
                node = node.get(part) if isinstance(node, dict) else None
            if isinstance(node, dict) and isinstance(node.get(name), str):
                node[name] = expand(node[name], f"config.{path}")
        return cls.from_values(values, REMEDY)

    def check(self) -> None:
        """Raise FieldError for what requires features that are not computed."""
        needs = {"select.clusters": self.select.clusters, "dedup.semantic": self.dedup.semantic}
        for field, value in needs.items():
            if value and self.embed.kind == NONE:
                raise FieldError(Field(field), f"={value} requires features: set ", Field("embed.kind"))
        if self.dedup.semantic and not self.select.clusters:
            raise FieldError(Field("dedup.semantic"), " looks inside clusters: set ", Field("select.clusters"))
