"""Weights in a file that `torch.save` wrote before PyTorch 1.6, read without torch.

The file is five pickles (a magic number, the protocol, the writer's system, the state dict, the keys of its storages)
and then the bytes of each storage behind its length. Nothing but tensors of dicts is unpickled.
"""

import collections
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from eve_jax.errors import UserError
from eve_jax.process.files import read_bytes

MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}


def read_torch_file(file: Path) -> dict[str, np.ndarray]:
    """Return the tensors of the state dict in `file` by name. Raises UserError for any other file."""
    stream = io.BytesIO(read_bytes(file))
    try:
        storages: dict[str, tuple[np.dtype, list[np.ndarray]]] = {}
        if _Unpickler(stream, storages).load() != MAGIC:
            raise ValueError("it has another magic number")
        for _ in range(2):
            _Unpickler(stream, storages).load()
        state = _Unpickler(stream, storages).load()
        for key in _Unpickler(stream, storages).load():
            dtype, data = storages[key]
            count = int.from_bytes(stream.read(8), "little")
            data.append(np.frombuffer(stream.read(count * dtype.itemsize), dtype, count))
        return {name: tensor.array() for name, tensor in state.items()}
    except Exception as error:  # a broken pickle raises anything
        raise UserError(f"{file} is no state dict of PyTorch's old form ({type(error).__name__}: {error})") from error


class _Tensor:
    """A tensor whose storage follows later in the file."""

    def __init__(self, storage: list[np.ndarray], start: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.storage, self.start, self.shape, self.strides = storage, start, shape, strides

    def array(self) -> np.ndarray:
        data = self.storage[0][self.start :]
        last = sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))
        if min(self.shape, default=1) < 1 or min(self.strides, default=0) < 0 or last >= len(data):
            raise ValueError(f"a tensor of {self.shape} lies outside its storage")
        steps = tuple(step * data.itemsize for step in self.strides)
        return np.lib.stride_tricks.as_strided(data, self.shape, steps).copy()


class _Unpickler(pickle.Unpickler):
    """Unpickles tensors; refuses every other class and function."""

    def __init__(self, stream: io.BytesIO, storages: dict[str, tuple[np.dtype, list[np.ndarray]]]) -> None:
        super().__init__(stream)
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, start, shape, strides, *_: _Tensor(storage, start, shape, strides)
        if module == "torch" and name in DTYPES:
            return np.dtype(DTYPES[name])
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is not read")

    def persistent_load(self, name: Any) -> list[np.ndarray]:
        _, dtype, key, *_ = name
        return self.storages.setdefault(key, (dtype, []))[1]
