"""Options of the compiler: read, those of the chip by default, and those that a compiler does not know."""

import jax
import pytest

from eve_jax.errors import FieldError
from eve_jax.process import compiler_options
from eve_jax.process.compiler_options import DEFAULTS, OF_UPDATES, Options, options_for, parse_options

KNOWN, UNKNOWN = "xla_backend_optimization_level", "xla_of_another_year"


def test_reading() -> None:
    assert parse_options("") == {}
    assert parse_options("auto, xla_a=1,xla_b=true") == {"auto": "", "xla_a": "1", "xla_b": "true"}


@pytest.mark.parametrize("text", ["xla_a", "xla_a=", "=1", "--xla_a=1", "automatic", "auto=1", "xla_a=1;xla_b=2 x,3"])
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(FieldError, match=r"config\.compile\.options=.*is neither auto nor NAME=VALUE"):
        parse_options(text)


def test_twice() -> None:
    with pytest.raises(FieldError, match="xla_a comes twice"):
        parse_options("xla_a=1,xla_a=2")


def test_unknown_ones_are_left_out_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    device = jax.devices()[0]
    monkeypatch.setitem(DEFAULTS, device.device_kind, {KNOWN: "1", UNKNOWN: "true", f"{UNKNOWN}_2": "3"})
    found = options_for(f"auto,{KNOWN}=2", device)
    assert (found.taken, found.unknown) == ({KNOWN: "2"}, (UNKNOWN, f"{UNKNOWN}_2"))
    assert found.lines() == [
        f"config.compile.options={KNOWN}=2",
        f"compiler options left out, which this compiler does not know: {UNKNOWN}, {UNKNOWN}_2",
    ]
    assert options_for(f"{KNOWN}=2", device) == ({KNOWN: "2"}, ())


def test_nothing_is_compiled_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler_options.jax, "jit", None)
    assert "cpu" not in DEFAULTS
    assert options_for("auto", jax.devices()[0]).lines() == options_for("", jax.devices()[0]).lines() == []


def test_a_value_that_the_compiler_refuses() -> None:
    with pytest.raises(FieldError, match=rf"config\.compile\.options='{KNOWN}=much': .*'much'"):
        options_for(f"{KNOWN}=much", jax.devices()[0])


def test_options_of_updates_on_a_cpu() -> None:
    """By `auto` alone, and known to this compiler."""
    device = jax.devices("cpu")[0]
    own = OF_UPDATES["cpu"]
    assert options_for("auto", device, update=True) == Options(own)
    assert options_for("auto", device) == options_for("", device, update=True) == Options({})
