"""Sections of a config as frozen dataclasses, whose fields state the values that they take.

    @dataclass(frozen=True)
    class TrainConfig(Section):
        keep: int = setting(low=1)
        nan: str = setting(choices=("stop", "skip"))

    TrainConfig.from_values({"keep": 0, "nan": "stop"})    # FieldError: config.train.keep=0: expected ...

An instance holds what its fields allow and nothing else, so whoever takes one need not check it again.
"""

import math
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from eve_jax.errors import Field, FieldError
from eve_jax.process.checks import hint, near_name, unexpected

RULE = "rule"  # key of a field's metadata
MOST = {int: 2**31 - 1, float: 1e30}  # of numbers whose rule has no `high`: what int32 and float32 hold


@dataclass(frozen=True)
class Rule:
    """The values of a field beyond its type; of a tuple or dict, of each value in it.

    choices: the texts, or the keys of a dict, that are allowed; () = any. low, high: of numbers, which may be equal to
    them unless `between`; without `high`, MOST. multiple: of whole numbers. reads: raises UserError, which names the
    field, for a text that it cannot read.
    """

    choices: Collection[str] = ()
    low: float = -math.inf
    high: float = math.inf
    between: bool = False
    multiple: int = 1
    reads: Callable[[str], Any] | None = None


def setting(default: Any = MISSING, choices: Collection[str] = (), **rule: Any) -> Any:
    """Return a dataclass field with a `Rule`; `choices` may be a table that grows."""
    return field(default=default, metadata={RULE: Rule(choices, **rule)})


@dataclass(frozen=True)
class Section:
    """A section of a config; `PATH` is where it stands in one, "data." or "" for the config itself."""

    PATH: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, kind, rule in typed_fields(type(self)):
            _check(Field(self.PATH + name), getattr(self, name), kind, rule)
        self.check()

    def check(self) -> None:
        """Raise FieldError for values that do not go together."""

    @classmethod
    def from_values(cls, values: Mapping[str, Any], remedy: str = "") -> Self:
        """Return the section of `values`, mappings in it as sections. Raise FieldError, for unknown fields as well.

        Nothing but what may be None can be left out; `remedy` is the end of the message about what is.
        """
        known = {name: kind for name, kind, _ in typed_fields(cls)}
        for name in values:
            if name not in known:
                raise FieldError("there is no field ", Field(f"{cls.PATH}{name}"), *_suggestion(cls, str(name)))
        for name, kind in known.items():
            if name not in values and not is_optional(kind):
                raise FieldError(Field(cls.PATH + name), " is missing", remedy)
        return cls(**{name: _converted(kind, values.get(name), remedy) for name, kind in known.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return the values as a config holds them; sections that are not there are left out."""
        absent = {
            name for name, kind, _ in typed_fields(type(self)) if section_of(kind) and getattr(self, name) is None
        }
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in absent}
        return {name: value.to_dict() if isinstance(value, Section) else value for name, value in values.items()}


def typed_fields(section: type[Section]) -> tuple[tuple[str, Any, Rule], ...]:
    """Return name, type and rule of the fields of the Section class `section`, in order."""
    kinds = get_type_hints(section)
    return tuple((f.name, kinds[f.name], f.metadata.get(RULE, Rule())) for f in fields(section))


def section_of(kind: Any) -> type[Section] | None:
    """Return the section that a field of type `kind` holds; None for other fields."""
    kinds = get_args(kind) if is_optional(kind) else (kind,)
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, Section)), None)


def is_optional(kind: Any) -> bool:
    """Return True for a type that has None."""
    return get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)


def expected(kind: Any, rule: Rule) -> str:
    """Return what a field of this type and rule takes, for a message."""
    if is_optional(kind):
        return " or ".join([*(expected(k, rule) for k in get_args(kind) if k is not type(None)), "None"])
    if section := section_of(kind):
        return f"a section with the fields {', '.join(name for name, _, _ in typed_fields(section))}"
    if get_origin(kind) is tuple:
        one = get_args(kind)[0]
        count = "a list" if get_args(kind)[-1] is Ellipsis else f"{len(get_args(kind))} values"
        return f"{count}, each {expected(one, rule)}"
    if get_origin(kind) is dict:
        return "a section"
    if kind is bool:
        return "True or False"
    if kind is str:
        return f"one of {', '.join(rule.choices)}" if rule.choices else "a text"
    what = "a number" if kind is float else "a whole number"
    if rule.multiple > 1:
        what = f"a multiple of {rule.multiple}"
    return what + _range(kind, rule)


def highest(kind: Any, rule: Rule) -> float:
    """Return the largest number that a field of type int or float may have."""
    return MOST[kind] if rule.high == math.inf else rule.high


def _range(kind: Any, rule: Rule) -> str:
    low, high = (str(end) if isinstance(end, int) else f"{end:g}" for end in (rule.low, highest(kind, rule)))
    if rule.high == math.inf:
        return f" {'above' if rule.between else 'of at least'} {low}, at most {high}"
    return f" between {low} and {high}" if rule.between else f" from {low} to {high}"


def _check(name: Field, value: Any, kind: Any, rule: Rule) -> None:
    """Raise FieldError unless a field of type `kind` may have the `value`."""
    if isinstance(value, dict) and get_origin(kind) is dict:
        for key, one in value.items():
            if rule.choices and key not in rule.choices:
                near = near_name(key, rule.choices)
                raise FieldError(
                    "there is no field ",
                    Field(f"{name}.{key}"),
                    f": expected one of {', '.join(rule.choices)}",
                    hint(near),
                )
            _check(Field(f"{name}.{key}"), one, get_args(kind)[1], Rule(**(vars(rule) | {"choices": ()})))
    elif not _fits(value, kind, rule):
        near = "" if kind is not str else near_name(value, rule.choices)
        raise FieldError(*unexpected(name, value, expected(kind, rule)).parts, hint(near))
    elif rule.reads is not None:
        rule.reads(value)


def _fits(value: Any, kind: Any, rule: Rule) -> bool:
    if is_optional(kind):
        return value is None or any(_fits(value, k, rule) for k in get_args(kind) if k is not type(None))
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if not isinstance(value, tuple) or (kinds[-1] is not Ellipsis and len(value) != len(kinds)):
            return False
        return all(_fits(one, kinds[0], rule) for one in value)
    if kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, Integral if kind is int else Real):
            return False
        return _in_range(value, kind, rule)
    if kind is str:
        return isinstance(value, str) and (not rule.choices or value in rule.choices)
    return isinstance(value, get_origin(kind) or kind)


def _in_range(value: Any, kind: Any, rule: Rule) -> bool:
    try:
        finite = math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False
    if not finite or (value % rule.multiple and rule.multiple > 1):
        return False
    if rule.between:
        return rule.low < value <= MOST[kind] if rule.high == math.inf else rule.low < value < rule.high
    return rule.low <= value <= highest(kind, rule)


def _converted(kind: Any, value: Any, remedy: str) -> Any:
    """Return `value` with mappings as the sections and lists as the tuples that the type asks for."""
    section = section_of(kind)
    if section is not None and isinstance(value, Mapping):
        return section.from_values(value, remedy)
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(value)
    if get_origin(kind) is dict and isinstance(value, Mapping):
        return dict(value)
    if kind in (int, float) and isinstance(value, Real) and not isinstance(value, bool | int | float):
        return int(value) if isinstance(value, Integral) else float(value)  # NumPy's, which JSON does not take
    return value


def _suggestion(section: type[Section], name: str) -> tuple[str, ...]:
    """Return the end of a message about an unknown field: one of that name in a section of it, or one that is near."""
    for _, kind, _ in typed_fields(section):
        inner = section_of(kind)
        if inner is not None and name in (known for known, _, _ in typed_fields(inner)):
            return "; did you mean ", Field(inner.PATH + name), "?"
    near = near_name(name, [name for name, _, _ in typed_fields(section)])
    return ("; did you mean ", Field(section.PATH + near), "?") if near else ()
