"""Rotary positions in a Hugging Face config.json: what is understood is taken, everything else refused by name.

The settings are in `rope_parameters` (newer releases; perhaps once for each kind of layer), in `rope_scaling`, or in
fields of their own. Implemented are the types `default`, `linear`, `llama3` and `yarn`.
"""

import math
import re
import sys
from collections.abc import Mapping
from typing import Any

from eve_jax.errors import UserError
from eve_jax.hf.families import Family
from eve_jax.model.config import ModelConfig

DEFAULT_THETA = 10000.0  # of the config classes of Qwen2 and LLaMA, for a config.json that says nothing of positions
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
ROPE_NAMES = ("rope", "rotary")  # of the implemented positions, where a field states their kind
FULL, KINDS = "full_attention", ("full_attention", "sliding_attention", "chunked_attention", "linear_attention")
SECTIONS = ("rope_parameters", "rope_scaling")
SINGLE = ("rope_theta", "partial_rotary_factor")  # fields of their own
LOCAL, LOCAL_THETA = "sliding_attention", "rope_local_base_freq"
# Fields of yarn that may be absent.
YARN = ("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate", LLAMA3[3])
TYPES = {"default": (), "linear": LLAMA3[:1], "llama3": LLAMA3, "yarn": (LLAMA3[0], *YARN)}
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

READ_BY_FAMILY = ("no_rope_layers", "no_rope_layer_interval")

SWITCH = re.compile(r"((use|with|apply|enable)_)?(rope|rotary)(_?(pos|emb)\w*)?")  # false: no rotary positions at all


def read_rope(hf: Mapping[str, Any], family: Family | None = None) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that config.json `hf` has of positions: `rope_theta`, and others as needed.

    family: of a plain LLM, for what config.json does not say. Raise UserError, without the file's name, for a field
    that is not understood, asks for another type than is implemented, is no number, or says something else than
    another field.
    """
    local = family.local_theta if family else 0.0
    if local:
        hf, local = _without_local(hf, local)
    sections = {name: _flat(hf[name], name) for name in SECTIONS if hf.get(name) not in (None, {})}
    thetas = {f"{name}.rope_theta": s["rope_theta"] for name, s in sections.items() if "rope_theta" in s}
    if hf.get("rope_theta") is not None:
        thetas["rope_theta"] = hf["rope_theta"]
    if "rope_parameters" in sections and not thetas:
        raise UserError("rope_parameters has no rope_theta")
    default = family.theta if family else DEFAULT_THETA
    theta = _same({name: float(_number(value, name)) for name, value in thetas.items()}, default)
    _refuse_fields(hf, theta)
    kind, *scaling = _same({name: _scaling(s, name, hf) for name, s in sections.items()}, ()) or ("default",)
    found = {"rope_theta": theta} | ({"local_rope_theta": local} if local else {})
    return found | ({"rope_type": kind, "rope_scaling": tuple(scaling)} if scaling else {})


def _without_local(hf: Mapping[str, Any], theta: float) -> tuple[dict[str, Any], float]:
    """Return `hf` with the positions of layers with full attention alone, and theta of the local ones (Gemma 3)."""
    hf, found = dict(hf), {}
    if (given := hf.pop(LOCAL_THETA, None)) is not None:
        found[LOCAL_THETA] = float(_number(given, LOCAL_THETA))
    section = hf.get("rope_parameters")
    if isinstance(section, dict) and isinstance(section.get(LOCAL), dict):
        name = f"rope_parameters.{LOCAL}"
        own = {key: value for key, value in section[LOCAL].items() if value is not None}
        hf["rope_parameters"] = {key: value for key, value in section.items() if key != LOCAL}
        if _scaling(own, name, hf):
            raise UserError(f"{name} is scaled, which eve_jax does not have for local layers with a theta of their own")
        if "rope_theta" in own:
            found[f"{name}.rope_theta"] = float(_number(own["rope_theta"], f"{name}.rope_theta"))
    if isinstance(section, dict) and section and not isinstance(section.get(FULL), dict):
        raise UserError(f"rope_parameters has no field {FULL!r}")
    return hf, _same(found, theta)


def rope_fields(cfg: ModelConfig) -> dict[str, Any]:
    """The fields of config.json, as all releases read them, of the scaled positions of `cfg`; {} where they are not."""
    if not cfg.rope_scaling:
        return {}
    values = dict(zip(LLAMA3, cfg.rope_scaling, strict=False))
    if cfg.rope_type == "yarn":
        names = (LLAMA3[0], LLAMA3[3], "beta_fast", "beta_slow", "attention_factor", "truncate")
        values = dict(zip(names, cfg.rope_scaling, strict=True))
        values["truncate"] = bool(values["truncate"])
    if LLAMA3[3] in values:
        values[LLAMA3[3]] = int(values[LLAMA3[3]])
    return {"rope_scaling": {"rope_type": cfg.rope_type, **values}}


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


def _refuse_fields(hf: Mapping[str, Any], theta: float) -> None:
    """Raise UserError for a field of the config itself that is about positions and may change them."""
    for name, value in hf.items():
        read_elsewhere = name in (*SECTIONS, *SINGLE, *READ_BY_FAMILY, "position_embedding_type", "alibi")
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


def _refuse_partial(section: Mapping[str, Any], name: str) -> None:
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
    each = {key: {k: value for k, value in said[key].items() if value is not None} for key in nested}
    if FULL not in each:
        raise UserError(f"{name} has no field {FULL!r}")
    for key, settings in each.items():
        if settings != each[FULL]:
            raise UserError(f"{name}.{key} is not the same as {name}.{FULL}: one for all layers is implemented")
        if "rope_theta" not in settings:
            raise UserError(f"{name}.{key} has no rope_theta")
    return each[FULL]


def _scaling(section: dict[str, Any], name: str, hf: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return `ModelConfig.rope_type` and the numbers of `rope_scaling` of a section without nulls; () for unscaled.

    Newer releases prefer the original_max_position_embeddings of the config `hf` itself to the section's.
    """
    kinds = {f"{name}.{key}": section[key] for key in ("rope_type", "type") if key in section}
    kind = _same(kinds, "default")
    if not isinstance(kind, str) or kind not in TYPES:
        raise UserError(f"{name} of type {kind!r}, which eve_jax does not have")
    for key, value in section.items():
        if key not in (*COMMON, *TYPES[kind]):
            raise UserError(f"{name}.{key} is {value!r}, which is not understood with type {kind!r}")
    _refuse_partial(section, f"{name}.partial_rotary_factor")
    for key in TYPES[kind]:
        if key not in section and (kind == "llama3" or key not in YARN):
            raise UserError(f"{name} of type {kind} has no field {key!r}")
    if kind == "yarn":
        return kind, *_yarn(section, name, hf)
    values = tuple(_number(section[key], f"{name}.{key}") for key in TYPES[kind])
    if kind == "llama3":
        _check_original(values[3], name, hf)
        if values[1] >= values[2]:
            raise UserError(f"{name}.low_freq_factor is {values[1]}, not below high_freq_factor, which is {values[2]}")
    return (kind, *values) if values else ()


def _check_original(value: float, name: str, hf: Mapping[str, Any]) -> None:
    other = hf.get(LLAMA3[3])
    if other not in (None, value):
        raise UserError(f"{name}.{LLAMA3[3]} is {value}, but {LLAMA3[3]} is {other!r}")


def _yarn(section: dict[str, Any], name: str, hf: Mapping[str, Any]) -> tuple[float, ...]:
    """Factor, original length, fast and slow turns, factor of attention; 1 where the ramp's ends are whole pairs."""

    def of(key: str, default: Any) -> float:
        return _number(section.get(key, default), f"{name}.{key}")

    factor, fast, slow = of("factor", None), of("beta_fast", 32), of("beta_slow", 1)
    original = of(LLAMA3[3], hf.get("max_position_embeddings"))
    if LLAMA3[3] in section:
        _check_original(original, name, hf)
    if fast <= slow:
        raise UserError(f"{name}.beta_fast is {fast}, not above beta_slow, which is {slow}")
    truncate = section.get("truncate", True)
    if not isinstance(truncate, bool):
        raise UserError(f"{name}.truncate is {truncate!r}: expected true or false")

    def scale(by: float) -> float:
        return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0

    attention = scale(1.0)
    if "mscale" in section and "mscale_all_dim" in section:
        attention = scale(of("mscale", None)) / scale(of("mscale_all_dim", None))
    return factor, original, fast, slow, of("attention_factor", attention), float(truncate)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
        raise UserError(f"{name} is {value!r}: expected a number above 0")
    return value
