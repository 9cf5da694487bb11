"""A lengths table as it lies in a file, checked before anything counts on it.

Folders of prepared records with such tables are downloaded, and the loops of planning check no bounds: a negative
length in a table would have them write past their arrays.
"""

import hashlib
from collections.abc import Mapping

import numpy as np

from eve_jax.data.plan.mapped_arrays import ArrayFile
from eve_jax.data.plan.measured_on import SEEN
from eve_jax.errors import amount
from eve_jax.process.marks import Mark

ARRAYS = ("record", "text", "patches", "specials", "grids", "first_grid")
VERSION = 1  # of the check, part of its marks: one that refuses more is another
BLOCK = 1 << 18  # entries looked at in one piece
MOST_TOKENS = 1 << 29  # of an entry, whatever the settings: what the loops of planning can add up in int32
KINDS = {name: np.dtype(np.int32) for name in ARRAYS} | {
    "first_grid": np.dtype(np.int64),
    "texts": np.dtype(np.uint64),
    "files": np.dtype(np.uint32),
    "times": np.dtype(np.int64),
    "left_out": np.dtype(np.int32),
    "left_out_files": np.dtype(np.uint64),
    "changed": np.dtype(np.int64),
}


class BadTable(ValueError):
    """What keeps a file from being a lengths table."""


def check_arrays(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise `BadTable` unless the arrays of a table are all there, of the right types and shapes; reads none of them.

    arrays: as `ArrayFile.mapped` gives them, by name.
    """
    seen = SEEN if SEEN[0] in arrays else ()
    missing = [name for name in (*ARRAYS, *seen, "changed", "dropped", "fields") if name not in arrays]
    if missing:
        raise BadTable(f"has no array {missing[0]}")
    n, images = arrays["record"].shape[:1], arrays["grids"].shape[:1]
    shapes = dict.fromkeys(("record", "text", "patches", "specials", "texts"), n)
    shapes |= {"grids": (*images, 2), "files": (*images, 2), "times": images, "first_grid": tuple(k + 1 for k in n)}
    shapes |= {"left_out_files": arrays["left_out"].shape[:1], "left_out": arrays["left_out"].shape[:1]} if seen else {}
    for name in (*ARRAYS, *seen, "changed"):
        array = arrays[name]
        if array.dtype != KINDS[name] or array.shape != shapes.get(name, (2,)):
            raise BadTable(f"its array {name} is {array.dtype} {list(array.shape)}, which it cannot be")
        if not array.flags.c_contiguous:
            raise BadTable(f"its array {name} is not in C order")


def check_table(
    file: ArrayFile, digest: str, records: int, most: int, wait: bool = False, specials: bool = True
) -> None:
    """Raise `BadTable` as `check_content` does, or where `digest` is not that of the arrays.

    Reads the arrays once for each of both; nothing of a file that passed before and is the same since (`Mark`, whose
    `wait` it is).
    """
    kind = [] if specials else ["no special tokens"]
    mark = Mark.of_file(file.number, file.path, ["lengths", VERSION, records, most, *kind], wait)
    if mark.kept() == digest:
        return
    check_content(file, records, most, specials)
    if digest != counts_digest(file):
        raise BadTable("its digest is not that of its arrays")
    mark.keep(file.number, digest)


def check_content(file: ArrayFile, records: int, most: int, specials: bool = True) -> None:
    """Raise `BadTable` for numbers that a table of `records` records with samples of at most `most` tokens cannot have.

    specials: whether images have special tokens. file: whose arrays `check_arrays` has passed; they are read in pieces
    of BLOCK entries.
    """
    mapped = file.mapped()
    n, images = len(mapped["record"]), len(mapped["grids"])
    before, grid = -1, 0
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        record = file.read("record", start, stop).astype(np.int64)
        _refuse(np.diff(record, prepend=before) < 1, start, "a record that does not come after the one before")
        before = int(record[-1])
        if before >= records:
            raise BadTable(f"names record {before}, of {amount(records, 'record')}")
        first = file.read("first_grid", start, stop + 1)
        if first[0] != grid or (np.diff(first) < 0).any() or first[-1] > images:
            raise BadTable(f"the images of entries {start} to {stop} do not follow one another")
        counts = [file.read(name, start, stop).astype(np.int64) for name in ("text", "patches", "specials")]
        for name, count in zip(("text", "patches", "special"), counts, strict=True):
            _refuse(count < 0, start, f"a negative number of {name} tokens")
        _refuse(np.add.reduce(counts) > min(most, MOST_TOKENS), start, f"more than {min(most, MOST_TOKENS):,} tokens")
        sides = file.read("grids", grid, int(first[-1])).astype(np.int64)
        if (sides < 1).any() or (sides > MOST_TOKENS).any():
            raise BadTable(f"an image of entries {start} to {stop} has no patches, or too many")
        own = first - grid
        _refuse(_sums(sides.prod(axis=1), own) != counts[1], start, "patches that its images do not have")
        _refuse(
            _sums((sides[:, 0] + 1) * specials, own) != counts[2], start, "special tokens that its images do not have"
        )
        grid = int(first[-1])
    if grid != images:
        raise BadTable(f"has {amount(images, 'image')}, of which its entries have {grid:,}")


def counts_digest(file: ArrayFile) -> str:
    """Return the hash of a table's arrays ARRAYS, read in pieces."""
    digest = hashlib.blake2b(digest_size=16)
    mapped = file.mapped()
    for name in ARRAYS:
        for start in range(0, len(mapped[name]), BLOCK):
            digest.update(file.read(name, start, min(start + BLOCK, len(mapped[name]))).data)
    return digest.hexdigest()


def _sums(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the sums int64 [n] of values[first[i] : first[i + 1]]."""
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
    return total[first[1:]] - total[first[:-1]]


def _refuse(wrong: np.ndarray, start: int, why: str) -> None:
    if wrong.any():
        raise BadTable(f"entry {start + int(np.argmax(wrong))} has {why}")
