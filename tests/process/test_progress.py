"""Progress is shown on the terminal of standard error, and nowhere else."""

import io
import sys
from collections.abc import Callable

import pytest

from eve_jax.process.progress import BYTES, ProgressBar, spinner, tracked


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Makes standard error a terminal; to be called in the test itself, before which pytest sets it again."""

    def make() -> Terminal:
        monkeypatch.setenv("COLUMNS", "160")
        monkeypatch.setenv("TERM", "xterm")
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return make


def everything(off: bool = False) -> None:
    with ProgressBar("bar [x]", 10, done=4, unit="records", status="compiling ...", keep=True, off=off) as bar:
        bar.advance(6)
    with ProgressBar("load", 2_000_000, unit=BYTES, keep=True, off=off) as bar:
        bar.advance(2_000_000)
    with ProgressBar("train", 3, keep=True, off=off) as bar:
        bar.set(2, "loss 1.5")
    assert list(tracked([1, 2, 3], "tracked", off=off)) == [1, 2, 3]
    with spinner("working", off=off) as show:
        show("phase 2")


def test_on_a_terminal(terminal: Callable[[], Terminal]) -> None:
    stream = terminal()
    everything()
    shown = stream.getvalue()
    for text in ("bar [x]", "10/10", "records/s", "2.0/2.0 MB", "2/3", "loss 1.5", "tracked", "phase 2"):
        assert text in shown, text


def test_nowhere_else(capsys: pytest.CaptureFixture[str]) -> None:
    everything()
    with spinner(lines=True) as show:
        show("tracing")
    captured = capsys.readouterr()
    assert (captured.out, captured.err.split()) == ("", ["0", "s", "tracing"])


def test_off_or_short(terminal: Callable[[], Terminal]) -> None:
    stream = terminal()
    everything(off=True)
    assert list(tracked(range(5), "few", least=6)) == [0, 1, 2, 3, 4]
    assert stream.getvalue() == ""


def test_standard_output_stays_what_it_is(terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that standard output goes to gets what is printed while a bar is shown."""
    stream, file = terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    with ProgressBar("bar", 2):
        print("a line")
    assert file.getvalue() == "a line\n"
    assert "a line" not in stream.getvalue()
