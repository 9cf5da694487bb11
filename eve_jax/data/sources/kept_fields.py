"""Fields that go with a record and that nothing trains on: the web's caption and what experts found in the image."""

import json
from collections.abc import Mapping
from typing import Any

from eve_jax.data.record import KEPT_FIELDS


def kept_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of KEPT_FIELDS that a record with the fields `given`, none of them empty, has, as JSON values.

    A list of one value, which TensorFlow Datasets makes of every feature, is that value. What JSON cannot hold is left
    out: as long as nothing reads it, it is no reason to lose the record.
    """
    found = {}
    for name in KEPT_FIELDS:
        value = given.get(name)
        one = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(one, str | Mapping) and _is_json(one):
            found[name] = one
    return found


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError):  # UnicodeEncodeError is one
        return False
    return True
