"""Fingerprints: of values and places, whatever the pieces they come in."""

import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.checkpoint.weight_fingerprint import Fingerprint, fingerprints


def of(value):
    return fingerprints({"x": jnp.asarray(value)})["x"]


def in_pieces(pieces):
    total = Fingerprint()
    for piece in pieces:
        total.add(piece)
    return total.value


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_whole_and_by_layers(dtype):
    value = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(dtype)
    whole = of(value)
    assert len(whole) == 32
    assert in_pieces(value) == whole
    assert in_pieces([value]) == whole
    assert fingerprints({"y": jnp.zeros(3), "x": jnp.asarray(value)})["x"] == whole


def test_it_tells_bits_and_places_apart():
    value = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    last_bit = value.copy()
    last_bit.view(np.uint32)[2, 3] ^= 1
    swapped = value[[1, 0, 2, 3]]
    signed = np.where(value == value[0, 0], -value, value)
    zeros, negative = np.zeros((4, 6), np.float32), -np.zeros((4, 6), np.float32)
    found = [of(v) for v in (value, last_bit, swapped, signed, value[:3], zeros, negative, zeros[:3])]
    assert len(set(found)) == len(found)
