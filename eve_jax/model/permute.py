"""Tokens of rows in another order: from slots to causal order and back.

Accelerators fill up an axis of a few heads, so heads lie side by side, [R, L, N H], while they move. A TPU makes
[R, L, N, H] of that by turning it over as a whole, twice: there heads part and meet by slices of whole lanes, which
leaves them one behind the other, as attention takes them (benchmarks/README.md has the figures).

Dimensions: R rows, L slots, V of them of vision and T of text, N heads, H head size.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from eve_jax import sharding
from eve_jax.model.splash_blocks import LANES
from eve_jax.sharding import platform

Pair = tuple[Array, Array]  # of vision and of text tokens, in slot order


def _taken(x: Array, index: Int[Array, "R M"]) -> Array:
    return jax.vmap(lambda a, i: a.at[i].get(mode="promise_in_bounds"))(x, index)


@jax.custom_vjp
def permute(x: Array, perm: Int[Array, "R L"], inv: Int[Array, "R L"]) -> Array:
    """y[r, i] = x[r, perm[r, i]]; the backward pass gathers by `inv`, the inverse, where autodiff would scatter."""
    return _taken(x, perm)


permute.defvjp(
    lambda x, perm, inv: (permute(x, perm, inv), (perm, inv)),
    lambda res, g: (permute(g, res[1], res[0]), None, None),
)


def to_causal(
    heads: Sequence[tuple[Float[Array, "R V N H"], Float[Array, "R T N H"]]],
    perm: Int[Array, "R L"],
    inv: Int[Array, "R L"],
) -> list[Float[Array, "R L N H"]]:
    """Heads of both kinds of tokens as arrays in causal order, by a single gather of whole tokens.

    Where a mesh divides heads, each array has a gather of its own, since side by side they would move between devices.
    """
    flat = [tuple(map(_side_by_side, pair)) for pair in heads]
    slots = heads[0][0].shape[1]
    if _divided():
        moved = [_joined(*pair, perm, inv, slots) for pair in flat]
    else:
        together = (jnp.concatenate(kind, axis=2) for kind in zip(*flat, strict=True))
        ends = np.cumsum([vision.shape[2] for vision, _ in flat])[:-1]
        moved = jnp.split(_joined(*together, perm, inv, slots), ends, axis=2)
    return [_heads(x, *vision.shape[2:]) for x, (vision, _) in zip(moved, heads, strict=True)]


def to_slots(
    x: Float[Array, "R L N H"], perm: Int[Array, "R L"], inv: Int[Array, "R L"], vision_slots: int
) -> tuple[Float[Array, "R V N H"], Float[Array, "R T N H"]]:
    """The reverse of `to_causal`, of one array."""
    vision, text = (y.reshape(*y.shape[:2], *x.shape[2:]) for y in _parted(_flat(x), perm, inv, vision_slots))
    return vision, text


def for_attention(heads: Sequence[Float[Array, "R L N H"]]) -> list[Float[Array, "R L N H"]]:
    """Heads of projections that are in causal order already, as `to_causal` leaves them in memory."""
    return [_heads(_side_by_side(x), *x.shape[2:]) for x in heads]


def for_projection(x: Float[Array, "R L N H"]) -> Float[Array, "R L N H"]:
    """The reverse of `for_attention`, of one array."""
    return _flat(x).reshape(x.shape)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _joined(vision: Array, text: Array, perm: Array, inv: Array, vision_slots: int) -> Float[Array, "R L D"]:
    return _taken(jnp.concatenate([vision, text], axis=1), perm)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _parted(x: Float[Array, "R L D"], perm: Array, inv: Array, vision_slots: int) -> Pair:
    """Each kind of tokens by a gather of its own: slices of one of both would be copies."""
    return _taken(x, inv[:, :vision_slots]), _taken(x, inv[:, vision_slots:])


_joined.defvjp(
    lambda vision, text, perm, inv, slots: (_joined(vision, text, perm, inv, slots), (perm, inv)),
    lambda slots, res, g: (*_parted(g, *res, slots), None, None),
)
_parted.defvjp(
    lambda x, perm, inv, slots: (_parted(x, perm, inv, slots), (perm, inv)),
    lambda slots, res, g: (_joined(*g, *res, slots), None, None),
)


def _divided() -> bool:
    return sharding.shards(sharding.current(), "heads") > 1


def _by_lanes(size: int) -> bool:
    """Whether heads of `size` part and meet by slices."""
    return platform() == "tpu" and size % LANES == 0 and not _divided()


def _side_by_side(x: Float[Array, "R L N H"]) -> Float[Array, "R L D"]:
    """As a projection gave them, or takes them: there XLA finds nothing to do."""
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])


def _flat(x: Float[Array, "R L N H"]) -> Float[Array, "R L D"]:
    """As attention gave them."""
    return _beside(x, x.shape[2]) if _by_lanes(x.shape[3]) else _side_by_side(x)


def _heads(x: Float[Array, "R L D"], heads: int, size: int) -> Float[Array, "R L N H"]:
    return _apart(x, heads) if _by_lanes(size) else x.reshape(*x.shape[:2], heads, size)


def _apart_by_lanes(x: Float[Array, "R L D"], heads: int) -> Float[Array, "R L N H"]:
    return jnp.stack(jnp.split(x, heads, axis=2), axis=1).swapaxes(1, 2)


def _beside_by_lanes(x: Float[Array, "R L N H"]) -> Float[Array, "R L D"]:
    return jnp.concatenate([x[:, :, head] for head in range(x.shape[2])], axis=2)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _apart(x: Float[Array, "R L D"], heads: int) -> Float[Array, "R L N H"]:
    """Heads that lie side by side; autodiff would add up an array of the whole size for each."""
    return _apart_by_lanes(x, heads)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _beside(x: Float[Array, "R L N H"], heads: int) -> Float[Array, "R L D"]:
    """The reverse of `_apart`."""
    return _beside_by_lanes(x)


_apart.defvjp(lambda x, heads: (_apart_by_lanes(x, heads), None), lambda heads, _, g: (_beside_by_lanes(g),))
_beside.defvjp(lambda x, heads: (_beside_by_lanes(x), None), lambda heads, _, g: (_apart_by_lanes(g, heads),))
