"""A fingerprint of a weight's values, computed where the weight lives.

The 128 bits are four sums modulo 2**32, over all elements, of a hash of the element's bits and its place. Sums have no
order, so it is the same however the weight is sharded, over hosts too, and can be had layer by layer. It tells weights
apart by accident, not against forgery.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding

from eve_jax.model.eve import Params
from eve_jax.sharding import replicated

_SALTS = (0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F)
_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def fingerprints(params: Params) -> dict[str, str]:
    """Fingerprint (32 hex digits) of every parameter; arrays of int4, or 1, 2 or 4 bytes an element, wherever
    they are.

    With several processes, all must call this.
    """
    places = (v.sharding for v in params.values() if isinstance(v.sharding, NamedSharding))
    whole = next((replicated(p.mesh) for p in places if isinstance(p.mesh, Mesh)), None)
    sums = jax.jit(_all_sums, out_shardings=whole)(params)
    return {name: _hex(four) for name, four in jax.device_get(sums).items()}


class Fingerprint:
    """The same of one parameter that comes in pieces along its first axis."""

    def __init__(self) -> None:
        self._sums, self._offset = np.zeros(4, np.uint32), 0

    def add(self, piece: np.ndarray) -> None:
        """Take over the next piece."""
        self._sums = self._sums + np.asarray(_one_sums(piece, np.uint32(self._offset % 2**32)))
        self._offset += piece.size

    @property
    def value(self) -> str:
        """The fingerprint of what was added."""
        return _hex(self._sums)


def _all_sums(params: Params) -> dict[str, Array]:
    return {name: _sums(value, jnp.uint32(0)) for name, value in params.items()}


@jax.jit
def _one_sums(value: Array, offset: Array) -> Array:
    return _sums(value, offset)


def _sums(value: Array, offset: Array) -> Array:
    """uint32 [4] of `value`, whose first element has the index `offset` in the whole."""
    value = value.astype(jnp.int8) if value.dtype == jnp.int4 else value
    bits = jax.lax.bitcast_convert_type(value, _UNSIGNED[value.dtype.itemsize]).astype(jnp.uint32)
    index = jnp.full(value.shape, offset)
    stride = 1
    for axis in reversed(range(value.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, value.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= value.shape[axis]
    place = _mixed(index)
    hashes = [_mixed((bits ^ place) * jnp.uint32(salt | 1) + jnp.uint32(salt)) for salt in _SALTS]
    return jnp.stack([jnp.sum(h, dtype=jnp.uint32) for h in hashes])


def _mixed(x: Array) -> Array:
    """A bijection of 32-bit words that spreads every bit over all."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _hex(sums: Any) -> str:
    return "".join(f"{int(s):08x}" for s in sums)
