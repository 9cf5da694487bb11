"""Quantized matrices in the safetensors of an export (`eve_jax.model.quantized`), a tensor of values and one of scales.

`NAME.weight` [out, in] of int8, or of two int4 a byte, uint8 [out, in / 2] with the earlier one in the lower half; and
`NAME.weight_scale`, float32 [out, 1] or bfloat16 [out, in / group]. Section `eve_jax` of config.json names the type of
the layers' matrices; the table of the LM head is int8 with a scale for each entry of the vocabulary.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from eve_jax.errors import UserError
from eve_jax.hf.safetensors_io import TensorInfo
from eve_jax.model import quantized

SCALE = "_scale"  # after the name of a weight
INT4 = np.dtype(jnp.int4)
Spec = tuple[str, np.dtype, tuple[int, ...]]


def pack(values: np.ndarray) -> np.ndarray:
    """`values` as they are stored: int8 as it is, int4 [out, in] as uint8 [out, in / 2]."""
    if values.dtype == np.int8:
        return np.ascontiguousarray(values)
    low, high = (values[:, start::2].astype(np.int8).view(np.uint8) & 15 for start in (0, 1))
    return low | high << 4


def unpack(stored: np.ndarray) -> np.ndarray:
    """The opposite of `pack`."""
    if stored.dtype == np.int8:
        return stored
    halves = np.stack([stored & 15, stored >> 4], axis=-1).reshape(len(stored), -1).astype(np.int8)
    return ((halves ^ 8) - 8).astype(INT4)


def stored_as(weights: str) -> str:
    """Return what a table or matrix is in a file that is quantized to `weights`: rows of a table are [out, in], too."""
    return "int8" if weights == quantized.BY_ROW else weights


def specs(name: str, shape: tuple[int, ...], weights: str) -> list[Spec]:
    """Names, dtypes and shapes of what is stored of the matrix `name` of `shape` [out, in]. Raises UserError."""
    (out, into), weights = shape, stored_as(weights)
    if weights == "int4" and into % 2:
        raise UserError(f"{name} has {into} columns: two int4 share a byte, so take --weights=int8")
    scales = quantized.scale_shape((into, out), weights)
    values = (np.dtype(np.int8), shape) if weights == "int8" else (np.dtype(np.uint8), (out, into // 2))
    return [(name, *values), (name + SCALE, np.dtype(quantized.dtypes(weights)[1]), scales[::-1])]


class Packed(NamedTuple):
    """A quantized matrix or table in a file, in place of a `TensorInfo`; `shape` and `dtype` are those of its numbers.

    weights: what the folder's are called, which its own `kind` may differ from.
    """

    values: TensorInfo
    scales: TensorInfo
    weights: str

    @property
    def file(self) -> Path:
        """Where the values are."""
        return self.values.file

    @property
    def kind(self) -> str:
        """What its numbers are, int8 or int4."""
        return "int8" if self.values.dtype == np.int8 else "int4"

    @property
    def dtype(self) -> np.dtype:
        """Type of the scales, which the numbers have when they are written out."""
        return self.scales.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """[out, in]."""
        *outer, last = self.values.shape
        return (*outer, 2 * last if self.kind == "int4" else last)

    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Values and scales, [out, in] and [out, groups]."""
        return unpack(self.values.read()), self.scales.read()

    def read(self) -> np.ndarray:
        """Raise UserError: the numbers are not what the model was trained to."""
        raise UserError(
            f"{self.file} holds {self.weights} weights, which are for answers and losses alone; name the model that "
            "they were made of"
        )


def open_packed(tensors: Mapping[str, TensorInfo], weights: str, folder: Path) -> dict[str, Any]:
    """`tensors` with values and scales of quantized matrices together; `weights`: their type, "" where there are none.

    Raises UserError for a tensor of whole numbers that is not one of them, and for scales that do not fit.
    """
    found: dict[str, Any] = {n: t for n, t in tensors.items() if not (weights and n.endswith(SCALE))}
    for name, values in list(found.items()):
        if values.dtype.kind not in "iu":
            continue
        scales = tensors.get(name + SCALE)
        if not weights or scales is None:
            raise UserError(f"{values.file}: tensor {name} is of type {values.dtype}, without scales that are known")
        packed = Packed(values, scales, weights)
        wanted = specs(name, packed.shape, packed.kind) if len(packed.shape) == 2 else []
        if [(t.dtype, t.shape) for t in (values, scales)] != [spec[1:] for spec in wanted]:
            raise UserError(
                f"{folder}: tensors {name} {values.dtype} {values.shape} and {name}{SCALE} {scales.dtype} "
                f"{scales.shape} do not fit each other as {packed.kind}"
            )
        found[name] = packed
    return found
