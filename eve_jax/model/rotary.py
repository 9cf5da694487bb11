"""Rotary positions of queries and keys: the numbers of a head turn in pairs (RoFormer, arXiv 2104.09864, eq. 34).

The rotate-half convention: pairs are of the first and the second half. Most heads turn as one; with rows and columns of
images (`eve_jax.model.sight`) a head has several parts, each with halves of its own.

Dimensions: B rows, T tokens, N heads, H head size.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eve_jax.sharding import platform

Angles = tuple[Float[Array, "B T 1 H"], Float[Array, "B T 1 H"]]  # cosines and sines of every number's angle
SCOPE = "rotary_partners"  # in the names of the products with the permutation in a compiled program
LANES = 128  # numbers that a TPU moves together


def rotate(x: Float[Array, "B T N H"], angles: Angles, halves: tuple[int, ...]) -> Float[Array, "B T N H"]:
    """`x` with its heads turned by `angles`; products and sums are float32. halves: sizes of those of each part."""
    return _turn(x, *angles, halves)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _turn(x: Array, cos: Array, sin: Array, halves: tuple[int, ...]) -> Array:
    return (x.astype(jnp.float32) * cos + partners(x, halves) * sin).astype(x.dtype)


def _forward(x: Array, cos: Array, sin: Array, halves: tuple[int, ...]) -> tuple[Array, tuple[Array, Array]]:
    return _turn(x, cos, sin, halves), (cos, sin)


def _backward(halves: tuple[int, ...], kept: tuple[Array, Array], g: Array) -> tuple[Array, None, None]:
    """The gradient turns back. Autodiff's would be a product of float32 numbers."""
    return _turn(g, kept[0], -kept[1], halves), None, None


_turn.defvjp(_forward, _backward)


def partners(x: Float[Array, "B T N H"], halves: tuple[int, ...]) -> Float[Array, "B T N H"]:
    """What turns with each number, as float32, with its sign: (-b, a) of a part (a, b).

    TPUs take a vector of LANES numbers apart at the cost of a copy: there the halves change places by a product with a
    permutation, which is exact.
    """
    if platform() == "tpu" and any(half % LANES for half in halves):
        return by_product(x, halves)
    parts = jnp.split(x.astype(jnp.float32), 2 * np.cumsum(halves)[:-1], axis=-1)
    pairs = [jnp.split(part, 2, axis=-1) for part in parts]
    return jnp.concatenate([side for a, b in pairs for side in (-b, a)], axis=-1)


@jax.named_scope(SCOPE)
def by_product(x: Float[Array, "B T N H"], halves: tuple[int, ...]) -> Float[Array, "B T N H"]:
    """`partners` as a product, each of whose sums has one number of `x`, with its sign, and zeros."""
    matrix, first = np.zeros((2 * sum(halves),) * 2, np.float32), 0
    for half in halves:
        a, b = first + np.arange(half), first + half + np.arange(half)
        matrix[b, a], matrix[a, b] = -1, 1
        first += 2 * half
    exact = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return jnp.einsum(
        "BTNH,HK->BTNK", x, jnp.asarray(matrix, x.dtype), precision=exact, preferred_element_type=jnp.float32
    )
