"""What experts say about an image, as one JSON object: `{"tags": [...], "boxes": [...], "ocr": [...]}`.

    {"tags": [{"name": "espresso", "score": 0.94}],
     "boxes": [{"name": "cup", "score": 0.46, "box": [0.21, 0.3, 0.62, 0.81]}],
     "ocr": [{"text": "EXIT", "score": 0.99, "box": [0.1, 0.05, 0.3, 0.12]}]}

Boxes are [x1, y1, x2, y2] in 0..1 of the upright image, from its left and its top. The list of an expert that was not
run is absent; one that ran and found nothing has []. Tags and boxes are sorted by score, OCR lines in reading order.
"""

import json
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from eve_jax.errors import UserError
from eve_jax.process.strict_json import without_repeats

Finding = dict[str, Any]  # an entry of a list
Findings = dict[str, list[Finding]]

FIELDS = {"tags": ("name", "score"), "boxes": ("name", "score", "box"), "ocr": ("text", "score", "box")}
EXPERTS = tuple(FIELDS)
DIGITS = 4  # of scores and places that are written


def read_findings(value: str | bytes | Mapping[str, Any] | None, where: str) -> Findings:
    """Return the findings that `value` holds, JSON text or the object itself; {} for None and "".

    where: names the record or endpoint in messages. Entries keep their order, and nothing but the fields of FIELDS.
    Raises UserError for anything that does not have the form.
    """
    if value is None or value in ("", b""):
        return {}
    found = value
    if isinstance(value, str | bytes):
        try:
            found = json.loads(value, object_pairs_hook=without_repeats)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: experts are not valid JSON: {error}") from None
    if not isinstance(found, Mapping):
        raise UserError(f"{where}: experts={found!r}: expected an object with lists of {', '.join(EXPERTS)}")
    unknown = [name for name in found if name not in FIELDS and found[name] is not None]
    if unknown:
        raise UserError(f"{where}: unknown expert {unknown[0]!r}: expected one of {', '.join(EXPERTS)}")
    return {name: read_list(name, found[name], where) for name in EXPERTS if found.get(name) is not None}


def read_list(expert: str, found: Any, where: str) -> list[Finding]:
    """Return the list of one of EXPERTS, checked. Raises UserError that names `where`, the entry and the field."""
    if not isinstance(found, Sequence) or isinstance(found, str | bytes):
        raise UserError(f"{where}: {expert}={found!r}: expected a list")
    return [_entry(expert, one, f"{where}: {expert}[{place}]") for place, one in enumerate(found)]


def write_findings(findings: Findings) -> str:
    """Return the findings as one line of JSON, the same text for the same findings on every machine."""
    return json.dumps(findings, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def relative_box(box: Sequence[float], width: float, height: float) -> list[float]:
    """Return [x1, y1, x2, y2] in pixels of an image as 0..1 of it, cut at its edges."""
    sides = (width, height, width, height)
    return [round(min(max(float(at) / side, 0.0), 1.0), DIGITS) for at, side in zip(box, sides, strict=True)]


def area(finding: Finding) -> float:
    """Return the area of a finding's box as a share of the image."""
    x1, y1, x2, y2 = finding["box"]
    return (x2 - x1) * (y2 - y1)


def _entry(expert: str, value: Any, where: str) -> Finding:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}={value!r}: expected an object with {', '.join(FIELDS[expert])}")
    for field in FIELDS[expert]:
        if field not in value:
            raise UserError(f"{where}: {field} is missing")
    entry: Finding = {}
    for field in FIELDS[expert]:
        check = {"score": _share, "box": _box}.get(field, _text)
        entry[field] = check(value[field], f"{where}.{field}")
    return entry


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}={value!r}: expected a text")
    return value


def _number(value: Any) -> float:
    """Return a number as a float, NaN for anything else."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _share(value: Any, where: str) -> float:
    share = _number(value)
    if not 0 <= share <= 1:  # also refuses NaN
        raise UserError(f"{where}={value!r}: expected a number from 0 to 1")
    return share


def _box(value: Any, where: str) -> list[float]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) != 4:
        raise UserError(f"{where}={value!r}: expected [x1, y1, x2, y2]")
    x1, y1, x2, y2 = (_number(at) for at in value)
    if not (0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1):
        raise UserError(f"{where}={value!r}: expected 0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1, shares of the image")
    return [x1, y1, x2, y2]
