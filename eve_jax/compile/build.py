"""Compiles programs, shows that it is at work, and keeps what the compiler says and what the result holds."""

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import jax
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from eve_jax.compile.abstract import Program
from eve_jax.compile.count import Counts, count

INVOLUNTARY = "Involuntary full rematerialization"
# What the TPU compiler says of temporaries and code together, and of a program that does not fit.
_USED = re.compile(r"program HBM usage: ([\d.]+)([KMGT]?) /")
_OUT_OF_MEMORY = re.compile(r"required for HLO temporaries \(([\d.]+)([KMGT]?)\)")


class Memory(NamedTuple):
    """Bytes on a chip of a compiled program, padding included.

    temporaries: the most that is alive at a time, and the gaps between. outputs: those that do not take the place of an
    argument.
    """

    arguments: float
    outputs: float
    temporaries: float
    code: float

    @property
    def total(self) -> float:
        """What the program needs while it runs."""
        return sum(self)


class Built(NamedTuple):
    """A compiled program.

    memory: None when it does not fit, then `needed` says how many bytes it wants in all (0 if unknown).
    involuntary: the compiler's warnings that it had to gather a whole array to move it to another sharding.
    """

    program: Program
    memory: Memory | None
    needed: float
    counts: Counts
    involuntary: list[str]
    seconds: float


@contextmanager
def captured() -> Iterator[IO[bytes]]:
    """Standard error of this process and of the C++ in it, as a file; Python's own `sys.stderr` goes on as before."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        shown = os.dup(2)
        before = sys.stderr
        os.dup2(file.fileno(), 2)
        try:
            with os.fdopen(os.dup(shown), "w", buffering=1) as sys.stderr:
                yield file
        finally:
            sys.stderr = before
            os.dup2(shown, 2)
            os.close(shown)


def read(file: IO[bytes]) -> str:
    """All that was written to a captured file so far."""
    file.seek(0)
    return file.read().decode(errors="replace")


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Shows the phase given to the function that it yields, with the seconds it has taken, on standard error."""
    console = Console(file=sys.stderr)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        started = time.monotonic()

        def phase(name: str) -> None:
            bar.reset(task, description=name, total=None)
            if not console.is_terminal:
                console.print(f"{time.monotonic() - started:6.0f} s  {name}", highlight=False)

        yield phase


def build(program: Program, label: str) -> Built:
    """Compiles `program`; `label` names it in the progress shown.

    Raises jax.errors.JaxRuntimeError with the compiler's words when it fails for another reason than memory.
    """
    started = time.monotonic()
    with captured() as file, progress() as phase:
        phase(f"{label}: tracing")
        lowered = program.function.lower(*program.arguments)
        phase(f"{label}: compiling")
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            seconds = time.monotonic() - started
            needed = _bytes(_OUT_OF_MEMORY.findall(str(error)))
            return Built(program, None, needed, Counts(), _involuntary(read(file)), seconds)
        phase(f"{label}: counting")
        counts = count(compiled.as_text())
        seconds = time.monotonic() - started
        said = read(file)
        return Built(program, _memory(compiled, _bytes(_USED.findall(said))), 0, counts, _involuntary(said), seconds)


def _memory(compiled: Any, used: float) -> Memory:
    """`used`: temporaries and code by the compiler's own account, 0 where it gave none.

    Its figures for programs miss gaps in the peak and count them twice in the temporaries.
    """
    m = compiled.memory_analysis()
    arguments, code = m.argument_size_in_bytes, m.generated_code_size_in_bytes
    outputs = m.output_size_in_bytes - m.alias_size_in_bytes
    temporaries = used - code if used else m.peak_memory_in_bytes - arguments - outputs
    return Memory(arguments, outputs, max(temporaries, 0), code)


def _bytes(found: list[tuple[str, str]]) -> float:
    """The last of numbers with a unit of 1024, such as ("7.60", "G"); 0 without one."""
    return float(found[-1][0]) * 2 ** (10 * " KMGT".index(found[-1][1] or " ")) if found else 0.0


def _involuntary(text: str) -> list[str]:
    """The compiler's warnings of that kind, a line each, without time stamp and place in its source."""
    return [line[line.index(INVOLUNTARY) :].strip() for line in text.splitlines() if INVOLUNTARY in line]
