"""Prepared records: ArrayRecord shards that hold conversations and image files, made by `launch.prepare_data`.

    FOLDER/eve_records.json       the list of shards; written last
    FOLDER/00003.records          conversations, as JSON: {"id", "images": [[number, width, height] ...], "turns"}, and
                                  what else goes with a record, if anything: {"alt", "experts"}
    FOLDER/00003.images           the image files that those name by number, as they are

Conversations and images lie apart, and every image's size is next to its number, so that planning reads no image;
an image that several records of a shard show is kept once.
"""

import io
import json
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from eve_jax.data.image_file import StoredImage
from eve_jax.data.record import KEPT_FIELDS, BadRecord, Fields, Recent, Record, Turn, digest_of
from eve_jax.errors import UserError, amount, shorten
from eve_jax.process.files import read_json

DATASET_FILE = "eve_records.json"
CONVERSION_FILE = "conversion.json"  # what the folder is being made from; written first
TABLES = "tables"  # in it: digests of the lengths tables next to it
FORMAT = 1
OPEN_FILES = 256  # at a time; an operating system grants about 1,000


class Shard(NamedTuple):
    """Contents of a shard: numbers of records and images, bytes of its two files, hash of what is in them."""

    records: int
    images: int
    record_bytes: int
    image_bytes: int
    digest: str


def shard_paths(folder: Path, number: int) -> tuple[Path, Path]:
    """The files of conversations and of images."""
    return folder / f"{number:05d}.records", folder / f"{number:05d}.images"


class Shards:
    """The records of a folder that `launch.prepare_data` wrote, see `base.Source`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = self.path = Path(folder)
        self.tables: Path | None = self.folder
        self._shards = read_dataset(self.folder)
        for number, shard in enumerate(self._shards):
            for path, size in zip(
                shard_paths(self.folder, number), (shard.record_bytes, shard.image_bytes), strict=True
            ):
                found = path.stat().st_size if path.is_file() else -1
                if found != size:
                    state = "is missing" if found < 0 else f"has {amount(found, 'byte')} instead of {size:,}"
                    raise UserError(f"{path} {state}; copy the folder again, or rerun launch.prepare_data")
        self._first = np.cumsum([0] + [shard.records for shard in self._shards])
        self._reader = Recent(_open_reader, OPEN_FILES)

    def __len__(self) -> int:
        return int(self._first[-1])

    def _place(self, index: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        return shard, index - int(self._first[shard])

    def where(self, index: int) -> str:
        """folder/shard#number, from 1."""
        shard, own = self._place(index)
        return f"{self.folder.name}/{shard:05d}#{own + 1}"

    def read(self, index: int) -> tuple[Record, Fields]:
        """Return the record; which fields it was made of is only known to the conversion.

        Raises `BadRecord` when the shard is damaged.
        """
        shard, own = self._place(index)
        conversations, image_file = shard_paths(self.folder, shard)
        where = self.where(index)
        try:
            raw = json.loads(self._read(conversations, own))
            if not all(type(n) is int and n >= 0 for entry in raw["images"] for n in entry):
                raise ValueError("an image without a number and a size")
            images = tuple(self._image(image_file, *entry) for entry in raw["images"])
            turns = tuple(Turn(*turn) for turn in raw["turns"])
            kept = {name: raw[name] for name in KEPT_FIELDS if name in raw}
            return Record(str(raw["id"]), images, turns, where, kept), Fields()
        except Exception as e:  # array_record raises RuntimeError; damage that it overlooks may look like anything
            raise BadRecord(f"the shard is damaged ({' '.join(str(e).split())[:200]})", where) from None

    def _image(self, path: Path, number: int, width: int, height: int) -> StoredImage:
        name = f"{self.folder.name}/{path.name}#{number + 1}"
        return StoredImage(name, partial(self._stream, path, number), (width, height))

    def _stream(self, path: Path, number: int) -> BinaryIO:
        return io.BytesIO(self._read(path, number))

    def _read(self, path: Path, number: int) -> bytes:
        return self._reader(path).read([number])[0]

    def digests(self) -> list[tuple[Path, str]]:
        """Return the file of images of every shard, and the hash of what is in the shard."""
        return [(shard_paths(self.folder, number)[1], shard.digest) for number, shard in enumerate(self._shards)]

    def fingerprint(self) -> str:
        """Hash of all conversations and images, by what was noted when they were written."""
        return digest_of(shard.digest for shard in self._shards)


def _open_reader(path: Path) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader  # only where there are shards to read

    return ArrayRecordReader(str(path), options="readahead_buffer_size:0", file_reader_buffer_size=1 << 15)


def read_dataset(folder: Path) -> list[Shard]:
    """The shards of a prepared folder. Raises `UserError` when its list is not readable."""
    listed = _listed(folder)
    shards = listed.get("shards")
    if not isinstance(shards, list) or not all(map(_is_shard, shards)):
        raise UserError(f"{folder / DATASET_FILE}: its list of shards cannot be read; rerun launch.prepare_data")
    return [Shard(*shard) for shard in shards]


def table_digests(folder: Path) -> dict[str, str]:
    """The lengths tables that `launch.prepare_data` made for a prepared folder: digest of each by its file's name.

    Folders of earlier versions list none. Raises `UserError` as `read_dataset` does.
    """
    tables = _listed(folder).get(TABLES, {})
    if not isinstance(tables, dict) or not all(isinstance(digest, str) for digest in tables.values()):
        raise UserError(f"{folder / DATASET_FILE}: its list of tables cannot be read; rerun launch.prepare_data")
    return tables


def _listed(folder: Path) -> dict[str, Any]:
    path = folder / DATASET_FILE
    try:
        listed = read_json(path)
    except UserError as e:
        raise UserError(f"{path}: cannot be read ({e}); rerun launch.prepare_data") from None
    if listed.get("format") != FORMAT:
        found = shorten(repr(listed.get("format")), 60)
        raise UserError(f"{path}: format {found} is not {FORMAT}; rerun launch.prepare_data")
    return listed


def _is_shard(shard: Any) -> bool:
    if not isinstance(shard, list) or len(shard) != len(Shard._fields):
        return False
    return isinstance(shard[-1], str) and all(type(n) is int and 0 <= n < 1 << 53 for n in shard[:-1])
