"""Checks of values: Python's and NumPy's numbers pass as such, anything else is one line."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from eve_jax.errors import UserError
from eve_jax.process.checks import encodable, is_address, known_names, number, of_type, whole


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_whole_numbers(value: Any) -> None:
    assert whole("rows", value, "1 to 9", 1, 9) == 3
    assert type(whole("rows", value, "1 to 9", 1, 9)) is int


@pytest.mark.parametrize("value", [0, 10, 3.0, np.float32(3), "3", True, np.True_, None, [3], np.array(3), b"3"])
def test_no_whole_numbers(value: Any) -> None:
    with pytest.raises(UserError, match=r"^rows=.*: expected 1 to 9$"):
        whole("rows", value, "1 to 9", 1, 9)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_numbers(value: Any) -> None:
    assert number("x", value, "0 to 1", 0, 1) == 0.5
    assert type(number("x", value, "0 to 1", 0, 1)) is float


@pytest.mark.parametrize(
    "value", [-1, 1.5, np.nan, -np.inf, np.float32(np.inf), 10**400, "0.5", False, None, 1j, np.array([0.5, 1])]
)
def test_no_numbers(value: Any) -> None:
    with pytest.raises(UserError, match=r"^x=.*: expected 0 to 1$") as error:
        number("x", value, "0 to 1", 0, 1)
    assert len(str(error.value)) < 110


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (lambda: of_type("name", b"x", "a text", str), "name=b'x': expected a text"),
        (lambda: known_names(["sed"], ["seed", "rows"], "setting"), "unknown setting 'sed': .* did you mean seed?"),
        (lambda: known_names(["zzz"], ["seed"], "setting"), "unknown setting 'zzz': expected one of seed$"),
        (lambda: encodable("text", "a\ud800b"), r"text: character 2 is '\\ud800', half of a surrogate pair"),
        (
            lambda: encodable("text", "\udc80"),
            r"text: character 1 is '\\udc80', half of a .* or the byte 0x80 of a text that is",
        ),
    ],
)
def test_other_checks(check: Callable[[], Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check()


def test_text_that_can_be_encoded() -> None:
    assert encodable("text", "a 中 👩\u200d👧") == "a 中 👩\u200d👧"


@pytest.mark.parametrize("url", ["http://h", "https://h.example:8000/v1", "http://[::1]:80/x?y=1"])
def test_addresses(url: str) -> None:
    assert is_address(url)


@pytest.mark.parametrize(
    "url",
    [
        *("", "h:80/v1", "ftp://h/v1", "http:///v1", "http://", "http://h:0", "http://h:99999", "http://h:x"),
        *("http://[::1/x", "http://a b/v1", "http://h/v1 ", "http://h/\nv1"),
    ],
)
def test_what_is_no_address(url: str) -> None:
    """Such an endpoint would be waited for as one that is away."""
    assert not is_address(url)
