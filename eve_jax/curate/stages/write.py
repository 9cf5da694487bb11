"""Writing: the records that are left, with their image files as they are, as Parquet or as ArrayRecord shards."""

import hashlib
import io
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eve_jax.curate.config import WriteConfig
from eve_jax.curate.rows import Wanted, by_shard
from eve_jax.curate.stage import Stage, key_of, remove_parts
from eve_jax.curate.stages.measure import Measure, caption_of
from eve_jax.curate.unchanged import UNKNOWN, is_as_it_was, remembered
from eve_jax.data.image_file import BadImage, StoredImage, image_bytes
from eve_jax.data.prepare.shard_writer import ShardWriter, write_dataset
from eve_jax.data.record import Record
from eve_jax.data.sources.shards import DATASET_FILE, Shard, shard_paths
from eve_jax.errors import UserError
from eve_jax.process.files import read_json, write_atomically, write_json

NAME, VERSION, RECORDS = "write", 1, "records"
GROUP = 4 << 20  # bytes of image files from which on a row group ends
OPTIONS: dict[str, Any] = {  # image files are compressed already
    "compression": {"id": "zstd", "image": "none", "conversations": "zstd", "alt": "zstd", "experts": "zstd"},
    "use_dictionary": False,
    "write_batch_size": 8,  # images, after which the size of a page is looked at
    "data_page_size": 1 << 18,
}
TURN = pa.struct({"from": pa.string(), "value": pa.string()})
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "conversations": pa.list_(TURN),
        "alt": pa.string(),
        "experts": pa.string(),
    }
)


@dataclass(frozen=True, eq=False)
class Write:
    """Makes an output shard: `config.shard_records` of the records that are `wanted`.

    looked: the stage of the experts' findings, None without.
    """

    stage: Stage
    measure: Measure
    config: WriteConfig
    wanted: Wanted
    looked: Stage | None

    @property
    def index(self) -> np.ndarray:
        """Return the records, int64 [n] ascending."""
        return self.wanted.index

    @property
    def shards(self) -> int:
        """Return the number of output shards."""
        return -(-len(self.index) // self.config.shard_records)

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not there, and make the folder."""
        self.stage.folder.mkdir(parents=True, exist_ok=True)
        if (self.stage.folder / DATASET_FILE).is_file():  # killed while it was given its name
            return []
        return [number for number in range(self.shards) if not self._mark(number).is_file()]

    def _mark(self, number: int) -> Path:
        """Return the file that is there when a shard is complete."""
        form = ".json" if self.config.form == RECORDS else ".parquet"
        return self.stage.folder / f"{number:05d}{form}"

    def __call__(self, number: int) -> None:
        """Write output shard `number`."""
        size = self.config.shard_records
        index = self.index[number * size : (number + 1) * size]
        if self.config.form == RECORDS:
            writer = ShardWriter(self.stage.folder, number, self.measure.max_pixels)
            for record, _ in self._records(index):
                writer.add(record)
            write_json(self._mark(number), {"shard": writer.close()})
        else:
            write_atomically(self._mark(number), partial(_write_rows, self._records(index)))

    def _records(self, index: np.ndarray) -> Iterator[tuple[Record, bytes]]:
        """Yield the records with the bytes of their images. Raises UserError for an image that changed."""
        records = self.measure.source.open()
        found = [""] * len(index)
        if self.looked is not None:
            from eve_jax.curate.stages.look import findings  # imports the experts

            found = findings(self.looked, index, self.measure.size)
        digests: list[str] = []
        states: list[int] = []
        for number, span in by_shard(index, self.measure.size):
            at = index[span] - number * self.measure.size
            digests += self.measure.stage.read(number, ["digest"])["digest"].take(pa.array(at)).to_pylist()
            known = remembered(self.measure.stage.shard(number))
            states += [UNKNOWN] * len(at) if known is None else known[at].tolist()
        for one, digest, state, experts in zip(index.tolist(), digests, states, found, strict=True):
            yield _checked(records[one], digest, state, experts)

    def is_published(self, folder: Path) -> bool:
        """Return whether `folder` has all files of the output."""
        if self.config.form == RECORDS:
            files = [folder / DATASET_FILE, *(file for n in range(self.shards) for file in shard_paths(folder, n))]
        else:
            files = [folder / self._mark(number).name for number in range(self.shards)]
        return not self.stage.folder.exists() and all(file.is_file() for file in files)

    def publish(self, folder: Path) -> None:
        """Give the complete output the name `folder`, in place of an earlier one; may be repeated after a kill."""
        if not self.stage.folder.is_dir():
            return
        if self.config.form == RECORDS:
            if not (self.stage.folder / DATASET_FILE).is_file():
                marks = [read_json(self._mark(number))["shard"] for number in range(self.shards)]
                write_dataset(self.stage.folder, [Shard(*mark) for mark in marks])
            for number in range(self.shards):
                self._mark(number).unlink(missing_ok=True)
        remove_parts(self.stage.folder)
        shutil.rmtree(folder, ignore_errors=True)
        self.stage.folder.rename(folder)


def write_stage(measure: Measure, config: WriteConfig, index: np.ndarray, looked: Stage | None) -> Write:
    """Return what writes the records `index`, int64 [n] ascending, of those that `measure` measured."""
    wanted = Wanted.of(measure.stage.out, index)
    inputs = (measure.stage.key, looked.key if looked else "", wanted.path.name)
    stage = Stage(measure.stage.out, NAME, key_of(NAME, VERSION, asdict(config), *inputs))
    return Write(stage, measure, config, wanted, looked)


def _checked(record: Record, digest: str, state: int, experts: str) -> tuple[Record, bytes]:
    """Return the record as it is written, and its image file. state: of the file when it was measured, if known."""
    try:
        data = image_bytes(record.images[0])
    except BadImage as error:
        remedy = "it could be read when it was measured; restore it, or choose another --to"
        raise UserError(f"{error} ({record.where}); {remedy}") from None
    same = is_as_it_was(record.images[0], state)
    if not same and hashlib.blake2b(data, digest_size=16).hexdigest() != digest:
        raise UserError(f"{record.images[0]} ({record.where}) changed since it was measured; choose another --to")
    image = StoredImage(str(record.images[0]), partial(io.BytesIO, data))
    kept = {"alt": caption_of(record)} | ({"experts": experts} if experts else {})
    return record._replace(images=(image,), kept={**record.kept, **kept}), data


def _write_rows(records: Iterable[tuple[Record, bytes]], part: Path) -> None:
    """Write the records to the Parquet file `part`; no more than a row group is in memory."""
    with pq.ParquetWriter(part, SCHEMA, **OPTIONS) as writer:
        rows: list[dict[str, Any]] = []
        size = 0
        for record, data in records:
            rows.append(_row(record, data))
            size += len(data)
            if size >= GROUP:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows, size = [], 0
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))


def _row(record: Record, data: bytes) -> dict[str, Any]:
    turns = [{"from": turn.role, "value": turn.text} for turn in record.turns]
    return {
        "id": record.id,
        "image": {"bytes": data, "path": None},
        "conversations": turns or None,
        "alt": record.kept["alt"],
        "experts": record.kept.get("experts"),
    }
