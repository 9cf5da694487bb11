"""Arrays in .npz files, read where they are used: a table of many records costs a process no memory of its own."""

import os
import struct
import weakref
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eve_jax.process.files import in_place_of

LOCAL_HEADER = 30  # bytes of a zip member's header before its name


class _Place(NamedTuple):
    """Where an array lies in a file."""

    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    order: str


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays, uncompressed, to the .npz file `path`, which is there in whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with in_place_of(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


class ArrayFile:
    """The arrays of an uncompressed .npz file, mapped into memory as a whole, or read in part; safe for threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, _Place] = {}
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            for member in archive.infolist():
                file.seek(member.header_offset)
                name_bytes, extra_bytes = struct.unpack("<26x2H", file.read(LOCAL_HEADER))
                file.seek(member.header_offset + LOCAL_HEADER + name_bytes + extra_bytes)
                np.lib.format.read_magic(file)
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
                place = _Place(file.tell(), dtype, shape, "F" if fortran else "C")
                self._places[member.filename.removesuffix(".npy")] = place
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def mapped(self) -> dict[str, np.ndarray]:
        """All arrays, read-only. The pages of theirs that are looked at count as this process's memory."""
        return {name: self._mapped(place) for name, place in self._places.items()}

    def _mapped(self, place: _Place) -> np.ndarray:
        offset, dtype, shape, order = place
        if 0 in shape:  # there is nothing to map
            return np.zeros(shape, dtype)
        return np.asarray(np.memmap(self.path, dtype, "r", offset, shape, order))  # type: ignore[call-overload]

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """array[start:stop] of the one called `name` (in C order), a copy."""
        offset, dtype, shape, _ = self._places[name]
        size = dtype.itemsize * int(np.prod(shape[1:]))
        data = os.pread(self._file, (stop - start) * size, offset + start * size)
        return np.frombuffer(data, dtype).reshape(-1, *shape[1:])
