"""Filtering: named rules over the measured columns; the first one that a record fails is why it is left out."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eve_jax.curate.config import FilterConfig, read_formats, read_languages
from eve_jax.curate.minhash import signatures
from eve_jax.curate.stage import Stage, key_of
from eve_jax.curate.stages.measure import Measure
from eve_jax.errors import Field, UserError, install
from eve_jax.process.checks import unexpected

NAME, VERSION = "filter", 1
SCHEMA = pa.schema(
    {
        "index": pa.int64(),
        "rule": pa.string(),  # "" of what is kept
        "value": pa.string(),  # what the rule looked at
        "signature": pa.binary(),  # MinHash of the caption of what is kept; empty where it is not compared
    }
)
UNUSABLE = {"record": "ingest", "images": "ingest", "image": "measure"}  # rules of what was measured: their stages
OF_CAPTIONS = ("caption_similarity", "caption_copies")  # settings that a shard's filter does not depend on


class Rule(NamedTuple):
    """A rule: its name, which records fail it (bool [n]), and the values [n] that it looked at."""

    name: str
    fails: np.ndarray
    values: Any


@dataclass(frozen=True)
class Filter:
    """Makes a shard of SCHEMA from the measured one of the same number."""

    stage: Stage
    measured: Stage
    rules: FilterConfig

    def __call__(self, number: int) -> None:
        """Write shard `number`."""
        table = self.measured.read(number)
        rule, value = first_failing(table, self.rules)
        captions = [c if not r else "" for c, r in zip(table["caption"].to_pylist(), rule, strict=True)]
        compared = bool(self.rules.caption_similarity)
        signature = signatures(captions) if compared else [b""] * len(captions)
        self.stage.write(
            number, {"index": table["index"], "rule": rule, "value": value, "signature": signature}, SCHEMA
        )


def filter_stage(measure: Measure, rules: FilterConfig) -> Filter:
    """Return what filters the shards of `measure`."""
    settings = {name: value for name, value in asdict(rules).items() if name not in OF_CAPTIONS}
    settings["compared"] = bool(rules.caption_similarity)
    key = key_of(NAME, VERSION, settings, measure.stage.key)
    return Filter(Stage(measure.stage.out, NAME, key), measure.stage, rules)


def first_failing(table: pa.Table, rules: FilterConfig) -> tuple[list[str], list[str]]:
    """Return the first rule that each measured record fails, "" for none, and the value that it looked at."""
    names = table["rule"].to_pylist()
    values = table["reason"].to_pylist()
    for rule in _rules(table, rules):
        for row in np.flatnonzero(rule.fails):
            if not names[row]:
                value = rule.values[row]
                names[row], values[row] = rule.name, f"{value:.4g}" if isinstance(value, float) else str(value)
    return names, values


def _rules(table: pa.Table, rules: FilterConfig) -> Iterator[Rule]:
    """Yield the rules that are on, in order."""
    width, height, size = (np.maximum(table[name].to_numpy(), 1) for name in ("width", "height", "bytes"))
    short, aspect = np.minimum(width, height), np.maximum(width, height) / np.minimum(width, height)
    entropy = table["entropy"].to_numpy()
    formats = table["format"].to_numpy(zero_copy_only=False)
    captions = table["caption"].to_pylist()
    words = np.array([len(caption.split()) for caption in captions])
    if rules.short_edge:
        yield Rule("short_edge", short < rules.short_edge, short)
    if rules.aspect:
        yield Rule("aspect", aspect > rules.aspect, aspect.tolist())
    if rules.min_bytes:
        yield Rule("min_bytes", size < rules.min_bytes, size)
    if rules.max_bytes:
        yield Rule("max_bytes", size > rules.max_bytes, size)
    if rules.formats:
        yield Rule("format", ~np.isin(formats, read_formats(rules.formats)), formats)
    if rules.entropy:
        yield Rule("entropy", entropy < rules.entropy, entropy.tolist())
    if rules.min_words:
        yield Rule("min_words", words < rules.min_words, words)
    if rules.max_words:
        yield Rule("max_words", words > rules.max_words, words)
    if rules.languages:
        usable = pc.equal(table["rule"], "").to_numpy()
        judged = usable & (words >= rules.language_words)
        found = np.array([language(c) if judge else "" for c, judge in zip(captions, judged, strict=True)])
        yield Rule("language", judged & ~np.isin(found, read_languages(rules.languages)), found)


def language(text: str) -> str:
    """Return the language that a caption is probably in, ISO 639-1. Raises UserError without py3langid."""
    return _langid().classify(text)[0]


def check_languages(names: str) -> None:
    """Raise UserError for a language of `filter.languages` that no caption is found to be in, and without py3langid."""
    known = {name for name, _ in _langid().rank("")}
    unknown = [name for name in read_languages(names) if name not in known]
    if unknown:
        raise unexpected(Field("filter.languages"), unknown[0], f"some of {', '.join(sorted(known))}")


@cache
def _langid() -> Any:
    try:
        from py3langid import langid
    except ImportError as error:
        raise UserError(f"config.filter.languages requires py3langid ({error}): {install('curate')}") from None
    return langid
