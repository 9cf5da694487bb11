"""Rotary positions in a Hugging Face config.json: what is understood is taken, everything else refused by name.

The settings are in `rope_parameters` (newer releases; perhaps once for each kind of layer), in `rope_scaling`, or in
fields of their own. Implemented are the types `default` and `llama3`.
"""

import re
import sys
from typing import Any

from eve_jax.errors import UserError

DEFAULT_THETA = 10000.0  # of the config classes of Qwen2 and LLaMA, for a config.json that says nothing of positions
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
ROPE_NAMES = ("rope", "rotary")  # of the implemented positions, where a field states their kind
FULL, KINDS = "full_attention", ("full_attention", "sliding_attention", "chunked_attention", "linear_attention")
SECTIONS = ("rope_parameters", "rope_scaling")
SINGLE = ("rope_theta", "partial_rotary_factor")  # fields of their own
COMMON = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
# Names of fields that are about positions, and of those among them that only state a length or are about images.
ABOUT = re.compile(
    r"rope|rotary|yarn|ntk|alibi|xpos|(^|_)theta|freq_base|base_freq|(long|short)_factor|nope(_|$)|logn"
    r"|position|pos_?(emb|enc)|relative_attention|interpolat|extrapolat|mscale|(low|high)_freq|beta_(fast|slow)"
    r"|(seq|context|ctx)\w*_(factor|alpha|scal(e|ing)|ratio)|self_extend|dual_chunk"
)
OTHER = re.compile(r"mm_.*|((original_)?max|n|num)_positions?(_embeddings)?")
# Other names of rope_theta.
THETA = re.compile(r"theta|(rope_|rotary_(emb_)?)(base|theta)|(rope_)?(freq_base|base_freq)")
UNSCALED = re.compile(r".*(factor|alpha|scale|scaling|pct|percent|percentage|fraction)")  # 1 means no change

SWITCH = re.compile(r"((use|with|apply|enable)_)?(rope|rotary)(_?(pos|emb)\w*)?")  # false: no rotary positions at all


def read_rope(hf: dict[str, Any]) -> tuple[float, tuple[float, ...]]:
    """Return theta and `ModelConfig.rope_scaling` of config.json `hf`.

    Raise UserError, without the file's name, for a field that is not understood, asks for another type than is
    implemented, is no number, or says something else than another field.
    """
    sections = {name: _flat(hf[name], name) for name in SECTIONS if hf.get(name) not in (None, {})}
    thetas = {f"{name}.rope_theta": s["rope_theta"] for name, s in sections.items() if "rope_theta" in s}
    if hf.get("rope_theta") is not None:
        thetas["rope_theta"] = hf["rope_theta"]
    if "rope_parameters" in sections and not thetas:
        raise UserError("rope_parameters has no rope_theta")
    theta = _same({name: float(_number(value, name)) for name, value in thetas.items()}, DEFAULT_THETA)
    _refuse_fields(hf, theta)
    original = hf.get("original_max_position_embeddings")
    return theta, _same({name: _scaling(s, name, original) for name, s in sections.items()}, ())


def _same(values: dict[str, Any], default: Any) -> Any:
    """Return what all fields say, or `default` when there is none; raise UserError when they differ."""
    (first, value), *others = values.items() or [("", default)]
    for name, other in others:
        if other != value:
            raise UserError(f"{first} is {value}, but {name} is {other}")
    return value


def about_positions(name: str) -> bool:
    """Return True for a field of config.json that `read_rope` reads, or refuses unless it changes nothing."""
    return ABOUT.search(name.lower()) is not None and not OTHER.fullmatch(name)


def _refuse_fields(hf: dict[str, Any], theta: float) -> None:
    """Raise UserError for a field of the config itself that is about positions and may change them."""
    for name, value in hf.items():
        read_elsewhere = name in (*SECTIONS, *SINGLE, "position_embedding_type", "alibi")
        if about_positions(name) and not read_elsewhere and not _changes_nothing(name.lower(), value, theta):
            raise UserError(f"{name} is {value!r}, which is not understood")
    _refuse_partial(hf, "partial_rotary_factor")


def _changes_nothing(name: str, value: Any, theta: float) -> bool:
    if isinstance(value, bool) and SWITCH.fullmatch(name):
        return value
    if value is None or value is False or value in ({}, []):
        return True
    if isinstance(value, str):
        return value.lower() in ROPE_NAMES
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value == theta if THETA.fullmatch(name) else value == 1 and UNSCALED.fullmatch(name) is not None


def _refuse_partial(section: dict[str, Any], name: str) -> None:
    factor = section.get("partial_rotary_factor")
    if factor is not None and factor != 1.0:
        raise UserError(f"{name} is {factor!r}: rotary positions of a part of each head are not implemented")


def _flat(section: Any, name: str) -> dict[str, Any]:
    """Return the settings of the layers with full attention, which are those of all kinds of layers."""
    if not isinstance(section, dict):
        raise UserError(f"{name} is {section!r}: expected an object")
    said = {key: value for key, value in section.items() if value is not None}
    nested = [key for key in said if isinstance(said[key], dict)]
    if not nested:
        return said
    unknown = [key for key in nested if key not in KINDS]
    if unknown:
        raise UserError(f"{name}.{unknown[0]} is not understood; known kinds of layers: {', '.join(KINDS)}")
    for key in said:
        if key not in nested:
            raise UserError(f"{name}.{key} is not understood next to {name}.{nested[0]}")
    each = {key: _flat(said[key], f"{name}.{key}") for key in nested}
    if FULL not in each:
        raise UserError(f"{name} has no field {FULL!r}")
    for key, settings in each.items():
        if settings != each[FULL]:
            raise UserError(f"{name}.{key} is not the same as {name}.{FULL}: one for all layers is implemented")
        if "rope_theta" not in settings:
            raise UserError(f"{name}.{key} has no rope_theta")
    return each[FULL]


def _scaling(section: dict[str, Any], name: str, original: Any) -> tuple[float, ...]:
    """Return `ModelConfig.rope_scaling` of a section without nulls.

    `original` is the config's own original_max_position_embeddings, which newer releases prefer to the section's.
    """
    kinds = {f"{name}.{key}": section[key] for key in ("rope_type", "type") if key in section}
    kind = _same(kinds, "default")
    if kind not in ("default", "llama3"):
        raise UserError(f"{name} of type {kind!r}, which eve_jax does not have")
    fields = LLAMA3 if kind == "llama3" else ()
    for key, value in section.items():
        if key not in (*COMMON, *fields):
            raise UserError(f"{name}.{key} is {value!r}, which is not understood with type {kind!r}")
    _refuse_partial(section, f"{name}.partial_rotary_factor")
    for key in fields:
        if key not in section:
            raise UserError(f"{name} of type llama3 has no field {key!r}")
    values = tuple(_number(section[key], f"{name}.{key}") for key in fields)
    if values and original not in (None, values[3]):
        raise UserError(f"{name}.{LLAMA3[3]} is {values[3]}, but {LLAMA3[3]} is {original!r}")
    if values and values[1] >= values[2]:
        raise UserError(f"{name}.low_freq_factor is {values[1]}, not below high_freq_factor, which is {values[2]}")
    return values


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
        raise UserError(f"{name} is {value!r}: expected a number above 0")
    return value
