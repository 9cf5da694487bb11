"""JSON objects with two values of one name, of which `json` takes the last without a word."""

from typing import Any


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the `pairs` of a JSON object as a dict: an `object_pairs_hook` for `json.loads`.

    Raises ValueError for a name that is there twice with different values.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        for name, value in pairs:
            if repr(found[name]) != repr(value):  # 1, 1.0 and true are different values
                raise ValueError(f"{name!r} stands there twice, with different values")
    return found
