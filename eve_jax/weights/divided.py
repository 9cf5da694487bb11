"""Parameters of a Hugging Face folder that the processes of a run read together, each a part of every tensor.

A file holds a tensor row by row, and a device's shard of our parameter is most often some columns of it: read by
shards, every host would touch every page. So each process reads a range of rows, and the devices exchange the rest.
"""

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eve_jax.checkpoint.vision_copies import ParamSource
from eve_jax.checkpoint.zero_weights import is_zero
from eve_jax.model.eve import Params, declared
from eve_jax.process.connect import peers
from eve_jax.process.peers import Peers
from eve_jax.weights.shards import Shards, read

LEAST = 1 << 20  # bytes of a parameter that is divided; every process reads smaller ones whole


class DividedSource(ParamSource, Protocol):
    """Parameters of which a range of rows can be read."""

    def row_axis(self, name: str) -> int | None:
        """The axis of a piece of parameter `name` that is the stored rows; None when it is only read whole."""

    def rows(self, name: str, start: int, stop: int) -> Iterator[np.ndarray]:
        """The pieces of parameter `name`, each with the rows from `start` to before `stop` alone."""

    def check_zero(self, name: str, pieces: Sequence[int]) -> None:
        """Raise UserError, or warn, about parameter `name`, of which `pieces` (their numbers) are zero everywhere."""


def read_params(source: ParamSource, names: Sequence[str], places: Mapping[str, jax.sharding.Sharding]) -> Params:
    """Parameters `names` of `source` at `places`; of several processes, which all call this, each reads a part.

    Raises UserError.
    """
    others, params, zero = peers(), {}, {}
    for name in names:
        where = places[name]
        reading = _reading(source, name, where) if others is not None and hasattr(source, "row_axis") else None
        if reading is None:
            params[name] = read(source, name, where)
        else:
            rows, zero[name] = _rows(source, name, *reading)  # type: ignore[arg-type]
            params[name] = _moved(where)(rows)
    if others is not None and zero:
        _check_zero(source, zero, others)  # type: ignore[arg-type]
    return params


def _reading(source: Any, name: str, where: Any) -> tuple[int, NamedSharding] | None:
    """The axis by which parameter `name` is read, and the sharding over all devices in which; None when it is whole."""
    shape = source.shapes[name]
    if where.is_fully_addressable or not isinstance(where, NamedSharding):
        return None
    row_axis = source.row_axis(name)
    if row_axis is None:
        return None
    axis = row_axis + declared(source.cfg)[name].stacked
    devices = where.mesh.devices.reshape(-1)
    parts = parts_of(shape, axis, devices.size)
    if parts == 1:
        return None
    mesh = Mesh(devices.reshape(parts, -1), ("rows", "copies"))
    return axis, NamedSharding(mesh, PartitionSpec(*(None,) * axis, "rows"))


def parts_of(shape: Any, axis: int, devices: int) -> int:
    """In how many equal ranges along `axis` so many devices read a parameter of a `shape`; 1: each reads it whole."""
    small = math.prod(shape.shape) * np.dtype(shape.dtype).itemsize < LEAST
    return 1 if small else math.gcd(shape.shape[axis], devices)


def _rows(source: DividedSource, name: str, axis: int, where: NamedSharding) -> tuple[jax.Array, list[int]]:
    """Parameter `name` at `where`, divided along `axis`, and the numbers of the pieces of which we read only zeros."""
    shape = source.shapes[name]
    shards = Shards(shape.shape, shape.dtype, where)
    nonzero: set[int] = set()
    count = 0
    for index, part in shards.parts.values():
        rows = index[axis]
        count = 0
        for count, piece in enumerate(source.rows(name, rows.start or 0, rows.stop or shape.shape[axis]), 1):
            part[count - 1 if piece.ndim < part.ndim else ...] = piece
            nonzero |= set() if is_zero(piece) else {count - 1}
    return shards.array(), [number for number in range(count) if number not in nonzero]


@functools.lru_cache(maxsize=64)
def _moved(where: jax.sharding.Sharding) -> Any:
    return jax.jit(lambda value: value, out_shardings=where)


def _check_zero(source: DividedSource, zero: Mapping[str, list[int]], others: Peers) -> None:
    """Report what is zero in the rows of every process. All get the same answer."""
    found = [json.loads(text) for text in others.gather("zero", json.dumps(zero))]
    for name in zero:
        everywhere = set.intersection(*(set(one[name]) for one in found))
        source.check_zero(name, sorted(everywhere))
