"""The product of tokens with a weight: a matrix, or the rows of a table."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eve_jax.model.quantized import compare, is_quantized, multiply
from eve_jax.process.cpu_flags import has_flag
from eve_jax.sharding import one_cpu, platform

BFLOAT16 = "avx512_bf16"  # the flag of a processor with instructions for products of bfloat16
FEW = 32  # tokens whose logits are faster on a CPU with the head as the left factor


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
    flat = x.reshape(-1, x.shape[-1])
    y = _in_float32(flat, weight) if x.dtype == jnp.bfloat16 and has_flag(BFLOAT16) else flat @ weight
    return y.reshape(*x.shape[:-1], weight.shape[1])


def compared(x: Float[Array, "*B D"], table: Float[Array, "Q D"]) -> Float[Array, "*B Q"]:
    """x @ table.T, float32, of a table in the dtype of `x` or quantized."""
    if is_quantized(table):
        return compare(x, table)
    table = table.astype(x.dtype)
    if not (one_cpu() and x.ndim == 2 and x.shape[0] <= FEW):
        return jnp.einsum("...D,QD->...Q", x, table, preferred_element_type=jnp.float32)
    # The table as the left factor is read where it lies; as the right one it is copied into another order for each
    # product. The barriers keep XLA from making it the right one, and from reducing over columns.
    found = jax.lax.dot_general(table, x, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    return jax.lax.optimization_barrier(jax.lax.optimization_barrier(found).T)


def computed_once(x: Array) -> Array:
    """`x`, the result of a product and factor of another, which a TPU writes to memory in between.

    Its compiler would compute the one again for each tile of the other, in half as much time again as both take.
    """
    return _written(x) if platform() == "tpu" else x


@jax.custom_vjp
def _written(x: Array) -> Array:
    """The way back has no barrier: what follows the product of gradients is computed with it."""
    return jax.lax.optimization_barrier(x)


_written.defvjp(lambda x: (_written(x), None), lambda _, g: (g,))


def _rounded(x: Float[Array, "M D"], y: Float[Array, "D N"]) -> Float[Array, "M N"]:
    return jnp.matmul(x, y, preferred_element_type=jnp.float32).astype(x.dtype)


@jax.custom_vjp
def _in_float32(x: Float[Array, "T D"], weight: Float[Array, "D F"]) -> Float[Array, "T F"]:
    """x @ weight of bfloat16, each of it and of its gradients added up in float32 and rounded once.

    XLA has fast products of bfloat16 for a float32 result alone: twice the rate of a bfloat16 one.
    """
    return _rounded(x, weight)


def _forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return _rounded(x, weight), (x, weight)


def _backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, weight = kept
    return _rounded(g, weight.T), _rounded(x.T, g)


_in_float32.defvjp(_forward, _backward)
