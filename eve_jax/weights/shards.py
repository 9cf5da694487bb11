"""Parameters read by layers, of which this process holds only what its own devices get."""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from eve_jax.checkpoint.vision_copies import ParamSource


class Shards:
    """An array of `shape` at `where` that is filled piece by piece: its layers in order, or all at once."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, where: jax.sharding.Sharding):
        self.shape, self.where = shape, where
        self.devices = where.addressable_devices_indices_map(shape)
        size = where.shard_shape(shape)
        self.parts = {str(index): (index or (), np.empty(size, dtype)) for index in self.devices.values()}

    def fill(self, number: int, piece: np.ndarray) -> None:
        """Take over layer `number`, or the whole array; layers are never divided."""
        stacked = piece.ndim < len(self.shape)
        for index, part in self.parts.values():
            part[number if stacked else ...] = piece[tuple(index)[stacked:]]

    def array(self) -> jax.Array:
        """Return the array on its devices."""
        arrays = [jax.device_put(self.parts[str(index)][1], device) for device, index in self.devices.items()]
        return jax.make_array_from_single_device_arrays(self.shape, self.where, arrays)


def read(source: ParamSource, name: str, where: jax.sharding.Sharding) -> jax.Array:
    """Parameter `name` at `where`: the host holds a layer of it, and what its own devices get."""
    shape = source.shapes[name]
    return filled([Shards(shape.shape, shape.dtype, where)], ([piece] for piece in source.pieces(name)))[0]


def filled(shards: list[Shards], pieces: Iterable[Iterable[np.ndarray]]) -> list[jax.Array]:
    """Arrays of `shards` from `pieces`, which has one of each at a time."""
    for number, each in enumerate(pieces):
        for one, piece in zip(shards, each, strict=True):
            one.fill(number, piece)
    return [one.array() for one in shards]
