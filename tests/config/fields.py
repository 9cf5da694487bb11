"""Every field of a stage's config with its rule, taken from the dataclasses, and values that it cannot have."""

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args, get_origin

from configs import v1_prealign, ve
from eve_jax.config.stage import Config
from eve_jax.process.section import Rule, Section, highest, is_optional, section_of, typed_fields

ALIGNED = "v1_prealign:llm=tiny-llama"  # has every section but the encoder's, the teacher's sizes too


class Known(NamedTuple):
    """A field: where it is ("data.rows"), its type without None, its rule."""

    path: str
    kind: Any
    rule: Rule


def sections(section: type[Section] = Config) -> Iterator[type[Section]]:
    """`section` and those in it."""
    yield section
    for _, kind, _ in typed_fields(section):
        if (inner := section_of(kind)) is not None:
            yield from sections(inner)


def every_field() -> list[Known]:
    """The fields that are no sections."""
    return [
        Known(s.PATH + name, get_args(kind)[0] if is_optional(kind) else kind, rule)
        for s in sections()
        for name, kind, rule in typed_fields(s)
        if section_of(kind) is None
    ]


def wrong_types(kind: Any) -> list[Any]:
    """Values of another type than `kind`."""
    if kind is bool:
        return [1, "maybe"]
    if kind in (int, float):
        strange = [float("nan"), float("inf"), float("-inf"), True, "two", 1j]
        return [*strange, 1.5] if kind is int else strange
    if kind is str:
        return [3, True, ("a",)]
    if get_origin(kind) is tuple:
        return [3, "abc", ("abc",), (True, True)]
    return [3, "abc"]


def out_of_range(kind: Any, rule: Rule) -> list[Any]:
    """Numbers next to those that the rule allows."""
    if get_origin(kind) is tuple:
        count = 4 if get_args(kind)[-1] is Ellipsis else len(get_args(kind))
        return [(value,) * count for value in out_of_range(get_args(kind)[0], rule)]
    if kind not in (int, float):
        return []
    step = 0 if rule.between else 1
    high = highest(kind, rule)
    beyond = [high + 1 if kind is int else high * 1.01, 10**30 if kind is int else 1e300]
    beside = [rule.low - step, high] if rule.between and rule.high < float("inf") else [rule.low - step]
    return [kind(value) for value in beside] + beyond + ([rule.multiple * 9 + 1] if rule.multiple > 1 else [])


def values() -> dict[str, Any]:
    """The values of a config with every section but the vision encoder's."""
    return v1_prealign.get_config(ALIGNED.partition(":")[2]).to_dict()


def with_encoder() -> dict[str, Any]:
    """The values of a config with a vision encoder, which goes without a teacher."""
    return ve.get_config("llm=tiny-llama,encoder=random").to_dict()


def changed(path: str, value: Any) -> dict[str, Any]:
    """`values` with another one at `path`."""
    found = with_encoder() if path.startswith("model.encoder") else values()
    node, names = found, path.split(".")
    for name in names[:-1]:
        node = node[name]
    node[names[-1]] = value
    return found
