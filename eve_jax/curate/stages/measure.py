"""Measuring: every record is read and its image decoded, once; what later stages look at are columns."""

import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from eve_jax.curate.stage import Stage, key_of
from eve_jax.curate.unchanged import UNKNOWN, remember, state_of
from eve_jax.data.image.patches import open_reduced
from eve_jax.data.image_file import BadImage, StoredImage, bytes_and_status
from eve_jax.data.record import BadRecord, Record
from eve_jax.data.sources.records import Records, open_records
from eve_jax.data.text.turns import check_roles, check_turns

NAME, VERSION = "measure", 1
SIDE = 128  # pixels of the shorter side that JPEG is decoded to at least
GRAY = 32  # side of the image that pHash is computed of
SCHEMA = pa.schema(
    {
        "index": pa.int64(),  # of the record in the source, from 0
        "id": pa.string(),
        "where": pa.string(),
        "rule": pa.string(),  # record, images or image where it cannot be used, else ""
        "reason": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "bytes": pa.int64(),
        "format": pa.string(),
        "entropy": pa.float32(),
        "brightness": pa.float32(),
        "phash": pa.uint64(),
        "digest": pa.string(),
        "caption": pa.string(),
    }
)
EMPTY: dict[str, Any] = {field.name: "" if field.type == pa.string() else 0 for field in SCHEMA}


class Measured(NamedTuple):
    """What is measured of an image file. width, height: upright. entropy: bits of the histogram of gray values.

    brightness: mean gray value, 0 to 255. phash: 64 bits. digest: hash of the file.
    """

    width: int
    height: int
    bytes: int
    format: str
    entropy: float
    brightness: float
    phash: int
    digest: str


@dataclass(frozen=True)
class Source:
    """Where records are read from: the names of sources, the folder of their images, that of kept indexes."""

    records: str
    images: str
    index: Path

    def open(self) -> Records:
        """Return the records, opened once in each process."""
        with _opening:
            return _opened(self)


_opening = Lock()


@cache
def _opened(source: Source) -> Records:
    return open_records(source.records, source.images, source.index, texts=False)


@dataclass(frozen=True)
class Measure:
    """Makes a shard of SCHEMA: the records `size * number` to `size * (number + 1)` of the source."""

    stage: Stage
    source: Source
    size: int
    max_pixels: int

    def __call__(self, number: int) -> None:
        """Write shard `number`."""
        records = self.source.open()
        span = range(number * self.size, min((number + 1) * self.size, len(records)))
        rows = [measure_record(records, index, self.max_pixels) for index in span]
        self.stage.write(number, {name: [row[name] for row in rows] for name in SCHEMA.names}, SCHEMA)
        remember(self.stage.shard(number), [row.get("state", UNKNOWN) for row in rows])


def measure_stage(out: Path, source: Source, fingerprint: str, size: int, max_pixels: int) -> Measure:
    """Return what measures `source`, whose records have the `fingerprint`, in shards of `size` records."""
    settings = {"shard_records": size, "max_pixels": max_pixels, "images": str(Path(source.images).resolve())}
    return Measure(Stage(out, NAME, key_of(NAME, VERSION, settings, fingerprint)), source, size, max_pixels)


def measure_record(records: Records, index: int, max_pixels: int) -> dict[str, Any]:
    """Return the row of SCHEMA of record `index`; `rule` and `reason` say why it cannot be used, if it cannot.

    One that can be used has its `state_of` as `state`, too.
    """
    row = EMPTY | {"index": index}
    try:
        record = records.read(index)[0]
        row |= {"id": record.id, "where": record.where, "caption": caption_of(record)}
        _check_turns(record)
        if len(record.images) != 1:
            return row | {"rule": "images", "reason": f"{len(record.images)} images, not one"}
        image = record.images[0]
        looked = time.time_ns()
        data, status = bytes_and_status(image)
        return row | measure(data, str(image), max_pixels)._asdict() | {"state": state_of(status, looked)}
    except BadImage as error:
        said = {"rule": "image", "reason": f"{error.path}: {error.reason}"}
    except BadRecord as error:
        said = {"id": row["id"] or error.id, "rule": "record", "reason": error.reason}
    return row | {"where": row["where"] or records.where(index)} | said


def _check_turns(record: Record) -> None:
    """Raise `BadRecord` for turns that nothing can be trained on; a record without any is an image alone."""
    if record.turns:
        check_turns(record.turns, len(record.images))
    if any(turn.role == "human" for turn in record.turns):  # else a caption
        check_roles(record.turns[record.turns[0].role == "system" :], len(record.turns))


def caption_of(record: Record) -> str:
    """Return the caption of a record: what is kept of the web's, else its first answer, "" for none."""
    alt = record.kept.get("alt")
    return alt if isinstance(alt, str) else next((turn.text for turn in record.turns if turn.role == "gpt"), "")


def measure(data: bytes, name: str, max_pixels: int) -> Measured:
    """Return what is measured of an image file, of which `data` are the bytes. Raises `BadImage`, which says `name`."""
    opener: Callable[[], io.BytesIO] = partial(io.BytesIO, data)
    image, (width, height), kind = open_reduced(StoredImage(name, opener), SIDE, max_pixels)
    gray = image.convert("L")
    small = np.asarray(gray.resize((GRAY, GRAY), Image.Resampling.LANCZOS))
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    brightness = int(small.sum()) / small.size
    return Measured(width, height, len(data), kind, abs(gray.entropy()), brightness, phash(small), digest)


def phash(gray: np.ndarray) -> int:
    """Return the perceptual hash of a gray image uint8 [32, 32], an unsigned integer of 64 bits.

    Bit 8 u + v, from the highest, says if the DCT-II coefficient (u + 1, v + 1) is above the median of these 64,
    after Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.
    """
    basis = _dct()
    low = (basis @ gray.astype(np.float64) @ basis.T).ravel()
    middle = np.sort(low)[31:33]  # np.median takes as long as the rest
    bits = np.packbits(low > (middle[0] + middle[1]) / 2)
    return int.from_bytes(bits.tobytes(), "big")


@cache
def _dct() -> np.ndarray:
    """Rows 1 to 8 of the DCT-II, float64 [8, GRAY]."""
    frequency = np.arange(1, 9)[:, None]
    return np.cos(np.pi * frequency * (2 * np.arange(GRAY) + 1) / (2 * GRAY))
