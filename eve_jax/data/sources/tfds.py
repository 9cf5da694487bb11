"""TensorFlow Datasets by `as_data_source`, without TensorFlow: `tfds:NAME[:SPLIT]` or `tfds:FOLDER[:SPLIT]`.

Features: `image` (or `images`, a sequence), and `conversations` (a sequence of {from, value}) or `caption`,
`captions` or `text`, of which the first is taken; perhaps `id`. The data set must be prepared as ArrayRecord:
`tfds build NAME --file_format=array_record`.
"""

import io
import os
import re
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from eve_jax.data.images import StoredImage
from eve_jax.data.sources.base import BadRecord, Record, digest_of, make_record
from eve_jax.errors import UserError

CAPTIONS = ("caption", "captions", "text", "captions/text")
IMAGES = ("image", "images")
IDS = ("id", "image/id", "key")


class TfdsSplit:
    """The records of a split of a TensorFlow data set, see `base.Source`; `name` is NAME[:SPLIT], train by default."""

    tables: Path | None = None

    def __init__(self, name: str) -> None:
        self.name, self._split = _split_off(name)
        import tensorflow_datasets as tfds  # takes seconds to load

        try:
            folder = Path(self.name)
            builder = tfds.builder_from_directory(folder) if folder.is_dir() else tfds.builder(self.name)
            method = tfds.decode.DeserializeMethod.RAW_BYTES
            self._data = builder.as_data_source(
                split=self._split, deserialize_method=method, file_format="array_record"
            )
        except Exception as e:  # TFDS raises many kinds, over several lines
            raise UserError(
                f"tfds:{name}: cannot be opened ({' '.join(str(e).split())[:300]}); "
                f"prepare it by `tfds build {self.name} --file_format=array_record`"
            ) from None
        self._info = builder.info
        features = set(self._info.features.keys())
        if not features & {"conversations", "caption", "captions", "text"}:
            raise UserError(
                f"tfds:{name}: has neither conversations nor a caption, but the features {', '.join(sorted(features))}"
            )

    def __len__(self) -> int:
        return len(self._data)

    def where(self, index: int) -> str:
        """tfds:name:split#number, from 1."""
        return f"tfds:{self.name}:{self._split}#{index + 1}"

    def record(self, index: int) -> Record:
        """The record. Raises `BadRecord`."""
        from tensorflow_datasets.proto import tf_example_pb2

        where = self.where(index)
        try:
            example = tf_example_pb2.Example.FromString(self._data[index])
        except Exception as e:  # array_record's RuntimeError, protobuf's DecodeError
            raise BadRecord(f"cannot be read ({' '.join(str(e).split())[:200]})", where) from None
        fields = {name: _values(feature) for name, feature in example.features.feature.items()}
        raw: dict[str, Any] = {}
        for name in IDS:
            if fields.get(name):
                raw["id"] = _text(fields[name][0])
                break
        if "conversations/from" in fields:
            pairs = zip(fields["conversations/from"], fields.get("conversations/value", []), strict=False)
            raw["conversations"] = [{"from": _text(role), "value": _text(value)} for role, value in pairs]
        else:
            captions = [fields[name][0] for name in CAPTIONS if fields.get(name)]
            raw["caption"] = _text(captions[0]) if captions else None
        files = next((fields[name] for name in IMAGES if fields.get(name)), [])
        images = tuple(StoredImage(f"{where}[{n}]", partial(_stream, data)) for n, data in enumerate(files, 1))
        return make_record(raw, where, where.removeprefix("tfds:"), lambda _: images)

    def fingerprint(self) -> str:
        """Return a hash of the data set's name, version and split, of its files' paths, sizes and times."""
        split = self._info.splits[self._split]
        files = [(str(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in split.filepaths]
        return digest_of([self._info.full_name, self._split, repr(files), str(split.shard_lengths)])


def _split_off(name: str) -> tuple[str, str]:
    """NAME[:SPLIT] taken apart; the version in coco_captions/2014:1.1.0 is no split."""
    found = re.fullmatch(r"(.+?)(?::([A-Za-z_][^/.]*))?", name)
    if found is None:
        raise UserError("tfds: names no data set; write tfds:NAME[:SPLIT]")
    return found[1], found[2] or "train"


def _values(feature: Any) -> list:
    return list(getattr(feature, feature.WhichOneof("kind")).value) if feature.WhichOneof("kind") else []


def _text(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _stream(data: bytes) -> BinaryIO:
    return io.BytesIO(data)
