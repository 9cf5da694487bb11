"""The lengths table: how many tokens of each kind every usable record has, made once and cached.

record -> text tokens (tokenised), image grids (from file headers; nothing is decoded)
       -> one line of `Lengths`, or a line of its `dropped`
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from eve_jax.data.chat import IMAGE_ID, encode_chat
from eve_jax.data.field_counts import FieldCounts, summed
from eve_jax.data.image_rule import ImageRule
from eve_jax.data.images import BadImage, ImageFile, image_size
from eve_jax.data.long import fitted, grid_tokens
from eve_jax.data.npz import ArrayFile, save_arrays
from eve_jax.data.records import BadRecord, Record, Records, UnreadMedia
from eve_jax.data.stamps import SEEN, Seen, SeenTable, Stamp, files_hash, stamp_of, text_hash
from eve_jax.data.tokenizer import Tokenizer

VERSION = 5  # of the table; part of its key
QUICK = 2000  # records measured without a progress bar
ARRAYS = ("record", "text", "patches", "specials", "grids", "first_grid")


class Dropped(NamedTuple):
    """A record that is left out: `where` it stands, its `id`, the `image` at fault or "", and the `reason`."""

    where: str
    id: str
    image: str
    reason: str


class Entry(NamedTuple):
    """A line of the table: index of the record, tokens by kind, and the grid (h, w) of each image."""

    record: int
    text: int
    patches: int
    grids: list[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Lengths:
    """Token counts of the n usable records, in order. Arrays int32 [n] unless said otherwise.

    record: index into the records. text, patches, specials: tokens by kind (specials: a class token an image and a
    split token a row of patches). grids: int32 [images, 2], rows and columns of patches; those of entry i are
    grids[first_grid[i] : first_grid[i + 1]] (first_grid int64 [n + 1]). dropped: the records left out.
    truncated, shrunk: how many entries are too long but for cut text or smaller images. fields: of every source of the
    records. seen: what was measured (None: not known). file: where the table is kept (None: nowhere); its arrays are
    then mapped from there.
    """

    record: np.ndarray
    text: np.ndarray
    patches: np.ndarray
    specials: np.ndarray
    grids: np.ndarray
    first_grid: np.ndarray
    dropped: list[Dropped]
    truncated: int = 0
    shrunk: int = 0
    fields: Sequence[FieldCounts] = ()
    seen: SeenTable | None = None
    file: ArrayFile | None = None
    digest: str = ""  # of the counts in the file

    def __len__(self) -> int:
        return len(self.record)

    @property
    def key(self) -> str:
        """Stands for all that is in the table; "" when it is not kept in a file."""
        return f"{self.file.path.stem} {self.digest}" if self.file else ""

    def entry(self, number: int) -> Entry:
        """Line `number`. Of a table in a file, nothing else of it comes into memory; safe for threads."""
        if self.file is None:
            record, text, patches = (int(column[number]) for column in (self.record, self.text, self.patches))
            return Entry(record, text, patches, self.entry_grids(number))
        names = ("record", "text", "patches")
        record, text, patches = (int(self.file.read(name, number, number + 1)[0]) for name in names)
        first, last = self.file.read("first_grid", number, number + 2).tolist()
        grids = self.file.read("grids", first, last).tolist() if last > first else []
        return Entry(record, text, patches, [(h, w) for h, w in grids])

    def entry_grids(self, entry: int) -> list[tuple[int, int]]:
        """Rows and columns of patches (h, w) of each image of an entry."""
        rows = self.grids[self.first_grid[entry] : self.first_grid[entry + 1]]
        return [(int(h), int(w)) for h, w in rows]

    def entry_seen(self, number: int) -> Seen | None:
        """What entry `number` was measured on, None when it is not known; read like `entry`."""
        if self.seen is None:
            return None
        if self.file is None:
            first, last = self.first_grid[number : number + 2].tolist()
            text, files, times = self.seen.texts[number], self.seen.files[first:last], self.seen.times[first:last]
        else:
            first, last = self.file.read("first_grid", number, number + 2).tolist()
            text = self.file.read("texts", number, number + 1)[0]
            files, times = (self.file.read(name, first, last) for name in ("files", "times"))
        stamps = [
            Stamp(size, checksum, time) for (size, checksum), time in zip(files.tolist(), times.tolist(), strict=True)
        ]
        return Seen(int(text), stamps)

    def save(self, path: Path) -> None:
        """Writes the table to the file `path`."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        counts = hashlib.blake2b(digest_size=16)
        for array in arrays.values():
            counts.update(np.ascontiguousarray(array).data)
        if self.seen is not None:
            arrays |= {name: getattr(self.seen, name) for name in SEEN}
        fields = [counts_of.plain() for counts_of in self.fields]
        texts = {"dropped": json.dumps(self.dropped), "fields": json.dumps(fields), "digest": counts.hexdigest()}
        changed = np.array([self.truncated, self.shrunk])
        save_arrays(path, {**arrays, "changed": changed, **{name: np.array(text) for name, text in texts.items()}})

    @classmethod
    def load(cls, path: Path) -> "Lengths":
        """The table that `save` wrote, memory-mapped."""
        file = ArrayFile(path)
        arrays = file.mapped()
        dropped = [Dropped(*line) for line in json.loads(str(arrays["dropped"]))]
        truncated, shrunk = arrays["changed"].tolist()
        return cls(
            **{name: arrays[name] for name in ARRAYS},
            dropped=dropped,
            truncated=truncated,
            shrunk=shrunk,
            fields=[FieldCounts.of_plain(counts) for counts in json.loads(str(arrays["fields"]))],
            seen=SeenTable(**{name: arrays[name] for name in SEEN}) if SEEN[0] in arrays else None,
            file=file,
            digest=str(arrays["digest"]),
        )


def kept_table(path: Path) -> Lengths | None:
    """The table in the file `path`; None when there is none, or when it is not whole."""
    try:
        return Lengths.load(path) if path.is_file() else None
    except (OSError, ValueError, KeyError, BadZipFile, struct.error):
        return None


def measure(
    records: Records,
    tokenizer: Tokenizer,
    rule: ImageRule,
    template: str,
    image_first: bool,
    max_tokens: int,
    cache_dir: str | Path | None = None,
    long: str = "drop",
    ready: Callable[[str], None] = lambda name: None,
) -> Lengths:
    """Measures every record; those that are malformed, lack an image or are too long are in `dropped`.

    Raises `UnreadMedia`, a UserError, for a record with a field that looks like an image and is not read.

    Longer than `max_tokens` are made to fit by `long`, see `eve_jax.data.long.fitted`.

    With `cache_dir` the table is kept there under the hash of all it depends on: the records' content, the tokenizer
    and the settings, but not the image files next to them (`eve_jax.data.changes` compares those). The table that
    `launch.prepare_data` left with prepared records is used where there is one. `ready` is called with the name of
    the table ("" when none is kept) before it is looked for.
    """
    settings = (tokenizer, rule, template, image_first, max_tokens, long)
    name = table_name(records, *settings) if cache_dir or records.tables else ""
    ready(name)
    for folder in (cache_dir, records.tables):
        if folder is not None and (found := kept_table(Path(folder) / name)) is not None:
            return found
    lengths = joined([_measure_source(records, number, *settings) for number in range(len(records.names))])
    if cache_dir is None:
        return lengths
    lengths.save(Path(cache_dir) / name)
    return Lengths.load(Path(cache_dir) / name)


def table_name(
    records: Records,
    tokenizer: Tokenizer,
    rule: ImageRule,
    template: str,
    image_first: bool,
    max_tokens: int,
    long: str = "drop",
) -> str:
    """The file name of a table, with the hash of all it depends on."""
    settings = repr((VERSION, rule, template, image_first, max_tokens, long, tokenizer.fingerprint()))
    digest = hashlib.blake2b(f"{settings}\0{records.fingerprint()}".encode(), digest_size=16)
    return f"lengths-{digest.hexdigest()}.npz"


def _measure_source(records: Records, number: int, *settings: Any) -> Lengths:
    """The table of the records of source `number`, the one that lies with them if there is one."""
    span = range(int(records.starts[number]), int(records.starts[number + 1]))
    alone = records.source(number)
    if alone.tables is not None:
        found = kept_table(alone.tables / table_name(alone, *settings))
        if found is not None:
            fields = [FieldCounts() for _ in records.names]
            fields[number : number + 1] = found.fields
            seen = found.seen and found.seen.moved(span.start)
            return replace(found, record=found.record + np.int32(span.start), fields=fields, seen=seen)
    about = f"measuring {escape(records.names[number])}"
    bar = Console(stderr=True)
    indices = track(span, description=about, console=bar, transient=True, disable=len(span) < QUICK)
    return measure_part(records, indices, *settings)


def measure_part(
    records: Records,
    indices: Iterable[int],
    tokenizer: Tokenizer,
    rule: ImageRule,
    template: str,
    image_first: bool,
    max_tokens: int,
    long: str = "drop",
) -> Lengths:
    """The table of the records `indices`, as `measure` makes it of all."""
    look = lru_cache(1 << 16)(_look)  # many records ask about the same picture
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

    for index in indices:
        record = None
        try:
            record, own_fields = records.read(index)
            encoded = encode_chat(record.turns, tokenizer, template, len(record.images), image_first)
            looks = [look(file) if isinstance(file, str) else _look(file) for file in record.images]
            natural = [rule.grid(*size) for size, _ in looks]
            (ids, _), own = fitted(encoded, natural, max_tokens, long)
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
            counts.append((index, int((ids != IMAGE_ID).sum()), *grid_tokens(own)))
            grids += own
            images.append(len(grids))
    used, text_tokens, n_patches, n_specials = np.array(counts, np.int32).reshape(-1, 4).T.copy()
    all_grids = np.array(grids, np.int32).reshape(-1, 2)
    first_grid = np.array(images, np.int64)
    seen = SeenTable.of(texts, stamps, left_out)
    arrays = (used, text_tokens, n_patches, n_specials, all_grids, first_grid)
    return Lengths(*arrays, dropped, truncated, shrunk, fields, seen)


def _look(file: ImageFile) -> tuple[tuple[int, int], Stamp]:
    """Width and height of an image, and the stamp of its file. Raises `BadImage`."""
    return image_size(file), stamp_of(file)


def joined(parts: Sequence[Lengths]) -> Lengths:
    """The table of several parts' records, in that order."""
    joint: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    starts = np.cumsum([0] + [len(part.grids) for part in parts])
    first = [part.first_grid[:-1] + start for part, start in zip(parts, starts, strict=False)]
    joint["first_grid"] = np.concatenate([*first, starts[-1:]]).astype(np.int64)
    joint["dropped"] = [one for part in parts for one in part.dropped]
    joint["fields"] = summed(part.fields for part in parts)
    joint |= {name: sum(getattr(part, name) for part in parts) for name in ("truncated", "shrunk")}
    seen = [part.seen for part in parts if part.seen is not None]
    joint["seen"] = SeenTable.joined(seen) if len(seen) == len(parts) else None
    return Lengths(**joint)
