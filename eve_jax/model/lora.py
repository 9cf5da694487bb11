"""Low-rank adapters of matrices (LoRA, arXiv 2106.09685): y = x W + alpha / rank (x A) B, the matrix W frozen.

They are made next to the matrices that a finished model has, wherever these lie, so that each modality's own weights
have adapters of their own. A begins uniform within +-1 / sqrt(D), B at zero: the model begins as its base.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from eve_jax.model.config import ModelConfig
from eve_jax.model.dropout import dropped
from eve_jax.model.lora_config import Lora
from eve_jax.model.product import product
from eve_jax.model.weight import Weight
from eve_jax.sharding import PARAMETER_RULES

PREFIX = "lora_"  # of the attribute next to a matrix's own
ADAPTER_ROLES = ("lora_a", "lora_b")
Axes = tuple[str | None, ...]


class Adapter(nnx.Module):
    """The matrices A [D, rank] and B [rank, F] of one matrix [D, F], or of those of all layers, stacked."""

    def __init__(self, cfg: ModelConfig, lora: Lora, of: str, matrix: nnx.Param, rngs: nnx.Rngs):
        """`of`: the attribute of the `matrix` in the module that this is made for."""
        *layers, rows, columns = matrix.shape
        weight: Weight = matrix.weight
        dtype = jnp.dtype(cfg.param_dtype)
        axes_a, axes_b = adapter_axes(matrix.axes)
        own = weight._replace(branch="", adds_to=of)
        start = jax.random.uniform(rngs.params(), (*layers, rows, lora.rank), dtype, -1, 1) * rows**-0.5
        zeros = jnp.zeros((*layers, lora.rank, columns), dtype)
        self.a = nnx.Param(start.astype(dtype), axes=axes_a, weight=own._replace(role="lora_a", ends_layer=False))
        self.b = nnx.Param(zeros, axes=axes_b, weight=own._replace(role="lora_b", input_grad=True))
        self.scale, self.dropout = lora.scale, lora.dropout

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B F"]:
        return product(product(dropped(x, self.dropout), self.a[...]) * self.scale, self.b[...])


def adapter_axes(axes: Axes) -> tuple[Axes, Axes]:
    """Return the logical axes of A and B of a matrix of `axes`: the rank is divided where the other side is not."""

    def rank(other: str | None) -> str | None:
        held = PARAMETER_RULES[other] if other else None
        return None if "fsdp" in (held if isinstance(held, tuple) else (held,)) else "rank"

    return (axes[0], rank(axes[0])), (rank(axes[1]), axes[1])


def add_adapters(cfg: ModelConfig, model: nnx.Module, rngs: nnx.Rngs) -> None:
    """Give the matrices of `model` that belong to the groups of `cfg.lora` their adapters."""
    if cfg.lora is None:
        return
    nodes = [node for _, node in nnx.iter_graph(model) if isinstance(node, nnx.Module)]
    for node in nodes:
        for name, value in list(vars(node).items()):
            if isinstance(value, nnx.Param) and value.weight.role == "matrix" and value.weight.group in cfg.lora.groups:
                setattr(node, PREFIX + name, Adapter(cfg, cfg.lora, name, value, rngs))


def adapter_of(module: Any, name: str) -> Adapter | None:
    """Return the adapter of the matrix that is the attribute `name` of `module`, if it has one."""
    return getattr(module, PREFIX + name, None)


def adapted(module: Any, name: str, x: Float[Array, "*B D"], y: Float[Array, "*B F"]) -> Float[Array, "*B F"]:
    """Return `y`, the product of `x` with the matrix `name` of `module`, with that of its adapter, if it has one."""
    adapter = adapter_of(module, name)
    return y if adapter is None else y + adapter(x)


def merged(matrix: Array, a: Array, b: Array, scale: float, dtype: Any) -> Array:
    """Return the matrices of layers [*L, D, F] plus `scale` A B as `dtype`; sums in float32, a layer at a time."""

    def one(own: tuple[Array, Array, Array]) -> Array:
        w, a, b = (part.astype(jnp.float32) for part in own)
        return (w + scale * jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)).astype(dtype)

    return jax.lax.map(one, (matrix, a, b)) if matrix.ndim > 2 else one((matrix, a, b))
