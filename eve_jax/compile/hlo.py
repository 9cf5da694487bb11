"""Reads the text of an optimized HLO module: computations, instructions, and how often each computation runs.

`compiled.as_text()` -> parse -> Module; `executions` multiplies the trip counts of nested loops. The compiler's own
`cost_analysis()` counts the body of a loop once.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BYTES = {"pred": 1, "token": 0, "opaque": 0, "s4": 0.5, "u4": 0.5, "s2": 0.25, "u2": 0.25, "c64": 8, "c128": 16}
_ARRAY = re.compile(r"([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
# What runs another computation as it stands; reductions, sorts and the like only apply a scalar function.
CALLERS = ("fusion", "call", "conditional", "async-start", "custom-call")
_SAME = ("copy", "convert", "bitcast", "copy-done", "reshape")  # pass a scalar on


class Array(NamedTuple):
    """A shape: element type, dimensions, memory space (0 is the main memory, others are on the chip)."""

    dtype: str
    dims: tuple[int, ...]
    space: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def nbytes(self) -> float:
        """Bytes without padding."""
        return self.size * (BYTES[self.dtype] if self.dtype in BYTES else _bits(self.dtype) / 8)


def _bits(dtype: str) -> int:
    found = re.search(r"\d+", dtype)
    return int(found[0]) if found else 0


class Instruction(NamedTuple):
    """One line: its name, the arrays of its result (flattened), opcode, names of the operands, the rest of the line."""

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    literal: str  # what stands between the parentheses
    rest: str
    root: bool

    @property
    def nbytes(self) -> float:
        """Bytes of the result."""
        return sum(a.nbytes for a in self.arrays)

    @property
    def called(self) -> list[str]:
        """Names of the computations that it runs or applies."""
        names = _CALLED.findall(self.rest)
        for group in _BRANCHES.findall(self.rest):
            names += re.findall(r"[\w.\-]+", group)
        return names

    @property
    def op_name(self) -> str:
        """Where in the traced function it comes from."""
        return self.attribute("op_name", quoted=True)

    def attribute(self, key: str, quoted: bool = False) -> str:
        """The text of `key=...`; "" without it."""
        found = re.search(rf'\b{key}="([^"]*)"' if quoted else rf"\b{key}=(\{{[^}}]*\}}|[^\s,]+)", self.rest)
        return found[1] if found else ""


class Computation(dict[str, Instruction]):
    """Instructions by name, in order."""

    name: str = ""

    @property
    def root(self) -> Instruction:
        """What the computation returns."""
        return next(i for i in reversed(self.values()) if i.root)

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """The instructions whose results `instruction` takes."""
        return [self[n] for n in instruction.operands if n in self]


class Module(NamedTuple):
    """An HLO module."""

    computations: dict[str, Computation]
    entry: str


class Executions(NamedTuple):
    """How often each computation runs in one call of the module.

    inside: of each computation the one whose schedule it belongs to: itself, or for the computations of fusions, whose
    intermediate results never reach memory, the one that the fusion stands in. unknown: loops whose trip count could
    not be found, taken as one.
    """

    times: dict[str, float]
    inside: dict[str, str]
    unknown: list[str]


def parse(text: str) -> Module:
    """The module of `compiled.as_text()`."""
    computations: dict[str, Computation] = {}
    entry = ""
    current: Computation | None = None
    last = ""
    for line in text.splitlines():
        if current is None:
            head = _HEAD.match(line)
            if head:
                current = computations.setdefault(head[2], Computation())
                current.name = head[2]
                entry = head[2] if head[1] else entry
            last = ""
        elif re.match(r"\}(, execution_thread=.*)?$", line):
            current = None
        else:
            instruction = _instruction(line)
            if instruction:
                last = instruction.name
                current[last] = instruction
            elif last:  # the attributes of some instructions have line breaks
                current[last] = current[last]._replace(rest=current[last].rest + line)
    return Module(computations, entry)


def _instruction(line: str) -> Instruction | None:
    found = _LINE.match(line)
    if not found:
        return None
    text = found[3]
    end = _balanced(text, 0) if text.startswith("(") else text.index(" ")
    opcode = _OPCODE.match(text, end)
    if not opcode:
        return None
    close = _balanced(text, opcode.end() - 1)
    inside = text[opcode.end() : close - 1]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(found[2], _arrays(text[:end]), opcode[1], operands, inside, text[close:], bool(found[1]))


def _balanced(text: str, start: int) -> int:
    """Index after the parenthesis that closes the one at `start`."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.end()
    return len(text)


def _arrays(text: str) -> tuple[Array, ...]:
    out = []
    for dtype, dims, layout in _ARRAY.findall(text):
        space = re.search(r"S\((\d+)\)", layout)
        sizes = tuple(int(d.lstrip("<=")) for d in dims.split(",") if d)
        out.append(Array(dtype, sizes, int(space[1]) if space else 0))
    return tuple(out)


def executions(module: Module) -> Executions:
    """Walks the calls from the entry. The branches of a conditional are taken to share its executions evenly."""
    result = Executions({}, {}, [])

    def visit(name: str, times: float, schedule: str) -> None:
        result.times[name] = result.times.get(name, 0) + times
        result.inside[name] = schedule
        computation = module.computations[name]
        for instruction in computation.values():
            if instruction.opcode == "while":
                trips = trip_count(module, computation, instruction)
                if trips is None:
                    result.unknown.append(instruction.name)
                for body in instruction.called:
                    visit(body, times * (1 if trips is None else trips), body)
            elif instruction.opcode in CALLERS:
                share = len(instruction.called) if instruction.opcode == "conditional" else 1
                for called in instruction.called:
                    fused = instruction.opcode == "fusion" or schedule != name
                    visit(called, times / share, schedule if fused else called)

    visit(module.entry, 1, module.entry)
    return result


def trip_count(module: Module, outer: Computation, loop: Instruction) -> int | None:
    """Iterations of a `while` of `outer` that counts up or down to a constant; None when that cannot be seen."""
    known = _KNOWN_TRIPS.search(loop.rest)
    if known:
        return int(known[1])
    condition = module.computations[loop.attribute("condition").lstrip("%")]
    body = module.computations[loop.attribute("body").lstrip("%")]
    compare, arguments = condition.root, list(condition.root.operands)
    if compare.opcode == "fusion":
        inner = module.computations[compare.called[0]]
        compare = inner.root
        if compare.opcode != "compare":
            return None
        outside = [int(i.literal) for i in inner.operands(compare) if i.opcode == "parameter"]
        if len(outside) != 2:
            return None
        arguments = [arguments[number] for number in outside]
    if compare.opcode != "compare" or len(arguments) != 2:
        return None
    initial = outer[loop.operands[0]]
    index = _element(condition, arguments[0])
    start = None if index is None else _constant(outer, initial.operands[index], None)
    bound = _constant(condition, arguments[1], (outer, initial))
    if index is None or start is None or bound is None:
        return None
    step, direction = _step(body, index), compare.attribute("direction")
    if direction in ("GT", "GE"):  # counts down
        start, bound, step = -start, -bound, -step
    if step <= 0 or direction in ("EQ", "NE"):
        return None
    return max(-(-(bound + (direction in ("LE", "GE")) - start) // step), 0)


def _element(computation: Computation, name: str) -> int | None:
    """Which element of the loop's state a value is."""
    for instruction in _chain(computation, name):
        if instruction.opcode == "get-tuple-element":
            return int(instruction.attribute("index"))
    return None


def _constant(computation: Computation, name: str, state: tuple[Computation, Instruction] | None) -> int | None:
    """Value of a constant, also of one that is carried unchanged in the loop's initial `state`."""
    for instruction in _chain(computation, name):
        if instruction.opcode == "constant" and re.fullmatch(r"-?\d+", instruction.literal):
            return int(instruction.literal)
        if instruction.opcode == "get-tuple-element" and state:
            outer, initial = state
            return _constant(outer, initial.operands[int(instruction.attribute("index"))], None)
    return None


def _step(body: Computation, index: int) -> int:
    """What an iteration adds to its counter; 1 where that cannot be seen."""
    name = body.root.operands[index] if index < len(body.root.operands) else ""
    for instruction in _chain(body, name):
        if instruction.opcode == "add":
            constants = [_constant(body, n, None) for n in instruction.operands]
            return next((c for c in constants if c), 1)
    return 1


def _chain(computation: Computation, name: str) -> Iterator[Instruction]:
    """The instruction and those that it merely passes on."""
    while name in computation:
        instruction = computation[name]
        yield instruction
        if instruction.opcode not in _SAME or not instruction.operands:
            return
        name = instruction.operands[0]
