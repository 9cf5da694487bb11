"""Measures records: how many tokens of each kind each has, in a table that is made once and cached.

record -> text tokens (tokenized), image grids (from file headers; nothing is decoded)
       -> one line of `Lengths`, or a line of its `dropped`
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

import numpy as np

from eve_jax.data.field_counts import FieldCounts
from eve_jax.data.image.patches import image_size
from eve_jax.data.image_file import BadImage, ImageFile
from eve_jax.data.plan.lengths import Dropped, Lengths, joined, kept_table, made_table
from eve_jax.data.plan.measured_on import SeenTable, Stamp
from eve_jax.data.record import BadRecord, Record, UnreadMedia
from eve_jax.data.samples.image_stamps import files_hash, stamp_of, text_hash
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.samples.table_in_pieces import MOST, table_in_pieces
from eve_jax.data.samples.too_long import grid_tokens
from eve_jax.data.sources.records import Records, open_records
from eve_jax.data.sources.shards import DATASET_FILE, table_digests
from eve_jax.data.text.encode import IMAGE_ID
from eve_jax.process.pieces import Tick
from eve_jax.process.progress import tracked

VERSION = 6  # of the table; part of its key
QUICK = 2000  # records measured without a progress bar
FEW = 20_000  # records measured before other processes would have begun


def measure(
    records: Records,
    rule: SampleRule,
    cache_dir: str | Path | None = None,
    ready: Callable[[str], None] = lambda name: None,
    processes: int = 1,
) -> Lengths:
    """Measure the sample that `rule` makes of every record; those that it makes none of are in `dropped`.

    Raises `UnreadMedia`, a UserError, for a record with a field that looks like an image and is not read.

    With `cache_dir` the table is kept there under the hash of all it depends on: the records' content and the rule,
    but not the image files next to them (`eve_jax.data.samples.image_changes` compares those). The
    table that `launch.prepare_data` left with prepared records is used where there is one. `ready` is called with the
    name of the table ("" when none is kept) before it is looked for. processes: that measure for `cache_dir` what
    is more than FEW records; a run that is killed then resumes where it was.
    """
    name = table_name(records, rule) if cache_dir or records.tables else ""
    ready(name)
    for folder in (cache_dir, records.tables):
        if folder is not None and (found := _kept(Path(folder), name, len(records), rule)) is not None:
            return found
    if cache_dir is None:
        return joined([_measure_source(records, number, rule) for number in range(len(records.names))])
    measure_into(Path(cache_dir) / name, records, rule, processes)
    return made_table(Path(cache_dir) / name, len(records), rule.max_tokens, rule.layout.specials)


def measure_into(path: Path, records: Records, rule: SampleRule, processes: int = 1) -> None:
    """Measure all records into the table `path`, in pieces that are kept until it is whole (`table_in_pieces`)."""
    beside = [_table_beside(records, number, rule) for number in range(len(records.names))]
    sources: list[range | Lengths] = [
        _span(records, number) if table is None else table for number, table in enumerate(beside)
    ]
    if records.opened is None or len(records) <= FEW:
        table_in_pieces(path, sources, _measure_piece, lambda: (records, rule), 1)
    else:
        table_in_pieces(path, sources, _measure_piece, partial(_open, records.opened, rule), processes)


def _open(opened: tuple[str, str, Path | None], rule: SampleRule) -> tuple[Records, SampleRule]:
    return open_records(*opened), rule


def _measure_piece(indices: range, opened: tuple[Records, SampleRule], tick: Tick) -> Lengths:
    records, rule = opened

    def ticked() -> Iterator[int]:
        for index in indices:
            tick()
            yield index

    return measure_part(records, ticked(), rule)


def table_name(records: Records, rule: SampleRule) -> str:
    """The file name of a table, with the hash of all it depends on."""
    digest = hashlib.blake2b(f"{rule.table_key(VERSION)}\0{records.fingerprint()}".encode(), digest_size=16)
    return f"lengths-{digest.hexdigest()}.npz"


def _kept(folder: Path, name: str, n_records: int, rule: SampleRule) -> Lengths | None:
    """The table called `name` in a folder, which is checked to be of so many records and of samples by `rule`."""
    listed = table_digests(folder).get(name, "") if (folder / DATASET_FILE).is_file() else ""
    return kept_table(folder / name, n_records, rule.max_tokens, listed, rule.layout.specials)


def _span(records: Records, number: int) -> range:
    """The records of source `number`."""
    return range(int(records.starts[number]), int(records.starts[number + 1]))


def _table_beside(records: Records, number: int, rule: SampleRule) -> Lengths | None:
    """The table that lies with the records of source `number`, None when there is none."""
    alone, start = records.source(number), int(records.starts[number])
    found = _kept(alone.tables, table_name(alone, rule), len(alone), rule) if alone.tables is not None else None
    if found is None:
        return None
    fields = [FieldCounts() for _ in records.names]
    fields[number : number + 1] = found.fields
    seen = found.seen and found.seen.moved(start)
    return replace(found, record=found.record + np.int32(start), fields=fields, seen=seen)


def _measure_source(records: Records, number: int, rule: SampleRule) -> Lengths:
    """The table of the records of source `number`, the one that lies with them if there is one."""
    found = _table_beside(records, number, rule)
    if found is not None:
        return found
    span = _span(records, number)
    indices = iter(tracked(span, f"measuring {records.names[number]}", "records", least=QUICK))
    return joined([measure_part(records, islice(indices, MOST), rule) for _ in range(-(-len(span) // MOST) or 1)])


def measure_part(records: Records, indices: Iterable[int], rule: SampleRule) -> Lengths:
    """The table of the records `indices`, as `measure` makes it of all."""
    look_at = partial(_size_and_stamp, rule.images.max_pixels)
    look = lru_cache(1 << 16)(look_at)  # many records ask about the same image
    counts: list[tuple[int, int, int, int]] = []
    images: list[int] = [0]
    grids: list[tuple[int, int]] = []
    dropped: list[Dropped] = []
    texts: list[int] = []
    stamps: list[Stamp] = []
    left_out: list[tuple[int, int]] = []
    fields = [FieldCounts() for _ in records.names]
    truncated = shrunk = 0

    def leave_out(index: int, record: Record | None, id: str, image: str, reason: str) -> None:
        dropped.append(Dropped(records.where(index), id, image, reason))
        left_out.append((index, files_hash(record.images if record else ())))

    for read in records.read_each(indices):
        index, record = read.number, None
        try:
            record, own_fields = read.got()
            encoded = rule.encode(record)
            looks = [look(file) if isinstance(file, str) else look_at(file) for file in record.images]
            own_rule = rule.images.among(len(looks))
            natural = [own_rule.grid(*size) for size, _ in looks]
            (ids, _), own = rule.fit(encoded, natural)
        except BadImage as e:
            leave_out(index, record, record.id if record else "", e.path, e.reason)
        except UnreadMedia:
            raise
        except BadRecord as e:
            leave_out(index, record, record.id if record else e.id, e.image, e.reason)
        else:
            texts.append(text_hash(record))
            stamps += [stamp for _, stamp in looks]
            truncated += len(ids) < len(encoded.ids)
            shrunk += own is not natural
            fields[records.source_of(index)].add(own_fields, bool(own))
            counts.append((index, int((ids != IMAGE_ID).sum()), *grid_tokens(own, rule.layout)))
            grids += own
            images.append(len(grids))
    used, text_tokens, n_patches, n_specials = np.array(counts, np.int32).reshape(-1, 4).T.copy()
    all_grids = np.array(grids, np.int32).reshape(-1, 2)
    first_grid = np.array(images, np.int64)
    seen = SeenTable.of(texts, stamps, left_out)
    arrays = (used, text_tokens, n_patches, n_specials, all_grids, first_grid)
    return Lengths(*arrays, dropped, truncated, shrunk, fields, seen)


def _size_and_stamp(max_pixels: int, file: ImageFile) -> tuple[tuple[int, int], Stamp]:
    """Width and height of an image, and the stamp of its file. Raises `BadImage`."""
    return image_size(file, max_pixels), stamp_of(file)
