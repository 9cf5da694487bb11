"""Quantized weights, for inference: int8 with a scale for each column of a matrix, int4 for groups of its rows.

A quantized weight is a `qwix.QArray` in the place of its array: `qvalue` of the weight's shape and `scale`, float32
[..., 1, F] of int8, bfloat16 [..., D / group, F] of int4; the weight is their product. The table of the LM head (the
word embedding's where they are tied) is int8 with a float32 scale [Q, 1] for each row, whatever the matrices of the
layers are. Biases, norms, an untied word embedding and the patch embedding stay as they are.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from eve_jax.errors import UserError, install
from eve_jax.sharding import GATHERED_RULES, gather, one_cpu, platform, shards

if TYPE_CHECKING:
    from qwix import QArray

QUANTIZED = ("int8", "int4")  # what `weights` may be, besides "" for weights that are not quantized
BY_ROW = "int8 by row"  # what the table of the LM head becomes
GROUP = 128  # rows that share a scale, as far as they divide the rows of a matrix
FEW_ROWS = 8  # benchmarks/README.md#quantized-weights has the figures for these two
BY_GROUP = 64  # most tokens of which the product of each group is scaled
BLOCK_BYTES = 2**19  # of a block of rows as float32 on a CPU, which stays in the cache of a core
LEAST_ROWS = 4  # of such a block
TABLE_BLOCK_BYTES = 2**18  # the same of a table, whose blocks have no sum that stays in the cache with them


def check_weights(weights: Any, name: str = "weights") -> str:
    """Return `weights`; raise UserError for another value than "" and QUANTIZED, and where the library is missing."""
    if weights not in ("", *QUANTIZED):
        raise UserError(f"{name}={weights!r}: expected one of {', '.join(QUANTIZED)}, or none (as they are stored)")
    if weights:
        _library()
    return weights


def is_quantized(value: Any) -> bool:
    """Whether a parameter is a `qwix.QArray`."""
    return hasattr(value, "qvalue")


def group_size(rows: int) -> int:
    """Return how many rows of a matrix of `rows` rows share a scale in int4: GROUP, or what of it divides the rows."""
    return math.gcd(rows, GROUP)


def scale_shape(shape: tuple[int, ...], weights: str) -> tuple[int, ...]:
    """Shape of the scales of a table, of a matrix, or of matrices of all layers, of `shape`."""
    *layers, rows, columns = shape
    if weights == BY_ROW:
        return (*layers, rows, 1)
    return (*layers, 1 if weights == "int8" else rows // group_size(rows), columns)


def dtypes(weights: str) -> tuple[Any, Any]:
    """Types of a quantized weight's values and scales."""
    return (jnp.int4, jnp.bfloat16) if weights == "int4" else (jnp.int8, jnp.float32)


def quantize(matrix: Float[Array, "D F"], weights: str) -> "QArray":
    """Quantize symmetrically, to the nearest, by the largest magnitude that shares a scale.

    weights: of QUANTIZED, or BY_ROW for a table [Q, D].
    """
    kind, scales = dtypes(weights)
    tiles = {0: group_size(matrix.shape[0])} if weights == "int4" else {}
    channels = (0,) if weights == BY_ROW else (1,)
    matrix = jnp.asarray(matrix, jnp.float32)
    return _library().quantize(matrix, kind, channelwise_axes=channels, tiled_axes=tiles, scale_dtype=scales)


def joined(values: Any, scales: Any) -> "QArray":
    """A quantized weight from its parts."""
    return _library().QArray(values, scales)


def multiply(x: Float[Array, "*B D"], weight: "QArray") -> Float[Array, "*B F"]:
    """x @ weight in the dtype of `x`; sums are float32 where scales come after them.

    int8: columns are scaled after the product. int4: of few tokens each group's own product is, of many the weight is
    before it. On a TPU a product of fewer than FEW_ROWS tokens takes longer than of that many. On a CPU the product of
    few tokens goes by blocks of rows: a whole weight in another type would be written to memory and read again.
    """
    tokens = x.reshape(-1, x.shape[-1])
    count = len(tokens)
    tokens = _filled(tokens)
    if count <= BY_GROUP and one_cpu() and (rows := _block_rows(weight)):
        return _by_blocks(tokens, weight, rows).astype(x.dtype).reshape(*x.shape[:-1], weight.scale.shape[-1])
    values, (groups, columns) = weight.qvalue.astype(x.dtype), weight.scale.shape
    if groups == 1:
        sums = jnp.matmul(tokens, values, preferred_element_type=jnp.float32)
        out = sums * weight.scale[0]
    elif count <= BY_GROUP:
        shape = groups, x.shape[-1] // groups
        sums = jnp.einsum(
            "RGD,GDF->GRF",
            tokens.reshape(len(tokens), *shape),
            values.reshape(*shape, columns),
            preferred_element_type=jnp.float32,
        )
        out = jnp.sum(sums * weight.scale[:, None], axis=0)
    else:
        scaled = values.reshape(groups, -1, columns) * weight.scale[:, None].astype(x.dtype)
        out = tokens @ scaled.reshape(values.shape)
    return out[:count].astype(x.dtype).reshape(*x.shape[:-1], columns)


def _filled(tokens: Float[Array, "T D"]) -> Float[Array, "U D"]:
    """`tokens` and, on a TPU, as many rows of zeros as FEW_ROWS lack."""
    lack = FEW_ROWS - len(tokens) if platform() == "tpu" else 0
    return jnp.pad(tokens, ((0, lack), (0, 0))) if lack > 0 else tokens


def _block_rows(weight: "QArray") -> int:
    """Return how many rows a block of `_by_blocks` has, a power of two that divides those of a scale; 0 for too few."""
    group = weight.qvalue.shape[0] // weight.scale.shape[0]
    most = BLOCK_BYTES // (4 * weight.qvalue.shape[1])
    rows = math.gcd(group, 1 << most.bit_length() - 1) if most else 0
    return rows if rows >= LEAST_ROWS else 0


def _by_blocks(tokens: Float[Array, "T D"], weight: "QArray", rows: int) -> Float[Array, "T F"]:
    """tokens @ weight in float32, the sum of the products with `rows` rows of it at a time."""
    blocks = weight.qvalue.shape[0] // rows
    values = weight.qvalue.reshape(blocks, rows, -1)
    parts = tokens.astype(jnp.float32).reshape(len(tokens), blocks, rows).swapaxes(0, 1)
    groups = weight.scale.shape[0]

    def add(total: Array, block: tuple[Array, Array, Array]) -> tuple[Array, None]:
        part, value, number = block
        product = part @ value.astype(jnp.float32)
        if groups > 1:
            product *= weight.scale[number // (blocks // groups)].astype(jnp.float32)
        return total + product, None

    nothing = jnp.zeros((len(tokens), weight.qvalue.shape[1]), jnp.float32)
    total, _ = jax.lax.scan(add, nothing, (parts, values, jnp.arange(blocks)))
    return total if groups > 1 else total * weight.scale[0]


def compare(x: Float[Array, "*B D"], table: "QArray") -> Float[Array, "*B Q"]:
    """x @ table.T of a table that is quantized BY_ROW, float32; each row's scale comes after the product.

    On a CPU the product of few tokens goes by blocks of the table's rows, and on a TPU it is of FEW_ROWS, as in
    `multiply`.
    """
    tokens = x.reshape(-1, x.shape[-1])
    rows = min(TABLE_BLOCK_BYTES // (4 * table.shape[1]), table.shape[0])
    if one_cpu() and len(tokens) <= BY_GROUP and rows >= LEAST_ROWS:
        products = _by_blocks_of_table(tokens, table.qvalue, rows)
    else:
        values = table.qvalue.astype(x.dtype)
        products = jnp.einsum("TD,QD->TQ", _filled(tokens), values, preferred_element_type=jnp.float32)[: len(tokens)]
    return (products * table.scale[:, 0]).reshape(*x.shape[:-1], -1)


def _by_blocks_of_table(tokens: Float[Array, "T D"], values: Array, rows: int) -> Float[Array, "T Q"]:
    """tokens @ values.T in float32, the products with `rows` rows of it at a time, with those that are left last."""
    tokens, blocks = tokens.astype(jnp.float32), len(values) // rows

    def products(block: Array) -> Float[Array, "Q T"]:
        return jax.lax.dot_general(block.astype(jnp.float32), tokens, (((1,), (1,)), ((), ())))

    def of_block(number: Array) -> Float[Array, "Q T"]:
        return products(jax.lax.dynamic_slice_in_dim(values, number * rows, rows))

    found = jax.lax.map(of_block, jnp.arange(blocks)).reshape(blocks * rows, len(tokens))
    rest = [products(values[blocks * rows :])] if len(values) % rows else []
    return jnp.concatenate([found, *rest]).T


def rows_of(table: "QArray", dtype: Any, ids: Any = ...) -> Float[Array, "*B D"]:
    """The rows `ids` of a table that is quantized BY_ROW, all by default, in `dtype`."""
    return (table.qvalue[ids] * table.scale[ids]).astype(dtype)


def gathered_table(table: Any, dtype: Any, axes: tuple[str | None, ...]) -> Float[Array, "Q D"]:
    """A table of logical `axes`, quantized or not, in `dtype` as `sharding.gather` has it."""
    if is_quantized(table):
        return rows_of(jax.tree.map(lambda part: gather(part, axes, part.dtype), table), dtype)
    return gather(table, axes, dtype)


def refined(weight: "QArray", rows: int) -> "QArray":
    """The same weight with scales for groups of which `rows` rows in a row, from the first on, are a whole number."""
    group = weight.qvalue.shape[-2] // weight.scale.shape[-2]
    if group == 1 or weight.scale.shape[-2] == 1:
        return weight
    return joined(weight.qvalue, jnp.repeat(weight.scale, group // math.gcd(group, rows), axis=-2))


def placed(weight: "QArray", mesh: Mesh | None, axes: Sequence[str | None]) -> "QArray":
    """`weight` of logical `axes` with scales for whole groups of the rows that a device of `mesh` works on."""
    rows, axis = weight.qvalue.shape[-2], axes[-2]
    parts = shards(mesh, axis, GATHERED_RULES) if axis else 1
    return refined(weight, rows // parts) if rows % parts == 0 else weight


def plain(params: dict[str, Any]) -> dict[str, Array]:
    """`params` with the parts of each quantized weight for themselves, the same on every mesh (see `refined`)."""
    out: dict[str, Array] = {}
    for name, value in params.items():
        if is_quantized(value):
            rows, groups = value.qvalue.shape[-2], value.scale.shape[-2]
            step = 1 if groups in (1, rows) else groups * group_size(rows) // rows
            out |= {f"{name}.qvalue": value.qvalue, f"{name}.scale": value.scale[..., ::step, :]}
        else:
            out[name] = value
    return out


def _library() -> Any:
    try:
        import qwix
    except ImportError as error:
        raise UserError(f"quantized weights require qwix: {install('quant')}") from error
    return qwix
