"""The section `eve_jax` of config.json: an export carries settings in it that the original has no field for."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from eve_jax.data.image.rule import FITS
from eve_jax.data.text.templates import get_template
from eve_jax.errors import Field, FieldError, UserError, name_fields, shorten
from eve_jax.hf.config import CONFIG, DATA_FIELDS, INFERENCE_FIT, LLM, OURS, TEACHER_SIZES
from eve_jax.model.clip_config import ClipConfig
from eve_jax.model.quantized import QUANTIZED
from eve_jax.process.checks import known_names, whole

WEIGHTS = "weights"  # in the section: what the matrices of the layers are quantized to
REQUIRED = {"image_mode", "max_size", "max_aspect", "template"}  # in the section of any export of ours
KINDS: dict[str, type | tuple[type, ...]] = {
    "image_mode": str,
    "max_size": int,
    "max_aspect": (int, float),
    "fit": str,
    "template": str,
    "image_first": bool,
    "special_text": bool,
    "patch": int,
    "teacher": list,
    "area": list,
    "image_tokens": int,
    "token_limit": int,
}


def read_section(hf: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Return the settings of `config.data` in the section `eve_jax` of config.json `hf` of the folder `where`.

    Raise UserError naming the file and the field that is unknown, of the wrong type, or cannot be what it is.
    """
    section = _section(hf, where)
    try:
        known_names(section, (*DATA_FIELDS, INFERENCE_FIT, LLM, TEACHER_SIZES, WEIGHTS), "setting")
    except UserError as error:
        raise UserError(f"{where / CONFIG}: {OURS} has an {error}") from error
    stored_weights(hf, where)
    ours = {name: section[name] for name in DATA_FIELDS if name in section}
    check_kinds(ours, f"{where / CONFIG}: {OURS}")
    if (fit := section.get(INFERENCE_FIT, "fill")) not in FITS:
        raise UserError(
            f"{where / CONFIG}: {OURS}.{INFERENCE_FIT} is {shorten(repr(fit))}: expected one of {', '.join(FITS)}"
        )
    with located(ours, where):
        if "template" in ours:
            get_template(ours["template"])
        whole(Field("data.token_limit"), ours.get("token_limit", 0), "a number of tokens, 0 for no limit", 0)
    return ours


def stored_teacher(hf: Mapping[str, Any], where: Path) -> ClipConfig | None:
    """Return the sizes of EVEv1's teacher that the section holds, None where it holds none; raise UserError."""
    sizes = _section(hf, where).get(TEACHER_SIZES)
    if sizes is None:
        return None
    about = f"{where / CONFIG}: {OURS}.{TEACHER_SIZES}"
    if not isinstance(sizes, dict):
        raise UserError(f"{about} is {shorten(repr(sizes))}: expected the sizes of the teacher")
    with name_fields(lambda field: field.removeprefix(ClipConfig.PATH), f"{about}: "):
        return ClipConfig.from_values({f.name: f.default for f in fields(ClipConfig)} | sizes)


def stored_weights(hf: Mapping[str, Any], where: Path) -> str:
    """Return what the matrices of the layers are quantized to, "" for whole weights; raise UserError for others."""
    weights = _section(hf, where).get(WEIGHTS, "")
    if weights not in ("", *QUANTIZED):
        known = ", ".join(QUANTIZED)
        raise UserError(f"{where / CONFIG}: {OURS}.{WEIGHTS} is {shorten(repr(weights))}: expected one of {known}")
    return weights


@contextmanager
def located(ours: Mapping[str, Any], where: Path) -> Iterator[None]:
    """Name the place of a setting of the model in the folder `where` in the UserErrors that leave the block: the
    section, where `ours` of it has the setting, else the folder."""
    try:
        yield
    except FieldError as error:
        own = any(isinstance(part, Field) and part.removeprefix("data.") in ours for part in error.parts)
        place, section = (where / CONFIG, f"{OURS}.") if own else (where, "")
        text = error.text(lambda field: section + field.removeprefix("data."))
        raise UserError(f"{place}: {text}") from error


def check_kinds(settings: Mapping[str, Any], section: str) -> None:
    """Raise UserError, naming `section`, for one of DATA_FIELDS among `settings` that is of the wrong type."""
    for name in DATA_FIELDS:
        value, kind = settings.get(name), KINDS[name]
        if name in settings and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise UserError(f"{section}.{name} is {shorten(repr(value))}, which it cannot be")
    for name, least, what in (("teacher", 1, "above 0"), ("area", 0, "of at least 0")):
        pair = settings.get(name, [1, 1])
        if len(pair) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n >= least for n in pair):
            raise UserError(f"{section}.{name} is {shorten(repr(pair))}: expected two whole numbers {what}")


def _section(hf: Mapping[str, Any], where: Path) -> dict[str, Any]:
    section = {} if hf.get(OURS) is None else hf[OURS]
    if not isinstance(section, dict):
        raise UserError(f"{where / CONFIG}: {OURS} is {shorten(repr(section))}: expected a section")
    return section
