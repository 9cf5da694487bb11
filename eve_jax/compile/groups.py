"""Which devices of a compiled program a collective joins, and how much of what it moves passes between nodes."""

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from eve_jax.compile.hlo import Instruction

_LISTED = re.compile(r"replica_groups=\{(\{[\d,{} ]*\})\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}")
_AXIS = re.compile(r"'(\w+)'(?::\((\d+)\)(\d+))?")
_PAIRS = re.compile(r"source_target_pairs=\{([\d,{} ]*)\}")


def groups(instruction: Instruction, devices: int) -> list[list[int]]:
    """Return the groups of a collective of `devices` devices, by their places in the mesh; pairs of a permutation.

    A collective that names none joins all devices; so is one whose form is not known taken.
    """
    if pairs := _PAIRS.search(instruction.rest):
        return _lists(pairs[1])
    if listed := _LISTED.search(instruction.rest):
        return _lists(listed[1])
    if iota := _IOTA.search(instruction.rest):
        return _places(iota[2], iota[3]).reshape(int(iota[1].split(",")[0]), -1).tolist()
    if mesh := _MESH.search(instruction.rest):
        return _of_axes(mesh)
    return [list(range(devices))]


def _places(dims: str, order: str | None) -> np.ndarray:
    """Return the devices' places, counted through `dims` and turned into `order`, as the compiler writes them."""
    sizes = [int(n) for n in dims.split(",")]
    places = np.arange(math.prod(sizes)).reshape(sizes)
    return places.transpose([int(n) for n in order.split(",")]) if order else places


def _of_axes(mesh: re.Match[str]) -> list[list[int]]:
    """Return the groups that some axes of a named mesh, or the factors of one of them, make."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
    factors: list[int] = []
    joined: list[int] = []
    named = {name: (before, size) for name, before, size in _AXIS.findall(mesh[4])}
    for name, whole in sizes.items():
        before, size = (int(n or fallback) for n, fallback in zip(named.get(name, ("", "")), (1, whole), strict=True))
        if name in named:
            joined.append(len(factors) + 1)
        factors += [before, size, whole // (before * size)]
    places = _places(mesh[2] or str(math.prod(factors)), mesh[3]).reshape(factors)
    apart = [axis for axis in range(len(factors)) if axis not in joined]
    group = math.prod(factors[axis] for axis in joined)
    return places.transpose([*apart, *joined]).reshape(-1, group).tolist()


def _lists(text: str) -> list[list[int]]:
    return [[int(n) for n in found.split(",")] for found in re.findall(r"\{([\d, ]*)\}", text) if found]


def far_share(instruction: Instruction, nodes: Sequence[int]) -> float:
    """Return the part of what a collective moves to a device that comes from other nodes, at its busiest group.

    nodes: that of each device. A ring through all devices of a group enters a node once for each of the network
    adapters there, so that each of its g devices there receives 1/g of the whole from another node.
    """
    return max((_far(group, nodes) for group in groups(instruction, len(nodes))), default=0.0) if nodes else 0.0


def _far(group: Iterable[int], nodes: Sequence[int]) -> float:
    members = [nodes[place] for place in group]
    return 1 / min(members.count(node) for node in set(members)) if len(set(members)) > 1 else 0.0
