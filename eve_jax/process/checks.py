"""Checks of values that users give: one line names the setting, its value and what is expected.

Numbers may be Python's or NumPy's; True and False are none.
"""

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from eve_jax.errors import UserError


def whole(name: str, value: Any, expected: str, low: int, high: int | None = None) -> int:
    """Return `value` as an int. Raises UserError unless it is a whole number in low..high."""
    right = isinstance(value, Integral) and not isinstance(value, bool)
    if not right or value < low or (high is not None and value > high):
        raise _unexpected(name, value, expected)
    return int(value)


def number(name: str, value: Any, expected: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return `value` as a float. Raises UserError unless it is a finite number in low..high."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise _unexpected(name, value, expected)
    try:
        converted = float(value)
    except OverflowError:
        converted = math.inf
    if not math.isfinite(converted) or not low <= converted <= high:
        raise _unexpected(name, value, expected)
    return converted


def of_type(name: str, value: Any, expected: str, *types: type) -> None:
    """Raises UserError unless `value` is of one of `types`."""
    if not isinstance(value, types):
        raise _unexpected(name, value, expected)


def known_names(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raises UserError naming the first of `given` that is not `known`; `what` they are: "setting" or the like."""
    known = list(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"unknown {what} {name!r}: expected one of {', '.join(known)}{hint}")


def encodable(name: str, text: str) -> str:
    """Return `text`. Raises UserError when it holds half of a surrogate pair, which is not a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{name}: character {error.start + 1} is {text[error.start]!r}, half of a surrogate pair, which no "
            "tokenizer takes: decode the text's bytes as UTF-8"
        ) from None
    return text


def _unexpected(name: str, value: Any, expected: str) -> UserError:
    shown = " ".join(repr(value).split())
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return UserError(f"{name}={shown}: expected {expected}")
