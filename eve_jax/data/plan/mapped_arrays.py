"""Arrays in .npz files, read where they are used: a table of many records costs a process no memory of its own."""

import math
import os
import struct
import weakref
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eve_jax.errors import shorten
from eve_jax.process.files import in_place_of

LOCAL_HEADER = 30  # bytes of a zip member's header before its name


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays, uncompressed, to the .npz file `path`, which is there in whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with in_place_of(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


class ArrayFile:
    """The arrays of an uncompressed .npz file, mapped into memory or read in part; safe for threads.

    number: the file's descriptor. The file is opened once, so that all arrays are of one table even when another
    process replaces it. Raises OSError, and whatever the readers of zip and NumPy do, for a file that is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays: dict[str, np.memmap] = {}
        file = path.open("rb")
        weakref.finalize(self, file.close)
        size = os.fstat(file.fileno()).st_size
        for member in zipfile.ZipFile(file).infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"the array {shorten(member.filename, 60)} is compressed")
            file.seek(member.header_offset)
            name_bytes, extra_bytes = struct.unpack("<26x2H", file.read(LOCAL_HEADER))
            file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
            np.lib.format.read_magic(file)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            end = file.tell() + math.prod(shape) * dtype.itemsize  # of Python's numbers: NumPy's would wrap around
            if min(shape, default=0) < 0 or end > size or dtype.hasobject:
                raise ValueError(f"the array {shorten(member.filename, 60)} is not in the file")
            mapped = np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C")
            self._arrays[member.filename.removesuffix(".npy")] = mapped
        self.number = file.fileno()

    def mapped(self) -> dict[str, np.ndarray]:
        """Return all arrays, read-only. Their pages that are looked at count as this process's memory."""
        return {name: np.asarray(array) for name, array in self._arrays.items()}

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Return a copy of array[start:stop] of the one called `name` (in C order), without mapping its pages."""
        array = self._arrays[name]
        size = array.dtype.itemsize * int(np.prod(array.shape[1:]))
        data = os.pread(self.number, (stop - start) * size, array.offset + start * size)
        return np.frombuffer(data, array.dtype).reshape(-1, *array.shape[1:])
