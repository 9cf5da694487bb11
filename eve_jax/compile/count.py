"""What a compiled program does in one call, counted in its HLO: matrix products, collectives, memory traffic."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from eve_jax.compile.groups import far_share
from eve_jax.compile.hlo import Array, Computation, Instruction, Module, executions, parse

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
# Cost nothing, or are counted where their other half or their body stands.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional", "after-all")
_FREE_CALLS = ("AllocateBuffer", "ConcatBitcast")  # custom calls that only name memory
_CONTRACTED = re.compile(r'"lhs_contracting_dimensions":\[([^\]]*)\]')  # of a product by cuBLAS
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


class Product(NamedTuple):
    """A matrix product: FLOPs of one execution, executions, and where it comes from.

    batched: many products at once, of activations with each other, where a weight is shared by all tokens.
    """

    flops: float
    times: float
    op_name: str
    batched: bool


class Collective(NamedTuple):
    """A collective: bytes are of one execution on one chip.

    payload: the larger of what it takes and what it gives. wire: what a chip has to receive, for groups of any size at
    most. arrays: results, for a reduce-scatter operands. waits: nothing is computed while it runs. far: the part of
    `wire` that comes from other nodes.
    """

    kind: str
    payload: float
    wire: float
    times: float
    arrays: tuple[Array, ...]
    op_name: str
    waits: bool = False
    far: float = 0.0


@dataclass
class Counts:
    """Totals of one call on one chip.

    hbm: bytes read from and written to the main memory, of instructions outside fusions. cycles: the compiler's own
    estimates (TPU), collectives and custom kernels left out. uncounted: the part of `hbm` of instructions that have no
    such estimate, such as gathers. unknown: loops taken to run once.
    """

    products: list[Product] = field(default_factory=list)
    collectives: list[Collective] = field(default_factory=list)
    hbm: float = 0
    cycles: float = 0
    uncounted: float = 0
    unknown: list[str] = field(default_factory=list)

    @property
    def flops(self) -> float:
        """FLOPs of all matrix products."""
        return sum(p.flops * p.times for p in self.products)

    @property
    def wire(self) -> float:
        """Bytes that a chip receives from others."""
        return sum(c.wire * c.times for c in self.collectives)

    @property
    def far(self) -> float:
        """Bytes that a chip receives from other nodes."""
        return sum(c.far * c.times for c in self.collectives)

    @property
    def waited_for(self) -> float:
        """Bytes that a chip receives while it computes nothing."""
        return sum(c.wire * c.times for c in self.collectives if c.waits)

    def by_kind(self) -> dict[str, dict[str, float]]:
        """Executions, bytes and the largest single payload of each kind of collective."""
        out: dict[str, dict[str, float]] = {}
        for c in self.collectives:
            row = out.setdefault(c.kind, {"count": 0, "bytes": 0, "largest_bytes": 0})
            row["count"] += c.times
            row["bytes"] += c.payload * c.times
            row["largest_bytes"] = max(row["largest_bytes"], c.payload)
        return out


def count(text: str, nodes: Sequence[int] = ()) -> Counts:
    """The counts of `compiled.as_text()`; `nodes`: the node of each device of the program, if there are several."""
    module = parse(text)
    aside = {n for c in module.computations.values() for i in c.values() if i.opcode == "async-start" for n in i.called}
    runs = executions(module)
    counts = Counts(unknown=runs.unknown)
    seen: dict[tuple[str, str, str], int] = {}
    for name, times in runs.times.items():
        computation, schedule = module.computations[name], runs.inside[name]
        for instruction in computation.values():
            flops = product_flops(computation, instruction)
            if flops:
                counts.products.append(Product(flops, times, instruction.op_name, _batched(instruction)))
            if instruction.opcode.removesuffix("-start") in COLLECTIVES:
                # One that runs next to computations appears in several fusions of a schedule: its start, them, its end.
                key = schedule, instruction.opcode, instruction.attribute("channel_id") or instruction.name
                collective = _collective(computation, instruction, times)
                far = collective.wire * far_share(instruction, nodes)
                collective = collective._replace(far=far, waits=collective.waits and name not in aside)
                if schedule == name or key not in seen:
                    counts.collectives.append(collective)
                else:
                    counts.collectives[seen[key]] = counts.collectives[seen[key]]._replace(waits=False)
                if schedule != name:
                    seen.setdefault(key, len(counts.collectives) - 1)
            if schedule == name:
                traffic, cycles = _traffic(module, computation, instruction), _CYCLES.findall(instruction.rest)
                counts.hbm += times * traffic
                counts.cycles += times * sum(map(int, cycles))
                counts.uncounted += times * traffic * _has_no_estimate(module, instruction, cycles)
    return counts


def _has_no_estimate(module: Module, instruction: Instruction, cycles: list[str]) -> bool:
    """Whether the compiler has no cycles for an instruction that is neither a collective nor a custom kernel.

    Copies that run next to computations have starts of their own, and cost no time.
    """
    if cycles or instruction.opcode == "custom-call" or instruction.opcode.endswith("-start"):
        return False
    inner = [i for name in instruction.called for i in module.computations.get(name, Computation()).values()]
    return not any(i.opcode.removesuffix("-start") in COLLECTIVES for i in (instruction, *inner))


def product_flops(computation: Computation, instruction: Instruction) -> float:
    """FLOPs (two a multiplication and addition) of a `dot`, `convolution` or call of cuBLAS; 0 for any other."""
    cublas = _by_cublas(instruction)
    if not (cublas or instruction.opcode in ("dot", "convolution")) or len(computation.operands(instruction)) < 2:
        return 0
    left, right = (i.arrays[0].dims for i in computation.operands(instruction)[:2])
    if cublas:
        contracted = re.findall(r"\d+", _CONTRACTED.findall(instruction.rest)[0])
        return 2.0 * instruction.arrays[0].size * math.prod(left[int(d)] for d in contracted)
    if instruction.opcode == "dot":
        contracted = re.findall(r"\d+", instruction.attribute("lhs_contracting_dims"))
        return 2.0 * instruction.arrays[0].size * math.prod(left[int(d)] for d in contracted)
    return _convolution_flops(instruction, left, right)


def _by_cublas(instruction: Instruction) -> bool:
    return instruction.attribute("custom_call_target").strip('"').startswith("__cublas")


def _batched(instruction: Instruction) -> bool:
    kinds = r'lhs_batch_dims=\{\d|"lhs_batch_dimensions":\["|[lr]hs_dilate=|(?:feature|batch)_group_count='
    return bool(re.search(kinds, instruction.rest))


def _convolution_flops(instruction: Instruction, left: tuple[int, ...], right: tuple[int, ...]) -> float:
    """Positions of the window outside the input or in the holes of a dilation cost nothing: the TPU compiler writes
    batched matrix products as such convolutions."""
    labels, out_labels = instruction.attribute("dim_labels").split("->")
    left_labels, right_labels = labels.split("_")
    out = instruction.arrays[0].dims
    flops = 2.0 * out[out_labels.index("b")] * out[out_labels.index("f")] * right[right_labels.index("i")]
    flops /= int(instruction.attribute("batch_group_count") or 1)
    window = _window(instruction)
    for place, label in enumerate(c for c in right_labels if c.isdigit()):
        options = {key: values[place] for key, values in window.items()}
        sizes = left[left_labels.index(label)], right[right_labels.index(label)], out[out_labels.index(label)]
        flops *= _valid_positions(*sizes, options)
    return flops


def _window(instruction: Instruction) -> dict[str, list[str]]:
    text = re.search(r"window=\{([^}]*)\}", instruction.rest)
    return {k: v.split("x") for k, v in (item.split("=") for item in text[1].split())} if text else {}


def _valid_positions(size: int, kernel: int, out: int, window: dict[str, str]) -> int:
    """Pairs of an output and a kernel position that meet an element of the input, along one spatial dimension."""
    stride, before = int(window.get("stride", 1)), int(window.get("pad", "0_0").split("_")[0])
    base, reach = int(window.get("lhs_dilate", 1)), int(window.get("rhs_dilate", 1))
    total = 0
    for k in range(kernel):
        offset = k * reach - before  # of the input, dilated, at output position 0
        if base == 1:
            first, last = -(-max(0, -offset) // stride), (size - 1 - offset) // stride
            total += max(min(last, out - 1) - first + 1, 0)
        else:
            places = range(offset, offset + stride * out, stride)
            total += sum(1 for p in places if 0 <= p <= (size - 1) * base and p % base == 0)
    return total


def _collective(computation: Computation, instruction: Instruction, times: float) -> Collective:
    kind = instruction.opcode.removesuffix("-start")
    given = tuple(a for i in computation.operands(instruction) for a in i.arrays)
    got = instruction.arrays
    if instruction.opcode.endswith("-start") and len(got) >= 2 * len(given) and kind != "all-reduce":
        got = got[len(given) : 2 * len(given)]  # the start's result holds its operands, too
    if kind == "all-reduce" and computation.root.opcode == "dynamic-slice":
        kind, got = "reduce-scatter", computation.root.arrays  # the TPU compiler's fused form
    taken, made = (sum(a.nbytes for a in arrays) for arrays in (given, got))
    wire = {"all-gather": made - taken, "reduce-scatter": taken - made, "all-reduce": 2 * taken}.get(kind, taken)
    arrays = given if kind == "reduce-scatter" else got
    waits = not instruction.opcode.endswith("-start")
    return Collective(kind, max(taken, made), wire, times, arrays, instruction.op_name, waits)


def _traffic(module: Module, computation: Computation, instruction: Instruction) -> float:
    """Bytes that an instruction reads from and writes to the main memory; a slice costs what it takes."""
    opcode = instruction.opcode
    if (
        opcode in _FREE
        or opcode.endswith("-done")
        or instruction.attribute("custom_call_target").strip('"') in _FREE_CALLS
    ):
        return 0
    operands = computation.operands(instruction)
    if opcode == "async-start" and any(
        i.opcode in COLLECTIVES for name in instruction.called for i in module.computations[name].values()
    ):
        return 0  # counted where it stands
    if opcode in ("copy-start", "slice-start"):
        target = instruction.arrays[0 if opcode == "copy-start" else sum(len(i.arrays) for i in operands)]
        return sum(target.nbytes for a in (target, operands[0].arrays[0]) if a.space == 0)
    if opcode.endswith("-start"):
        return 2 * _in_memory(instruction.arrays) - sum(_in_memory(i.arrays) for i in operands)
    if opcode in ("dynamic-slice", "gather"):
        return 2 * _in_memory(instruction.arrays)
    if opcode in ("dynamic-update-slice", "scatter"):
        return 2 * sum(_in_memory(i.arrays) for i in operands[1:])
    if _by_cublas(instruction):  # the second result is room to work in
        return _in_memory(instruction.arrays[:1]) + sum(_in_memory(i.arrays) for i in operands)
    if opcode == "fusion":
        return _fusion_traffic(module.computations[instruction.called[0]], instruction, operands)
    return _in_memory(instruction.arrays) + sum(_in_memory(i.arrays) for i in operands)


def _in_memory(arrays: tuple[Array, ...]) -> float:
    return sum(a.nbytes for a in arrays if a.space == 0)


def _fusion_traffic(inner: Computation, instruction: Instruction, operands: list[Instruction]) -> float:
    """As above: of an operand that is only sliced the slices, of a result that is an operand updated the update."""
    users: dict[str, list[Instruction]] = {}
    for i in inner.values():
        for name in i.operands:
            users.setdefault(name, []).append(i)

    def uses(name: str) -> list[Instruction]:
        found = []
        for user in users.get(name, []):
            found += uses(user.name) if user.opcode in ("bitcast", "copy", "convert") and not user.root else [user]
        return found

    total = 0.0
    for parameter in (i for i in inner.values() if i.opcode == "parameter"):
        whole = _in_memory(operands[int(parameter.literal)].arrays)
        taken = uses(parameter.name)
        if taken and all(u.opcode in ("dynamic-slice", "slice", "gather") for u in taken):
            whole = min(whole, sum(u.nbytes for u in taken))
        elif taken and all(u.opcode == "dynamic-update-slice" and inner[u.operands[0]].nbytes == whole for u in taken):
            whole = 0  # updated in place
        total += whole
    root = inner.root
    while root.opcode in ("bitcast", "copy", "convert") and root.operands:
        root = inner[root.operands[0]]
    if root.opcode == "dynamic-update-slice" and instruction.arrays[0].space == 0:
        return total + inner[root.operands[1]].nbytes
    return total + _in_memory(instruction.arrays)
