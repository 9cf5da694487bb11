"""The product of tokens with a weight."""

from jaxtyping import Array, Float

from eve_jax.model.quantized import is_quantized, multiply
from eve_jax.sharding import one_cpu


def product(x: Float[Array, "*B D"], weight: Float[Array, "D F"]) -> Float[Array, "*B F"]:
    """x @ weight in the dtype of `x`; the weight may be quantized (`eve_jax.model.quantized`).

    On a CPU the tokens of all rows are one axis: the weight's gradient contracts it without copies in another order,
    which cost half as much again as the product.
    """
    if is_quantized(weight):
        return multiply(x, weight)
    weight = weight.astype(x.dtype)
    if not one_cpu():
        return x @ weight
    return (x.reshape(-1, x.shape[-1]) @ weight).reshape(*x.shape[:-1], weight.shape[1])
