"""Which record or image is the first that is not what it was when a checkpoint was written, for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eve_jax.data.plan.lengths import Lengths
from eve_jax.data.samples.group_checksums import first_difference, group_checksums
from eve_jax.data.samples.image_changes import entry_bounds
from eve_jax.data.sources.records import Records


def first_entry(
    source: int, old: Mapping[str, Any], new: Mapping[str, Any], records: Records, lengths: Lengths
) -> range:
    """Return the first entries of the table, those of a group, whose records changed; empty when that is not known.

    old, new: what the fingerprint has of the source, then and now.
    """
    start = entry_bounds(records, lengths)[source]
    found = _first("texts", old, old["entries"], new, new["entries"])
    return range(start + found.start, start + found.stop)


def first_image(
    source: int, old: Mapping[str, Any], new: Mapping[str, Any], records: Records, lengths: Lengths
) -> range:
    """Return the first images of the table, those of a group, that changed; empty when that is not known."""
    start, stop = (int(lengths.first_grid[at]) for at in entry_bounds(records, lengths)[source : source + 2])
    found = _first("images", old, stop - start, new, stop - start)
    return range(start + found.start, start + found.stop)


def shard_hashes(shards: Sequence[tuple[Path, str]]) -> np.ndarray:
    """Return the hashes of shards of prepared records, uint8 [shards, bytes]."""
    return np.array([list(bytes.fromhex(digest)) for _, digest in shards], np.uint8)


def first_shard(old: Mapping[str, Any], shards: Sequence[tuple[Path, str]]) -> str:
    """Return the files of images of the first shards, those of a group, that changed; "" when that is not known.

    old: what the fingerprint had of the source. The images of prepared records have no checksums of their own.
    """
    before, after = old.get("groups", {}).get("shards"), group_checksums(shard_hashes(shards)) if shards else ""
    if before is None or len(before) != len(after):  # an earlier version's, or of another number of shards
        return ""
    found = first_difference(before, len(shards), after, len(shards))
    files = [str(shards[number][0]) for number in (found.start, found.stop - 1)] if found else []
    return " to ".join(dict.fromkeys(files))


def _first(part: str, old: Mapping[str, Any], old_count: int, new: Mapping[str, Any], new_count: int) -> range:
    before, after = (one.get("groups", {}).get(part) for one in (old, new))  # None of an earlier version
    if before is None or after is None:
        return range(0)
    return first_difference(before, old_count, after, new_count)


def shown_entries(entries: range, records: Records, lengths: Lengths) -> str:
    """Return "is ..." or "is one of ..." with the places of these records."""
    first, last = (records.where(int(lengths.record[entry])) for entry in (entries[0], entries[-1]))
    return f"is {first}" if len(entries) == 1 else f"is one of the {len(entries):,} from {first} to {last}"


def shown_images(images: range, records: Records, lengths: Lengths) -> str:
    """Return "is ..." or "is one of ..." with the names of these images and the places of their records."""
    first, last = (_shown_image(number, records, lengths) for number in (images[0], images[-1]))
    return f"is {first}" if len(images) == 1 else f"is one of the {len(images):,} from {first} to {last}"


def _shown_image(number: int, records: Records, lengths: Lengths) -> str:
    entry = int(np.searchsorted(lengths.first_grid, number, side="right")) - 1
    record = records[int(lengths.record[entry])]
    return f"{record.images[number - int(lengths.first_grid[entry])]} (of {record.where})"


def first_left_out(lengths: Lengths, entries: range) -> str:
    """Return the first record left out, where it is known of those where the `entries` begin to differ; "" for none."""
    if not lengths.dropped:
        return ""
    number = 0
    if entries and lengths.seen is not None:
        before = int(lengths.record[entries[0] - 1]) if entries[0] else -1
        later = np.flatnonzero(lengths.seen.left_out > before)
        number = int(later[0]) if len(later) else 0
    return f"; left out is {lengths.dropped[number].described}"
