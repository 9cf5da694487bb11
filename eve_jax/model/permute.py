"""Tokens of rows in another order: from slots to causal order and back.

Dimensions: R rows, L slots, N heads, H head size.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from eve_jax import sharding


@jax.custom_vjp
def permute(x: Array, perm: Int[Array, "R L"], inv: Int[Array, "R L"]) -> Array:
    """y[r, i] = x[r, perm[r, i]]; the backward pass gathers by `inv`, the inverse, where autodiff would scatter."""
    return jax.vmap(lambda a, i: a.at[i].get(mode="promise_in_bounds"))(x, perm)


permute.defvjp(
    lambda x, perm, inv: (permute(x, perm, inv), (perm, inv)),
    lambda res, g: (permute(g, res[1], res[0]), None, None),
)


def permute_heads(
    heads: Sequence[Float[Array, "R L N H"]], perm: Int[Array, "R L"], inv: Int[Array, "R L"]
) -> list[Array]:
    """`permute` of several arrays, by a single gather of whole tokens [R, L, sum of N H].

    Accelerators fill up an axis of a few heads: heads lie side by side until they are turned for the attention, once.
    Where a mesh divides heads, each array has a gather of its own, since side by side they would move between devices.
    """
    flat = [x.reshape(*x.shape[:2], x.shape[2] * x.shape[3]) for x in heads]
    if sharding.shards(sharding.current(), "heads") > 1:
        moved = [permute(x, perm, inv) for x in flat]
    else:
        ends = np.cumsum([x.shape[2] for x in flat])[:-1]
        moved = jnp.split(permute(jnp.concatenate(flat, axis=2), perm, inv), ends, axis=2)
    return [x.reshape(like.shape) for x, like in zip(moved, heads, strict=True)]
