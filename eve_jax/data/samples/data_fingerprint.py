"""The data's part in a run's identity: hashes of all that the content of a batch follows from, by name.

    {"tokenizer", "template", "image_rule", "settings": hashes, of codes also "vision_tokenizer",
     "sources": [{"name", "records", "entries": numbers, "texts", "images": hashes,
                  "groups": {"texts", "images": checksums that tell what changed first, see `group_checksums`}} ...]}

It goes with every checkpoint. Paths and modification times are not in it: data that was moved or copied is the same.
"""

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from eve_jax.data.plan.lengths import Lengths
from eve_jax.data.samples.first_changes import (
    first_entry,
    first_image,
    first_left_out,
    first_shard,
    shard_hashes,
    shown_entries,
    shown_images,
)
from eve_jax.data.samples.group_checksums import group_checksums
from eve_jax.data.samples.image_changes import changed_images, entry_bounds
from eve_jax.data.samples.sample_rule import VISION_TOKENIZER, Fingerprint, SampleRule
from eve_jax.data.sources.records import Records
from eve_jax.errors import UserError, amount

BLOCK = 1 << 20  # rows hashed at a time
OTHER_FOLDER = "use another --workdir, or remove the folder and those of the stages after it"
_RESTORE = {
    "tokenizer": (
        "config.data.tokenizer={tokenizer} is not the tokenizer that its checkpoints were trained with; name that one, "
        "of which the folder has a copy"
    ),
    "template": "the text of the template {template} is not what its checkpoints were trained with; restore it",
    VISION_TOKENIZER: "config.data.vision_tokenizer is not the vision tokenizer that its checkpoints were trained "
    "with; name that one, of which the folder has a copy",
    "image_rule": "the image rule is not what its checkpoints were trained with; restore the settings of config.data",
    "settings": "config.data.image_first, special_text, max_tokens or long is not what its checkpoints were trained "
    "with; restore it",
}


def sources_fingerprint(records: Records, lengths: Lengths) -> list[dict[str, Any]]:
    """Return what each source of a lengths table is: hashes of the texts and images of its usable records, in order."""
    found = []
    spans = zip(pairwise(records.starts.tolist()), pairwise(entry_bounds(records, lengths)), strict=True)
    for number, ((first, last), (start, stop)) in enumerate(spans):
        images = range(int(lengths.first_grid[start]), int(lengths.first_grid[stop]))
        texts = hashlib.blake2b(digest_size=16)
        files = hashlib.blake2b(records.source(number).stored().encode(), digest_size=16)
        groups = {}
        if lengths.seen is not None:
            _add(texts, lengths.seen.texts, start, stop)
            _add(files, lengths.seen.files, images.start, images.stop)
            groups["texts"] = group_checksums(lengths.seen.texts[start:stop])
            groups["images"] = group_checksums(lengths.seen.files[images.start : images.stop])
        if shards := records.source(number).shards():
            groups["shards"] = group_checksums(shard_hashes(shards))
        found.append(
            {
                "name": records.names[number],
                "records": last - first,
                "entries": stop - start,
                "texts": texts.hexdigest(),
                "images": files.hexdigest(),
                "groups": groups,
            }
        )
    return found


def _add(digest: Any, array: np.ndarray, start: int, stop: int) -> None:
    for at in range(start, stop, BLOCK):
        digest.update(np.ascontiguousarray(array[at : min(at + BLOCK, stop)]).data)


def check_rule(folder: Path, saved: Mapping[str, Any], now: Fingerprint, rule: SampleRule) -> None:
    """Raise UserError, which names the part, when a run in `folder` was begun with another tokenizer or template.

    saved: the fingerprint that went with its checkpoint; parts that it lacks are not compared. now: that of `rule`.
    """
    names = {"tokenizer": rule.tokenizer.folder, "template": rule.template}
    for part, text in _RESTORE.items():
        if part in saved and saved[part] != now.get(part):
            raise UserError(f"{folder}: {text.format(**names)}, or {OTHER_FOLDER}")


def check_counts(folder: Path, saved: Mapping[str, Any], records: Records) -> None:
    """Raise UserError when sources came, went, or have another number of records; reads none of them."""
    known = saved.get("sources")
    if known is None:
        return
    if len(known) != len(records.names):
        raise UserError(
            f"{folder}: config.data.records names {len(records.names)} sources, its checkpoints were trained on "
            f"{len(known)} ({', '.join(one['name'] for one in known)}); name those, or {OTHER_FOLDER}"
        )
    counts = np.diff(records.starts).tolist()
    for number, (one, name, count) in enumerate(zip(known, records.names, counts, strict=True), 1):
        if one["records"] != count:
            raise UserError(
                f"{folder}: source {number} of config.data.records, {name}, has {amount(count, 'record')}; its "
                f"checkpoints were trained on {one['records']:,} ({one['name']}); restore them, or {OTHER_FOLDER}"
            )


def check_sources(
    folder: Path, saved: Mapping[str, Any], now: list[dict[str, Any]], records: Records, lengths: Lengths
) -> None:
    """Raise UserError, which names the source and where it can the file, when records or images have changed.

    An image that cannot be read any more is no change: its sample is masked.
    """
    known = saved.get("sources")
    if known is None:
        return
    for number, (old, new) in enumerate(zip(known, now, strict=True), 1):
        if old["texts"] == new["texts"]:
            continue
        about = f"{folder}: the records of {new['name']} (source {number}) are not those of its last checkpoint"
        first = first_entry(number - 1, old, new, records, lengths)
        if old["entries"] != new["entries"]:
            about += (
                f" ({new['entries']:,} of them can be used, {old['entries']:,} could{first_left_out(lengths, first)})"
            )
        elif sorted(one["texts"] for one in known) == sorted(one["texts"] for one in now):
            about += ", but those of another source: config.data.records has another order"
        elif first:
            about += f"; the first that changed {shown_entries(first, records, lengths)}"
        raise UserError(f"{about}; restore them, or {OTHER_FOLDER}")
    for number, (old, new) in enumerate(zip(known, now, strict=True), 1):
        if old["images"] != new["images"]:
            first = first_image(number - 1, old, new, records, lengths)
            shard = "" if first else first_shard(old, records.source(number - 1).shards())
            shown = shown_images(first, records, lengths) if first else shard and f"is in {shard}"
            found = f"; the first that changed {shown}" if shown else ""
            raise UserError(
                f"{folder}: images of {new['name']} (source {number}) are not those of its last checkpoint{found}; "
                f"restore the files, or {OTHER_FOLDER}"
            )
    changed = [change for change in changed_images(records, lengths) if not change.broken]
    if changed:
        one, more = changed[0], f" and {len(changed) - 1:,} more" if len(changed) > 1 else ""
        raise UserError(
            f"{folder}: the image {one.image} (of {one.where}){more} changed since its last checkpoint; restore "
            f"the file, or remove it to train without (its sample is masked), or {OTHER_FOLDER}"
        )
