"""Writes prepared records: shards of conversations and image files, as `sources.shards` reads them."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordWriter

from eve_jax.data.image.codes import codes_file
from eve_jax.data.image.patches import image_size, made_codes, open_image
from eve_jax.data.image.rule import MAX_PIXELS, ImageRule
from eve_jax.data.image_file import ImageFile, StoredImage, image_bytes
from eve_jax.data.record import Record
from eve_jax.data.sources.shards import DATASET_FILE, FORMAT, TABLES, Shard, shard_paths
from eve_jax.errors import UserError, shorten
from eve_jax.process.files import PART, write_atomically


def write_dataset(folder: Path, shards: list[Shard], tables: Mapping[str, str] | None = None) -> None:
    """Writes the list that makes a folder of shards a data set; `tables`: digests of the lengths tables in it."""
    listed = {"format": FORMAT, "shards": shards} | ({TABLES: tables} if tables else {})
    write_atomically(folder / DATASET_FILE, json.dumps(listed) + "\n")


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Raise UserError for what ArrayRecord raises when the disk is full or the folder cannot be written."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"{folder}: shards cannot be written ({shorten(str(error))}); make room or the folder writable, then rerun "
            "the command: it resumes"
        ) from error


class ShardWriter:
    """Writes one shard; its files have their names only after `close`."""

    def __init__(self, folder: Path, number: int, max_pixels: int = MAX_PIXELS, codes: ImageRule | None = None) -> None:
        """codes: the rule with a coder by which images are kept as grids of codes, None for image files as they are."""
        self._max_pixels, self._codes = max_pixels, codes
        self._paths = shard_paths(folder, number)
        records, images = (str(path) + PART for path in self._paths)
        with _written(folder):
            self._records = ArrayRecordWriter(records, "group_size:1")
            self._images = ArrayRecordWriter(images, "group_size:1,uncompressed")  # image files are compressed already
        self._known: dict[str, list[int]] = {}  # path -> number, width, height
        self._count = 0
        self._n_images = 0
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, record: Record) -> list[tuple[int, int]]:
        """Adds a record; width and height of its images. Raises `BadImage` before anything is written."""
        ready = [self._prepared(image) for image in record.images]
        entries = [entry if data is None else self._write_image(image, entry, data) for image, entry, data in ready]
        line = json.dumps({"id": record.id, "images": entries, "turns": record.turns, **record.kept}).encode()
        with _written(self._paths[0].parent):
            self._records.write(line)
        self._digest.update(line)
        self._count += 1
        return [(width, height) for _, width, height in entries]

    def _prepared(self, image: ImageFile) -> tuple[ImageFile, list[int], bytes | None]:
        known = self._known.get(str(image)) if not isinstance(image, StoredImage) else None
        if known is not None:
            return image, known, None
        if self._codes is not None:
            codes = made_codes(open_image(image, self._max_pixels), self._codes)
            return image, [-1, codes.shape[1], codes.shape[0]], codes_file(codes, self._codes.vocabulary)
        return image, [-1, *image_size(image, self._max_pixels)], image_bytes(image)

    def _write_image(self, image: ImageFile, entry: list[int], data: bytes) -> list[int]:
        entry = [self._n_images, *entry[1:]]
        with _written(self._paths[1].parent):
            self._images.write(data)
        self._digest.update(data)
        self._n_images += 1
        if not isinstance(image, StoredImage):
            self._known[str(image)] = entry
        return entry

    def close(self) -> Shard:
        """Finishes the files and gives them their names."""
        with _written(self._paths[0].parent):
            self._records.close()
            self._images.close()
        sizes = []
        for path in reversed(self._paths):  # images first: conversations are never without theirs
            part = Path(str(path) + PART)
            sizes.append(part.stat().st_size)
            part.replace(path)
        return Shard(self._count, self._n_images, sizes[1], sizes[0], self._digest.hexdigest())
