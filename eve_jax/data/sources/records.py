"""Records of a data set, whatever files hold them: a sequence of conversations with their images."""

import glob
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from eve_jax.data.bucket_images import read_ahead
from eve_jax.data.image_file import BadImage
from eve_jax.data.record import (
    ROLES,
    BadRecord,
    Fields,
    ReadByFields,
    Record,
    Role,
    Source,
    Turn,
    UnknownForm,
    UnreadMedia,
)
from eve_jax.data.sources.forms import split_format
from eve_jax.data.sources.json_files import JsonFile
from eve_jax.data.sources.open import open_sources
from eve_jax.errors import Field, FieldError, UserError
from eve_jax.process.hub import HUB
from eve_jax.process.named import is_named
from eve_jax.process.paths import TFDS, WORKDIR, split_names

__all__ = ["ROLES", "BadRecord", "Record", "Records", "Role", "Turn", "UnreadMedia", "open_records"]


class Read(NamedTuple):
    """Record `number` and which of its fields were used, or the error that there is in place of it."""

    number: int
    record: Record | None
    fields: Fields | None
    error: BadRecord | BadImage | None

    def got(self) -> tuple[Record, Fields]:
        """Return record and fields, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.record is not None and self.fields is not None
        return self.record, self.fields


class Records(Sequence[Record]):
    """The records of one or more sources, in order. Access is thread-safe and raises `BadRecord` for a broken one.

    names: what the sources are called in the config; a name may stand for many files. Those of name k are the records
    starts[k] to starts[k + 1] (int64 [names + 1]). opened: the arguments of `open_records` that gave them.
    """

    opened: tuple[str, str, Path | None] | None = None

    def __init__(self, sources: Mapping[str, Sequence[Source]]) -> None:
        self.names = list(sources)
        self._named = dict(sources)
        self._sources = [source for several in sources.values() for source in several]
        first = np.cumsum([0] + [len(source) for source in self._sources])
        self.starts = np.concatenate([[0], first[np.cumsum([len(several) for several in sources.values()])]])
        self._bounds: list[int] = self.starts[:-1].tolist()
        self._begins: list[int] = first.tolist()

    def __len__(self) -> int:
        return self._begins[-1]

    def _locate(self, index: int) -> tuple[Source, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._begins, index) - 1
        return self._sources[number], index - self._begins[number]

    def where(self, index: int) -> str:
        """Where record `index` stands: file:line, file#number or the like."""
        source, local = self._locate(index)
        return source.where(local)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.read(int(index) + (len(self) if index < 0 else 0))[0]

    def read(self, index: int) -> tuple[Record, Fields]:
        """Return record `index` and which of its fields were used. Raises `BadRecord`."""
        source, local = self._locate(index)
        return source.read(local)

    def read_each(self, indices: Iterable[int]) -> Iterator[Read]:
        """Yield what `read` gives or raises for each of `indices`; images in buckets come meanwhile."""
        return read_ahead(map(self._read, indices), lambda one: one.record.images if one.record is not None else ())

    def _read(self, index: int) -> Read:
        try:
            return Read(index, *self.read(index), None)
        except (BadRecord, BadImage) as error:
            return Read(index, None, None, error)

    def __iter__(self) -> Iterator[Record]:
        for index in range(len(self)):
            yield self[index]

    def source_of(self, index: int) -> int:
        """Return the number of the source that record `index` is from."""
        return bisect_right(self._bounds, index) - 1

    def source(self, number: int) -> "Records":
        """The records of one of the sources alone."""
        name = self.names[number]
        return Records({name: self._named[name]})

    def fingerprint(self) -> str:
        """A text that differs whenever the records do, for keys of caches; image files next to them do not count."""
        return "\n".join(source.fingerprint() for source in self._sources)

    def keep_index(self) -> None:
        """Keep what large JSON and JSONL files were read for, in the folder that `open_records` was given."""
        for source in self._sources:
            if isinstance(source, JsonFile):
                source.keep_index()

    def stored(self) -> str:
        """Return the hashes of prepared records, whose images are measured without being opened; "" for others."""
        return "\n".join(source.fingerprint() for source in self._sources if source.tables is not None)

    def shards(self) -> list[tuple[Path, str]]:
        """Return the files of images of prepared records, each with the hash of its shard; [] for others."""
        if not any(source.tables is not None for source in self._sources):
            return []
        from eve_jax.data.sources.shards import Shards  # imports the library array_record

        return [one for source in self._sources if isinstance(source, Shards) for one in source.digests()]

    @property
    def tables(self) -> Path | None:
        """The folder of prepared records where their lengths tables lie, if they are those of one such folder."""
        return self._sources[0].tables if len(self._sources) == 1 else None


RECORDS = Field("data.records")
FIRST = 16  # records of a source, by which its format is recognized


def open_records(records: str, images_dir: str | Path = "", index: Path | None = None, texts: bool = True) -> Records:
    """Opens the sources `records`, see `split_names` and `open_sources`; image paths are relative to `images_dir`.

    index: the folder for the indexes of large files (`Records.keep_index`), which need not be there. texts: False also
    reads records without texts: to caption their images. Raises `UserError` when there are none, or for one that cannot
    be opened.
    """
    names = split_names(records)
    if not names:
        raise FieldError(RECORDS, " is empty: name one or more files of records")
    _check_images(images_dir)
    if len(set(names)) < len(names):
        raise FieldError(RECORDS, f"={records!r} names a source twice; set ", Field("data.repeats"), " instead")
    sources = {name: _opened(name, images_dir, len(names) > 1, index, texts) for name in names}
    _check_once(sources)
    opened = Records(sources)
    if not len(opened):
        raise UserError(f"{', '.join(names)}: no records")
    for several in sources.values():
        first = next((source for source in several if len(source)), None)
        if isinstance(first, ReadByFields):
            _check_form(first)
    opened.opened = (records, str(images_dir), index)
    return opened


def _check_form(source: Source) -> None:
    """Raise `UserError` for a source whose first records have no field that holds texts."""
    reasons = []
    for index in range(min(len(source), FIRST)):
        try:
            source.read(index)
        except UnknownForm as e:
            reasons.append(str(e))
            continue
        except BadRecord:
            return
        return
    if reasons:
        raise UserError(
            f"{reasons[0]}{f' (so are the first {len(reasons)} records)' if len(reasons) > 1 else ''}; formats are in "
            "docs/data.md#formats"
        )


def check_present(records: str, images_dir: str) -> None:
    """Raise `UserError` as `open_records` does where a file or folder of `records` or `images_dir` is missing.

    Names that begin with WORKDIR are of what a recipe writes before it reads them.
    """
    if not images_dir.startswith(WORKDIR):
        _check_images(images_dir)
    names = split_names(records)
    for name in names:
        place = split_format(name)[1]
        own = place.startswith((WORKDIR, TFDS, HUB)) or is_named(name)
        if not (own or any(os.path.exists(one) or glob.glob(one) for one in (name, place))):
            _opened(name, images_dir, len(names) > 1)


def _check_images(images_dir: str | Path) -> None:
    if images_dir and not Path(images_dir).is_dir():
        images = Field("data.images")
        raise FieldError(f"{images_dir}: no such folder; set ", images, " to the one that image paths start from")


def _check_once(sources: Mapping[str, Sequence[Source]]) -> None:
    """Raise `UserError` where two names, or two files of one, stand for the same file."""
    found: dict[str, str] = {}
    for name, several in sources.items():
        for path in (source.path for source in several if source.path is not None):
            shown, real = str(path) if len(several) > 1 else name, os.path.realpath(path)
            if real in found:
                raise FieldError(
                    RECORDS,
                    f": {found[real]} and {shown} are the same file; name it once, and set ",
                    Field("data.repeats"),
                    " to train on it several times",
                )
            found[real] = shown


def _opened(
    name: str, images_dir: str | Path, of_several: bool, index: Path | None = None, texts: bool = True
) -> list[Source]:
    try:
        return open_sources(name, images_dir, index, texts)
    except UserError as e:
        if of_several and not is_named(name) and not os.path.exists(name):
            raise UserError(f"{e}; commas separate sources: write \\, for one that is part of a path") from None
        raise
