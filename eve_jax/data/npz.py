"""Arrays in .npz files, read where they are used: a table of many records costs a process no memory of its own."""

import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

LOCAL_HEADER = 30  # bytes of a zip member's header before its name


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays, uncompressed, to the .npz file `path`, which is there in whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez(file, **arrays)
    part.replace(path)


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an uncompressed .npz file, read-only and memory-mapped."""
    arrays = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for member in archive.infolist():
            file.seek(member.header_offset)
            name_bytes, extra_bytes = struct.unpack("<26x2H", file.read(LOCAL_HEADER))
            file.seek(member.header_offset + LOCAL_HEADER + name_bytes + extra_bytes)
            np.lib.format.read_magic(file)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            empty = 0 in shape  # of which there is nothing to map
            array = (
                np.zeros(shape, dtype)
                if empty
                else np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
            )
            arrays[member.filename.removesuffix(".npy")] = np.asarray(array)
    return arrays
