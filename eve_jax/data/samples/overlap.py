"""Which records of one collection are in another one, too: the same turns about the same images."""

from collections.abc import Callable, Hashable, Iterable

import numpy as np

from eve_jax.data.image_file import BadImage, image_bytes
from eve_jax.data.plan.lengths import Lengths
from eve_jax.data.plan.measured_on import UNOPENED
from eve_jax.data.record import BadRecord, digest_of
from eve_jax.data.sources.records import Records

MOST = 5000  # records whose images are compared by their bytes, where a source has no stamps of them

Measured = tuple[Records, Lengths]
Content = Callable[[Measured, int], Hashable]


def overlap(held_out: Measured, trained: Measured) -> list[tuple[int, int]]:
    """Return (index, index) of the records of `held_out` that `trained` has as well, each once, in order.

    Turns are compared by their hashes, images by their stamps; by their bytes where a source vouches for its images and
    has no stamps. Tables without hashes, of an early version, have nothing in common.
    """
    ours, theirs = held_out[1].seen, trained[1].seen
    if ours is None or theirs is None:
        return []
    alike = np.flatnonzero(np.isin(theirs.texts, ours.texts)).tolist()
    candidates = np.flatnonzero(np.isin(ours.texts, theirs.texts[alike])).tolist()
    content: Content = _stamped
    if any(_unopened(held_out[1], candidates)) or any(_unopened(trained[1], alike)):
        alike, content = alike[:MOST], _stored
    places = {content(trained, entry): entry for entry in reversed(alike)}
    found = ((entry, places.get(content(held_out, entry))) for entry in candidates)
    records, others = held_out[1].record, trained[1].record
    return [(int(records[entry]), int(others[other])) for entry, other in found if other is not None]


def _unopened(lengths: Lengths, entries: Iterable[int]) -> Iterable[bool]:
    """Yield of each entry whether it has an image without a stamp."""
    for entry in entries:
        seen = lengths.entry_seen(entry)
        yield seen is not None and UNOPENED in seen.stamps


def _stamped(measured: Measured, entry: int) -> Hashable:
    """Return what stands for the turns and the images of an entry."""
    seen = measured[1].entry_seen(entry)
    assert seen is not None
    return seen.text, tuple(stamp[:2] for stamp in seen.stamps)


def _stored(measured: Measured, entry: int) -> Hashable:
    """Return the same from the bytes of the images; of a record that cannot be read, what no other has."""
    records, lengths = measured
    seen = lengths.entry_seen(entry)
    assert seen is not None
    try:
        images = records[int(lengths.record[entry])].images
        return seen.text, tuple(digest_of([image_bytes(image)]) for image in images)
    except (BadImage, BadRecord):
        return id(measured), entry
