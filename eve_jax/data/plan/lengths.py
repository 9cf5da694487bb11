"""The table of lengths: how many tokens of each kind every usable record has."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eve_jax.data.field_counts import FieldCounts, summed
from eve_jax.data.plan.mapped_arrays import ArrayFile, save_arrays
from eve_jax.data.plan.measured_on import SEEN, Seen, SeenTable, Stamp
from eve_jax.data.plan.table_check import ARRAYS, BadTable, check_arrays, check_table, counts_digest
from eve_jax.errors import UserError, shorten, warn


class Dropped(NamedTuple):
    """A record that is left out: `where` it stands, its `id`, the `image` at fault or "", and the `reason`."""

    where: str
    id: str
    image: str
    reason: str

    @property
    def described(self) -> str:
        """For a message: where, why, and the path of the image as it was tried."""
        return f"{self.where}: {self.reason}" + (f" ({self.image})" if self.image else "")


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
        """The table that `save` wrote, memory-mapped. Raises `BadTable` for a file that is none; OSError.

        What stands in its arrays is not looked at: `kept_table` does that, for a file that may be anybody's.
        """
        try:
            file = ArrayFile(path)
            arrays = file.mapped()
            check_arrays(arrays)
            dropped = [Dropped(*map(str, line)) for line in json.loads(str(arrays["dropped"]))]
            fields = [FieldCounts.of_plain(counts) for counts in json.loads(str(arrays["fields"]))]
            truncated, shrunk = arrays["changed"].tolist()
            return cls(
                **{name: arrays[name] for name in ARRAYS},
                dropped=dropped,
                truncated=truncated,
                shrunk=shrunk,
                fields=fields,
                seen=SeenTable(**{name: arrays[name] for name in SEEN}) if SEEN[0] in arrays else None,
                file=file,
                digest=str(arrays["digest"]) if "digest" in arrays else counts_digest(file),
            )
        except (OSError, BadTable):
            raise
        except Exception as e:  # whatever a damaged file leads the readers of zip, NumPy and JSON to
            raise BadTable(shorten(f"cannot be read ({type(e).__name__}: {e})")) from None


def kept_table(path: Path, records: int, most: int, listed: str = "", specials: bool = True) -> Lengths | None:
    """The table in the file `path` for `records` records in samples of at most `most` tokens; None without one.

    specials: whether images have special tokens.

    None also, with a warning, for one that cannot be of them: numbers out of range, or a digest that is not that of its
    arrays or, where the list of the records has one, not the one `listed`. The counts are read in pieces, and
    not again while the file is the same (`check_table`). specials: whether images have special tokens.
    """
    if not path.is_file():
        return None
    try:
        found = Lengths.load(path)
        assert found.file is not None
        check_table(found.file, found.digest, records, most, specials=specials)
        if listed and found.digest != listed:
            raise BadTable("it is not the one that belongs to the records")
        return found
    except (OSError, BadTable) as e:
        warn(f"{path} is not used, and the records are measured again: {e.strerror if isinstance(e, OSError) else e}")
        return None


def made_table(path: Path, records: int, most: int, specials: bool = True) -> Lengths:
    """The table that was just written to the file `path`, checked as `kept_table` does, which then reads nothing again.

    Raises `UserError` where it is none: its pieces may have been anybody's, too.
    """
    try:
        made = Lengths.load(path)
        assert made.file is not None
        check_table(made.file, made.digest, records, most, wait=True, specials=specials)
        return made
    except BadTable as e:
        raise UserError(f"{path}, just written, {e}; start again to have the records measured anew") from None


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
