"""Tables of lengths joined in a file: one array after the other, a part of it in memory at a time."""

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from eve_jax.data.field_counts import FieldCounts
from eve_jax.data.plan.lengths import ARRAYS, Dropped, Lengths
from eve_jax.data.plan.mapped_arrays import ArrayFile
from eve_jax.data.plan.measured_on import SEEN
from eve_jax.process.files import in_place_of

Part = Path | Lengths  # a table, or the file of one


def save_joined(path: Path, parts: Sequence[Part]) -> None:
    """Write the table of several parts' records, in that order, to the file `path`: as `joined(parts).save(path)` does.

    Memory is that of the largest part, and of the records left out. Raises OSError, and ValueError for a file that is
    none.
    """
    dropped: list[Dropped] = []
    fields: list[FieldCounts] = []
    truncated = shrunk = 0
    names = [*ARRAYS, *SEEN]
    rows = dict.fromkeys(names, 0)
    for part in parts:
        table = Lengths.load(part) if isinstance(part, Path) else part
        dropped += table.dropped
        truncated, shrunk = truncated + table.truncated, shrunk + table.shrunk
        fields = [a + b for a, b in zip(fields, table.fields, strict=True)] if fields else list(table.fields)
        if table.seen is None:
            names = list(ARRAYS)
        for name in names:
            rows[name] += len(_array(part, name))
    rows["first_grid"] += 1 - len(parts)  # the end of a part is the begin of the next
    counts = hashlib.blake2b(digest_size=16)
    path.parent.mkdir(parents=True, exist_ok=True)
    with in_place_of(path) as new, zipfile.ZipFile(new, "w", zipfile.ZIP_STORED) as file:
        for name in names:
            for data in _write(file, name, rows[name], parts):
                if name in ARRAYS:
                    counts.update(data)
        texts = {"dropped": json.dumps(dropped), "fields": json.dumps([one.plain() for one in fields])}
        texts["digest"] = counts.hexdigest()
        few = {"changed": np.array([truncated, shrunk]), **{name: np.array(text) for name, text in texts.items()}}
        for name, array in few.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array)


def _array(part: Part, name: str) -> np.ndarray:
    if isinstance(part, Path):
        return ArrayFile(part).mapped()[name]
    return np.asarray(getattr(part if name in ARRAYS else part.seen, name))


def _write(file: zipfile.ZipFile, name: str, rows: int, parts: Sequence[Part]) -> Iterator[memoryview]:
    """Write array `name` of all parts; yield its content in pieces."""
    first = _array(parts[0], name)
    head = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (rows, *first.shape[1:]),
    }
    images = 0
    with file.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, head)
        for number, part in enumerate(parts):
            array = _array(part, name)
            if name == "first_grid":
                array = array + images
                images = int(array[-1])
                array = array if number == len(parts) - 1 else array[:-1]
            if len(array):
                data = np.ascontiguousarray(array).data.cast("B")
                member.write(data)
                yield data
