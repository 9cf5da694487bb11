"""Which image files changed since they were measured: all of a small data set, an even sample of a large one.

An image that is not in the sample is compared when it is decoded (`eve_jax.data.rows.build`).
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eve_jax.data.image.patches import image_size
from eve_jax.data.image_file import BadImage, ImageFile
from eve_jax.data.plan.lengths import Lengths
from eve_jax.data.plan.measured_on import SeenTable, Stamp
from eve_jax.data.record import BadRecord
from eve_jax.data.samples.image_stamps import files_hash, is_changed
from eve_jax.data.sources.records import Records

MOST = 20_000  # images of a source, and records left out, that are looked at
THREADS = 16  # that wait for a file system on a network


class ImageChange(NamedTuple):
    """An image of record `where` that differs from what was measured; `broken`: it cannot be used any more."""

    image: str
    where: str
    broken: bool


def entry_bounds(records: Records, lengths: Lengths) -> list[int]:
    """Return int [names + 1], between which two entries of the table those of each source lie."""
    return [int(np.searchsorted(lengths.record, start)) for start in records.starts.tolist()]


def changed_images(records: Records, lengths: Lengths, most: int = MOST) -> list[ImageChange]:
    """Return the images of entries, of at most `most` a source, that changed since the table was made, in order."""
    if lengths.seen is None:
        return []
    spans = pairwise(entry_bounds(records, lengths))
    return changed_files(one for span in spans for one in _sample(records, lengths, lengths.seen, *span, most))


def changed_files(files: Iterable[tuple[ImageFile, Stamp, str]]) -> list[ImageChange]:
    """Return those of image files, each with its stamp and the place of its record, that changed, in order."""
    once: dict[str, tuple[ImageFile, Stamp, str]] = {}
    for file, stamp, where in files:
        once.setdefault(str(file), (file, stamp, where))
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda one: _compared(*one), once.values())
        return [change for change in found if change is not None]


def _sample(
    records: Records, lengths: Lengths, seen: SeenTable, start: int, stop: int, most: int
) -> Iterator[tuple[ImageFile, Stamp, str]]:
    """Yield images next to the records start to stop of the table, evenly spread: file, stamp, place of the record."""
    first, last = int(lengths.first_grid[start]), int(lengths.first_grid[stop])
    numbers = np.linspace(first, last, min(last - first, most), endpoint=False).astype(np.int64)
    numbers = numbers[seen.times[numbers] != 0]  # those inside other files come with the records' own hash
    entries = np.searchsorted(lengths.first_grid, numbers, side="right") - 1
    for number, entry in zip(numbers.tolist(), entries.tolist(), strict=True):
        own = number - int(lengths.first_grid[entry])
        try:
            record = records[int(lengths.record[entry])]
        except BadRecord:  # it is reported when its row is built
            continue
        if own < len(record.images):
            size, checksum = seen.files[number].tolist()
            stamp = Stamp(size, checksum, int(seen.times[number]))
            yield record.images[own], stamp, record.where


def _compared(file: ImageFile, stamp: Stamp, where: str) -> ImageChange | None:
    try:
        if not is_changed(file, stamp):
            return None
        image_size(file)
    except BadImage:
        return ImageChange(str(file), where, broken=True)
    return ImageChange(str(file), where, broken=False)


def left_out_changed(records: Records, lengths: Lengths, most: int = MOST) -> str:
    """Return the first image of a record left out whose file came, went or changed since; "" when there is none."""
    if lengths.seen is None:
        return ""
    wanted = zip(lengths.seen.left_out[:most].tolist(), lengths.seen.left_out_files[:most].tolist(), strict=True)
    for index, known in wanted:
        try:
            images = records[index].images
        except BadRecord:  # still broken, since the records' content is what it was
            continue
        if files_hash(images) != known:
            return next((str(file) for file in images if isinstance(file, str | Path)), records.where(index))
    return ""
