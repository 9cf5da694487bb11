"""Parquet files in the layout of the releases of LLaVA-OneVision-Data and Infinity-MM on the Hugging Face hub.

    id: string                                      optional
    image: {bytes, path} or a list of those         also plain bytes, or a path; null for text alone
    conversations: list of {from, value}            or messages, or `caption` or `text`: string

Columns are read as the fields of a JSON record are, see `fields`. Row groups are read when one of their records is
asked for, the other columns apart from the images' bytes, and the last few are kept: reading in order is cheap, reading
here and there costs a row group each time.
"""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eve_jax.data.image_file import BadImage, StoredImage
from eve_jax.data.record import BadRecord, Fields, Recent, Record, digest_of, is_empty
from eve_jax.data.sources.fields import IMAGE_FIELDS, Place, read_record
from eve_jax.data.sources.forms import TEXT_FIELDS, nearest
from eve_jax.data.sources.image_objects import unread_keys
from eve_jax.data.sources.image_refs import check_file_of, image_values, open_path
from eve_jax.errors import Field, FieldError, Unreachable, UserError, amount, shorten
from eve_jax.process.places import shown

KEPT_TEXTS, KEPT_IMAGES = 8, 2  # row groups
DOWNLOADED = (".jpg", ".png", ".webp")  # of files that img2dataset writes
FOOTER_END = 8  # bytes after a file's footer: its size, and PAR1


class ParquetRecords:
    """The records of a Parquet file, see `base.Source`; images given by path alone are relative to `images_dir`.

    Of a file that img2dataset writes next to a folder of images, they are those in the folder. texts: False also reads
    records without texts.
    """

    tables: Path | None = None
    form = ""  # of `eve_jax.data.sources.forms`, that alone is read

    def __init__(self, path: str | Path, images_dir: str | Path = "", texts: bool = True) -> None:
        self.path, self.images_dir, self.texts = Path(path), str(images_dir), texts
        self._check_there()
        try:
            self._file = self._open()
            names = self._file.schema_arrow.names
        except Unreachable:
            raise
        except Exception as e:  # whatever a damaged footer leads the library to
            raise UserError(f"{path}: not a Parquet file that can be read ({shorten(str(e), 200)})") from None
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{path}: has several columns called {shorten(repr(twice))}; give each a name of its own")
        if texts and not set(names) & set(TEXT_FIELDS):
            raise UserError(
                f"{path}: has neither conversations nor a caption, but the columns {shorten(', '.join(names))}; "
                f"{nearest(dict.fromkeys(names))}"
            )
        schema = self._file.schema
        leaves = [schema.column(n).path for n in range(len(schema))]
        # Which images there are is seen without reading them, if they have a path next to their bytes.
        light: list[str] = []
        self._apart: dict[str, list[str]] = {}  # column -> all its leaves, of those whose bytes are read apart
        for name in names:
            own = [leaf for leaf in leaves if leaf == name or leaf.startswith(f"{name}.")]  # a name may have dots
            paths = [leaf for leaf in own if leaf.rpartition(".")[2] != "bytes"]
            if name in IMAGE_FIELDS and 0 < len(paths) < len(own):
                self._apart[name] = own
                own = paths
            light += own
        self._downloads = _downloads(self.path, names)
        self._texts = Recent(partial(self._group, light), KEPT_TEXTS)
        self._images_read = Recent(lambda name, group: self._group(self._apart[name], group), KEPT_IMAGES)
        meta = self._file.metadata
        sizes = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
        if min(sizes, default=0) < 0 or sum(sizes) != meta.num_rows:
            raise UserError(f"{path}: damaged (its row groups are not of {meta.num_rows:,} records); write it again")
        self._first = np.cumsum([0, *sizes])

    def _check_there(self) -> None:
        if not self.path.is_file():
            raise FieldError(f"{self.path}: no such records file; set ", Field("data.records"), " to files that exist")

    def _binary(self) -> BinaryIO:
        return open(self.path, "rb")

    def _open(self, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
        return pq.ParquetFile(self.path, memory_map=True, metadata=metadata, page_checksum_verification=True)

    def _group(self, columns: Sequence[str], group: int) -> pa.Table:
        table = self._open(self._file.metadata).read_row_group(group, list(columns))
        rows = self._file.metadata.row_group(group).num_rows
        if table.num_rows != rows:
            raise ValueError(f"a row group of {amount(rows, 'record')} holds {table.num_rows:,}")
        return table

    def __len__(self) -> int:
        return int(self._first[-1])

    def _place(self, index: int) -> tuple[int, int]:
        group = int(np.searchsorted(self._first, index, side="right")) - 1
        return group, index - int(self._first[group])

    def where(self, index: int) -> str:
        """file.parquet#number, from 1."""
        return f"{self.path}#{index + 1}"

    def read(self, index: int) -> tuple[Record, Fields]:
        """Return the record and which columns were used. Raises `BadRecord`."""
        group, own = self._place(index)
        where = self.where(index)
        try:
            table = self._texts(group)
            raw = {name: _value(table.column(name)[own], name) for name in table.column_names}
            for name in self._apart:
                raw[name] = self._images(name, group, own, where, raw[name])
            if self._downloads is not None:
                raw["image"] = self._downloaded(raw.get("key"))
        except Unreachable:
            raise
        except Exception as e:  # whatever damaged pages, and values that no Python object can hold, lead the library to
            raise BadRecord(f"cannot be read ({shorten(str(e), 200)})", where) from None
        name = f"{self.path.name}#{index + 1}"
        images_dir = self.images_dir if self._downloads is None else str(self._downloads)
        return read_record(raw, Place(where, name, images_dir, str(self.path.parent), form=self.form, texts=self.texts))

    def _downloaded(self, key: Any) -> str | None:
        """Return the name of the image that img2dataset downloaded under that key, None for none."""
        assert self._downloads is not None
        names = (f"{key}{suffix}" for suffix in DOWNLOADED)
        return next((name for name in names if (self._downloads / name).is_file()), None)

    def _images(self, name: str, group: int, own: int, where: str, light: Any) -> Any:
        """Return a cell whose bytes are read apart, with a `StoredImage` for each image; `light` is it without them."""
        if light is None or light == []:
            return None
        several = isinstance(light, list)
        items: list[Any] = light if several else [light]
        if any(is_empty(item) for item in items):  # there is an image only if it has bytes
            items = image_values(self._images_read(name, group).column(name)[own].as_py())
        found: list[Any] = []
        for number, item in enumerate(items, 1):
            open_it = partial(self._stream, name, group, own, number - 1 if several else None)
            image = StoredImage(f"{where}[{number}]", open_it, file_name=_path(item))
            more = {key: item[key] for key in unread_keys(item) if key in item}  # further fields of the cell
            found.append(None if is_empty(item) else {"image": image, **more} if more else image)
        return found

    def _stream(self, name: str, group: int, own: int, number: int | None) -> BinaryIO:
        cell = self._images_read(name, group).column(name)[own]
        value: Any = (cell if number is None else cell[number]).as_py()
        data, path = value.get("bytes"), value.get("path")
        try:
            if data:
                check_file_of(data, path, [self.images_dir], name)
                return io.BytesIO(data)
            return open_path(path, self.images_dir)
        except BadRecord as e:
            raise BadImage(e.reason, e.image) from None

    def fingerprint(self) -> str:
        """Return a hash of the file's footer (places, sizes and ranges of all columns), of its size, when it was
        changed, its path and that of the images."""
        status = self.path.stat()
        named = (shown(str(self.path)), shown(self.images_dir))
        parts = (*named, str(status.st_size), str(status.st_mtime_ns), self._footer())
        return digest_of((*parts, *filter(None, [self.form])))

    def _footer(self) -> bytes:
        """Return the footer as it stands in the file: Python cannot hold all the values of its statistics."""
        with self._binary() as file:
            file.seek(-FOOTER_END, io.SEEK_END)
            size = int.from_bytes(file.read(4), "little")
            file.seek(-FOOTER_END - size, io.SEEK_END)
            return file.read(size)


def _downloads(path: Path, names: Sequence[str]) -> Path | None:
    """Return the folder of images that a file of img2dataset with the columns `names` tells of, None for another file.

    Raises `UserError` where they are in a tar file.
    """
    folder, tar = path.with_suffix(""), path.with_suffix(".tar")
    if not {"key", "url", "status"} <= {*names} or {*names} & {*IMAGE_FIELDS}:
        return None
    if tar.is_file():
        raise UserError(f"{path}: is what img2dataset tells of the images in {tar.name}; name that file, or its folder")
    return folder.absolute() if folder.is_dir() else None


def _path(item: Any) -> str:
    """Return the path of an image, as far as its cell has one."""
    path = item.get("path") if isinstance(item, dict) else None
    return path if isinstance(path, str) else ""


def _value(cell: pa.Scalar, name: str) -> Any:
    """Return a cell as a Python object; times in it that Python cannot hold stay scalars. Raises ValueError."""
    try:
        return cell.as_py()
    except Exception as e:
        if pa.types.is_temporal(cell.type):
            return cell
        if pa.types.is_struct(cell.type):
            return {field.name: _value(cell[number], name) for number, field in enumerate(cell.type)}
        if isinstance(cell, pa.ListScalar):  # maps and the other kinds of lists are, too
            return [_value(item, name) for item in cell.values]
        raise ValueError(f"column {name!r}: {e}") from None
