"""Checks of values that users give: one line names the setting, its value and what is expected.

Numbers may be Python's or NumPy's; True and False are none. A setting that is a field of a config is called by an
`eve_jax.errors.Field`.
"""

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any
from urllib.parse import urlsplit

from eve_jax.errors import FieldError, UserError


def whole(name: str, value: Any, expected: str, low: int, high: int | None = None) -> int:
    """Return `value` as an int. Raises UserError unless it is a whole number in low..high."""
    right = isinstance(value, Integral) and not isinstance(value, bool)
    if not right or value < low or (high is not None and value > high):
        raise unexpected(name, value, expected)
    return int(value)


def number(name: str, value: Any, expected: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return `value` as a float. Raises UserError unless it is a finite number in low..high."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise unexpected(name, value, expected)
    try:
        converted = float(value)
    except OverflowError:
        converted = math.inf
    if not math.isfinite(converted) or not low <= converted <= high:
        raise unexpected(name, value, expected)
    return converted


def is_address(url: str) -> bool:
    """Return whether `url` can be the address of an endpoint: of http or https, with a host, without white space."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port that is no number, brackets that do not match
        return False
    named = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return named and url.isprintable() and " " not in url


def of_type(name: str, value: Any, expected: str, *types: type) -> None:
    """Raises UserError unless `value` is of one of `types`."""
    if not isinstance(value, types):
        raise unexpected(name, value, expected)


def known_names(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raises UserError naming the first of `given` that is not `known`; `what` they are: "setting" or the like."""
    known = list(known)
    for name in given:
        if name not in known:
            raise UserError(
                f"unknown {what} {name!r}: expected one of {', '.join(known)}{hint(near_name(name, known))}"
            )


def encodable(name: str, text: str) -> str:
    """Return `text`. Raises UserError when it holds half of a surrogate pair, which is not a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        what = f"{text[error.start]!r}, half of a surrogate pair"
        if 0xDC80 <= code <= 0xDCFF:  # as Python reads bytes of a command line or a terminal
            what += f" or the byte 0x{code - 0xDC00:02x} of a text that is not UTF-8"
        remedy = "which no tokenizer takes: decode the text's bytes as UTF-8"
        raise UserError(f"{name}: character {error.start + 1} is {what}, {remedy}") from None
    return text


def unexpected(name: str, value: Any, expected: str) -> FieldError:
    """Return the error of a setting `name` with a `value` that it cannot have."""
    shown = " ".join(repr(value).split())
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return FieldError(name, f"={shown}: expected {expected}")


def near_name(given: Any, known: Iterable[str]) -> str:
    """Return the one of `known` that `given` is probably meant to be, "" when none is near."""
    known = list(known)
    if not isinstance(given, str):
        return ""
    lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.lower().strip(), lower, 1)
    return lower[near[0]] if near else ""


def hint(near: str) -> str:
    """Return the end of a message that proposes `near`; "" for ""."""
    return f"; did you mean {near}?" if near else ""
