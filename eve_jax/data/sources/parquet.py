"""Parquet files in the layout of the releases of LLaVA-OneVision-Data and Infinity-MM on the Hugging Face hub.

    id: string                                      optional
    image: {bytes, path} or a list of those         also `images`, plain bytes, or a path; null for text alone
    conversations: list of {from, value}            or `caption` or `text`: string

Row groups are read when one of their records is asked for, the text columns apart from the pictures' bytes, and the
last few are kept: reading in order is cheap, reading here and there costs a row group each time.
"""

import io
import os
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eve_jax.data.images import ImageFile, StoredImage
from eve_jax.data.sources.base import CAPTIONS, BadRecord, Recent, Record, digest_of, make_record
from eve_jax.errors import UserError

IMAGES = ("image", "images")
KEPT_TEXTS, KEPT_IMAGES = 8, 2  # row groups


class ParquetRecords:
    """The records of a Parquet file, see `base.Source`; pictures given by path alone are relative to `images_dir`."""

    tables: Path | None = None

    def __init__(self, path: str | Path, images_dir: str | Path = "") -> None:
        self.path, self.images_dir = Path(path), str(images_dir)
        if not self.path.is_file():
            raise UserError(f"{path}: no such records file; set config.data.records to files that exist")
        try:
            self._file = pq.ParquetFile(path, memory_map=True)
        except (pa.ArrowException, OSError) as e:
            raise UserError(f"{path}: not a Parquet file that can be read ({' '.join(str(e).split())[:200]})") from None
        names = self._file.schema_arrow.names
        self._image = next((name for name in IMAGES if name in names), "")
        texts = [name for name in ("id", "conversations", *CAPTIONS) if name in names]
        if not set(texts) - {"id"}:
            raise UserError(f"{path}: has neither conversations nor a caption, but the columns {', '.join(names)}")
        schema = self._file.schema
        leaves = [schema.column(n).path for n in range(len(schema))]
        own = [leaf for leaf in leaves if leaf.split(".")[0] == self._image]
        # Which pictures there are is seen without reading them, if they have a path beside their bytes.
        paths = [leaf for leaf in own if leaf.rpartition(".")[2] != "bytes"]
        self._texts = Recent(partial(self._group, texts + (paths if len(paths) < len(own) else own)), KEPT_TEXTS)
        self._pictures = Recent(partial(self._group, own), KEPT_IMAGES)
        meta = self._file.metadata
        self._first = np.cumsum([0] + [meta.row_group(group).num_rows for group in range(meta.num_row_groups)])

    def _group(self, columns: list[str], group: int) -> pa.Table:
        return pq.ParquetFile(self.path, memory_map=True, metadata=self._file.metadata).read_row_group(group, columns)

    def __len__(self) -> int:
        return int(self._first[-1])

    def _place(self, index: int) -> tuple[int, int]:
        group = int(np.searchsorted(self._first, index, side="right")) - 1
        return group, index - int(self._first[group])

    def where(self, index: int) -> str:
        """file.parquet#number, from 1."""
        return f"{self.path}#{index + 1}"

    def record(self, index: int) -> Record:
        """The record. Raises `BadRecord`."""
        group, own = self._place(index)
        where = self.where(index)
        try:
            table = self._texts(group)
            raw = {name: table.column(name)[own].as_py() for name in table.column_names}
        except (pa.ArrowException, OSError, ValueError) as e:  # ValueError: also of bytes that are no UTF-8
            raise BadRecord(f"cannot be read ({' '.join(str(e).split())[:200]})", where) from None
        return make_record(raw, where, f"{self.path.name}#{index + 1}", partial(self._images, group, own, where))

    def _images(self, group: int, own: int, where: str, raw: dict) -> tuple[ImageFile, ...]:
        value = raw.get(self._image)
        if value is None:
            return ()
        several = value if isinstance(value, list) else [value]
        return tuple(
            StoredImage(
                f"{where}[{number}]", partial(self._stream, group, own, number - 1 if several is value else None)
            )
            for number in range(1, len(several) + 1)
        )

    def _stream(self, group: int, own: int, number: int | None) -> BinaryIO:
        cell = self._pictures(group).column(self._image)[own]
        value: Any = (cell if number is None else cell[number]).as_py()
        data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, value)
        if isinstance(data, bytes):
            return io.BytesIO(data)
        return open(os.path.join(self.images_dir, path), "rb") if path else io.BytesIO()

    def fingerprint(self) -> str:
        """Return a hash of the file's footer (places, sizes and ranges of all columns), of its size, when it was
        changed, its path and that of the images."""
        meta, status = self._file.metadata, self.path.stat()
        parts = (str(self.path), self.images_dir, str(status.st_size), str(status.st_mtime_ns), repr(meta.to_dict()))
        return digest_of(parts)
