"""Any source -> prepared records: ArrayRecord shards and the lengths table, by several processes, resumable.

    records k * n to (k + 1) * n of the source -> shard k, its line of the summary next to it when it is whole
    all shards -> eve_records.json, bad_records.jsonl, summary.json
               -> lengths-<hash>.npz for the settings of a stage

A run that was killed resumes with the shards that are not whole; the shards are the same whoever writes them.
"""

import json
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from eve_jax.data.field_counts import FieldCounts, summed
from eve_jax.data.image.patches import open_image
from eve_jax.data.image.rule import MAX_PIXELS, ImageRule
from eve_jax.data.image_file import BadImage, ImageFile
from eve_jax.data.plan.lengths import Dropped, kept_table, made_table
from eve_jax.data.prepare.noted_images import NotedImages
from eve_jax.data.prepare.shard_writer import ShardWriter, write_dataset
from eve_jax.data.record import BadRecord, UnreadMedia
from eve_jax.data.rows.bad_records import BadRecords, kind_of
from eve_jax.data.samples.measure import measure_into, table_name
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.hub_files import is_data_set, pinned_records
from eve_jax.data.sources.kept_index import INDEX
from eve_jax.data.sources.records import Records, open_records
from eve_jax.data.sources.shards import CONVERSION_FILE, DATASET_FILE, Shard, read_dataset, table_digests
from eve_jax.data.text.turns import check_turns
from eve_jax.errors import UserError
from eve_jax.process.files import PART, read_json, write_atomically, write_json
from eve_jax.process.lock import LOCK, locked
from eve_jax.process.pieces import Tick, run_processes

SUMMARY_FILE = "summary.json"
SIDES = (64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 4096)  # histogram of the square root of an image's area
CHECKS = ("headers", "decode")
NAMES = "names"  # in CONVERSION_FILE: the sources, where a data set of the hub is one


@dataclass(frozen=True)
class Conversion:
    """What a process needs to write shards: the source as in the config, the folder, records a shard, see CHECKS.

    max_pixels: of an image file. codes: the rule with a coder, for images that are kept as grids of codes.
    """

    records: str
    images: str
    folder: str
    shard_records: int
    check: str
    max_pixels: int = MAX_PIXELS
    codes: ImageRule | None = None


def convert(conversion: Conversion, rule: SampleRule | None = None, processes: int = 1) -> dict[str, Any]:
    """Write the source into the folder, make the lengths table of its samples by `rule`, and return the summary.

    Resumes where an earlier call stopped; does nothing over again. Raises `UserError` for input that cannot be used,
    for a folder that holds something else, and when images changed since they were converted.
    """
    if conversion.check not in CHECKS:
        raise UserError(f"--check={conversion.check} is not one of {', '.join(CHECKS)}")
    if conversion.shard_records < 1 or processes < 1:
        raise UserError("--records_per_shard and --processes are at least 1")
    folder = Path(conversion.folder)
    began = read_json(folder / CONVERSION_FILE).get(NAMES, "") if (folder / CONVERSION_FILE).is_file() else ""
    conversion = replace(conversion, records=pinned_records(conversion.records, str(began)))
    records = open_records(conversion.records, conversion.images, folder)
    _refuse_other(folder, conversion, records)
    with locked(folder, "the conversion"):
        _claim(folder, conversion, records)
        records.keep_index()  # for the other processes, and for a run that resumes
        return _convert(conversion, folder, records, rule, processes)


def _convert(
    conversion: Conversion, folder: Path, records: Records, rule: SampleRule | None, processes: int
) -> dict[str, Any]:
    n_shards = -(-len(records) // conversion.shard_records)
    if (folder / DATASET_FILE).is_file():
        NotedImages.of_plain([read_json(folder / CONVERSION_FILE)]).check(folder, records)
    else:
        whole = (_line(folder, number) for number in range(n_shards))
        NotedImages.of_plain(read_json(line) for line in whole if line.is_file()).check(folder, records)
        todo = [number for number in range(n_shards) if not _line(folder, number).is_file()]
        missing = sum(len(_span(conversion, number, len(records))) for number in todo)
        work = partial(_write_shard, conversion=conversion)
        run_processes(
            work,
            todo,
            partial(open_records, conversion.records, conversion.images, folder),
            processes,
            "converting records",
            len(records),
            len(records) - missing,
        )
        _finish(folder, n_shards, records.names, _described(conversion, records))
    for number in range(n_shards):
        _line(folder, number).unlink(missing_ok=True)
    summary = read_json(folder / SUMMARY_FILE)
    if rule is not None:
        summary["table"] = _measure(folder, rule, processes)
        write_json(folder / SUMMARY_FILE, summary, indent=1, sort_keys=False)
    return summary


def _claim(folder: Path, conversion: Conversion, records: Records) -> None:
    """Makes the folder, which is locked, one of this conversion; `UserError` when it is another's."""
    if not _refuse_other(folder, conversion, records):
        write_json(folder / CONVERSION_FILE, _described(conversion, records), indent=1, sort_keys=False)


def _refuse_other(folder: Path, conversion: Conversion, records: Records) -> bool:
    """Whether the folder holds this conversion already; `UserError` when it holds something else."""
    path = folder / CONVERSION_FILE
    if path.is_file():
        mine, found = _described(conversion, records), read_json(path)
        different = [name for name in mine if found.get(name) != mine[name]]
        if different:
            raise UserError(
                f"{folder}: holds records converted from something else (another {different[0]}); "
                "choose another --to, or remove the folder"
            )
        return True
    if folder.exists() and (not folder.is_dir() or any(LOCK not in p.name for p in folder.iterdir())):
        raise UserError(f"{folder}: holds something else; choose a folder for --to that is empty or not there")
    return False


def _described(conversion: Conversion, records: Records) -> dict[str, Any]:
    return {
        "source": records.fingerprint(),
        "records": len(records),
        "records_per_shard": conversion.shard_records,
        "check": conversion.check,
        **({} if conversion.max_pixels == MAX_PIXELS else {"max_pixels": conversion.max_pixels}),
        **({"codes": [conversion.codes.vocabulary, conversion.codes.size]} if conversion.codes else {}),
        **({NAMES: conversion.records} if any(map(is_data_set, records.names)) else {}),
    }


def _line(folder: Path, number: int) -> Path:
    """Where the summary of a shard lies until all are whole."""
    return folder / f"{number:05d}.json"


def _span(conversion: Conversion, number: int, n_records: int) -> range:
    start = number * conversion.shard_records
    return range(start, min(start + conversion.shard_records, n_records))


def _write_shard(number: int, records: Records, tick: Tick, conversion: Conversion) -> None:
    """Writes shard `number`, then what is in it and what was dropped."""
    folder = Path(conversion.folder)
    writer = ShardWriter(folder, number, conversion.max_pixels, conversion.codes)
    dropped: list[Dropped] = []
    fields = [FieldCounts() for _ in records.names]
    sizes: Counter[int] = Counter()
    texts = several = 0
    noted = NotedImages()
    for read in records.read_each(_span(conversion, number, len(records))):
        tick()
        index, id = read.number, ""
        images: tuple[ImageFile, ...] = ()
        try:
            record, own_fields = read.got()
            id, images = record.id, record.images
            check_turns(record.turns, len(images))
            if conversion.check == "decode":
                for image in images:
                    open_image(image, conversion.max_pixels)
            stamps = noted.stamps(images)
            found = writer.add(record)
        except BadImage as e:
            dropped.append(Dropped(records.where(index), id, e.path, e.reason))
            noted.leave_out(index, images)
        except UnreadMedia:
            raise
        except BadRecord as e:
            dropped.append(Dropped(records.where(index), id or e.id, e.image, e.reason))
        else:
            noted.keep(index, images, stamps)
            texts += not found
            fields[records.source_of(index)].add(own_fields, bool(found))
            several += len(found) > 1
            sizes.update(_side(width, height) for width, height in found)
    summary = {"dropped": dropped, "sizes": dict(sizes), "text_only": texts, "several_images": several}
    summary |= {"fields": [counts.plain() for counts in fields], **noted.plain()}
    write_json(_line(folder, number), {"shard": writer.close(), **summary}, indent=1, sort_keys=False)


def _side(width: int, height: int) -> int:
    """Number of the class of SIDES: the images up to that area, or all larger ones."""
    return next((k for k, side in enumerate(SIDES) if width * height <= side * side), len(SIDES))


def _finish(folder: Path, n_shards: int, names: list[str], described: dict[str, Any]) -> None:
    lines = [read_json(_line(folder, number)) for number in range(n_shards)]
    shards = [Shard(*line["shard"]) for line in lines]
    dropped = [Dropped(*one) for line in lines for one in line["dropped"]]
    BadRecords(folder, max_bad=0).begin(dropped, found="preparing")
    sizes: Counter[int] = Counter()
    for line in lines:
        sizes.update({int(side): count for side, count in line["sizes"].items()})
    classes = [f"up to {side}^2" for side in SIDES] + [f"over {SIDES[-1]}^2"]
    unknown = [FieldCounts().plain()] * len(names)  # of shards that an earlier version wrote
    fields = summed([FieldCounts.of_plain(counts) for counts in line.get("fields", unknown)] for line in lines)
    summary = {
        "kept": sum(shard.records for shard in shards),
        "dropped": len(dropped),
        "reasons": dict(Counter(kind_of(one.reason) for one in dropped).most_common()),
        "images": sum(sizes.values()),
        "text_only": sum(line["text_only"] for line in lines),
        "several_images": sum(line["several_images"] for line in lines),
        "image_sizes": {name: sizes[k] for k, name in enumerate(classes) if sizes[k]},
        "image_files": sum(shard.images for shard in shards),
        "gigabytes": sum(shard.record_bytes + shard.image_bytes for shard in shards) / 1e9,
        "shards": n_shards,
        "sources": {name: counts.plain() for name, counts in zip(names, fields, strict=True)},
    }
    write_json(folder / SUMMARY_FILE, summary, indent=1, sort_keys=False)
    for left in (*folder.glob(f"*{PART}"), *folder.glob(f"*{INDEX}")):  # of processes that were killed; of the source
        left.unlink()
    described |= NotedImages.of_plain(lines).plain()
    write_atomically(folder / CONVERSION_FILE, json.dumps(described) + "\n")
    write_dataset(folder, shards)


def _measure(folder: Path, rule: SampleRule, processes: int) -> dict[str, Any]:
    """Makes the lengths table of prepared records, if it is not there, and says what it comes to."""
    records = open_records(str(folder))
    path = folder / table_name(records, rule)
    known = table_digests(folder)
    lengths = kept_table(path, len(records), rule.max_tokens, known.get(path.name, ""), rule.layout.specials)
    if lengths is None:
        measure_into(path, records, rule, processes)
        lengths = made_table(path, len(records), rule.max_tokens, rule.layout.specials)
    if known.get(path.name) != lengths.digest:
        write_dataset(folder, read_dataset(folder), known | {path.name: lengths.digest})
    return {
        "file": path.name,
        "records": len(lengths),
        "dropped": len(lengths.dropped),
        "truncated": lengths.truncated,
        "shrunk": lengths.shrunk,
        "reasons": dict(Counter(kind_of(one.reason) for one in lengths.dropped).most_common()),
        "text_tokens": int(lengths.text.sum()),
        "vision_tokens": int(lengths.patches.sum() + lengths.specials.sum()),
        "longest": int((lengths.text + lengths.patches + lengths.specials).max(initial=0)),
    }
