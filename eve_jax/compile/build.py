"""Compiles programs, shows that it is at work, and keeps what the compiler says and what the result holds."""

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding

from eve_jax.compile.abstract import Program
from eve_jax.compile.capture import captured, read
from eve_jax.compile.count import Counts, count
from eve_jax.process.progress import spinner

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

    memory: None when it does not fit, then `needed` says how many bytes it requires in all (0 if unknown).
    involuntary: the compiler's warnings that it had to gather a whole array to move it to another sharding.
    seconds, cpu_seconds: that it took, by the clock and of the processor.
    """

    program: Program
    memory: Memory | None
    needed: float
    counts: Counts
    involuntary: list[str]
    seconds: float
    cpu_seconds: float


def build(program: Program, label: str) -> Built:
    """Compiles `program`; `label` names it in the progress shown. Ctrl-C is heard while the compiler is at work.

    Raises jax.errors.JaxRuntimeError with the compiler's words when it fails for another reason than memory.
    """
    started, cpu = time.monotonic(), time.process_time()
    with captured() as file, spinner(lines=True) as phase:
        phase(f"{label}: tracing")
        lowered = program.function.lower(*program.arguments)
        phase(f"{label}: compiling")
        memory, counts, needed = None, Counts(), 0.0
        try:
            compiled = _aside(lowered.compile)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            needed = _bytes(_OUT_OF_MEMORY.findall(str(error)))
        else:
            phase(f"{label}: counting")
            counts = count(compiled.as_text(), _nodes(program))
            memory = _memory(compiled, _bytes(_USED.findall(read(file))))
        took = time.monotonic() - started, time.process_time() - cpu
        return Built(program, memory, needed, counts, _involuntary(read(file)), *took)


def _nodes(program: Program) -> list[int]:
    """The node of each device of a program for GPUs, in the order of its mesh; none for other devices."""
    where = [leaf.sharding for leaf in jax.tree.leaves(program.arguments) if hasattr(leaf, "sharding")]
    meshes = [place.mesh for place in where if isinstance(place, NamedSharding) and isinstance(place.mesh, Mesh)]
    devices = meshes[0].devices.flat if meshes else ()
    return [device.process_index for device in devices if device.platform == "gpu"]


def _aside(function: Callable[[], Any]) -> Any:
    """`function()` in another thread, so that this one can be interrupted."""
    future: Future[Any] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    while not future.done():
        wait([future], timeout=0.2)
    return future.result()


def _memory(compiled: Any, used: float) -> Memory:
    """`used`: temporaries and code by the TPU compiler's own account, 0 where there is none (virtual devices).

    Its figures for programs miss gaps in the peak and count them twice in the temporaries.
    """
    m = compiled.memory_analysis()
    arguments, code = m.argument_size_in_bytes, m.generated_code_size_in_bytes
    outputs = m.output_size_in_bytes - m.alias_size_in_bytes
    temporaries = used - code if used else m.temp_size_in_bytes
    return Memory(arguments, outputs, max(temporaries, 0), code)


def _bytes(found: list[tuple[str, str]]) -> float:
    """The last of numbers with a unit of 1024, such as ("7.60", "G"); 0 without one."""
    return float(found[-1][0]) * 2 ** (10 * " KMGT".index(found[-1][1] or " ")) if found else 0.0


def _involuntary(text: str) -> list[str]:
    """The compiler's warnings of that kind, a line each, without time stamp and place in its source."""
    return [line[line.index(INVOLUNTARY) :].strip() for line in text.splitlines() if INVOLUNTARY in line]
