"""TensorFlow Datasets by `as_data_source`, without TensorFlow: `tfds:NAME[:SPLIT]` or `tfds:FOLDER[:SPLIT]`.

Features: `image` (or `images`, a sequence), and `conversations` (a sequence of {from, value}) or `caption`,
`captions` or `text`, of which the first is taken; perhaps `id`. The data set must be prepared as ArrayRecord:
`tfds build NAME --file_format=array_record`.
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from eve_jax.data.image_file import StoredImage
from eve_jax.data.record import BadRecord, Fields, Record, digest_of
from eve_jax.data.sources.fields import Place, read_record
from eve_jax.errors import UserError, install, shorten

CAPTIONS = ("caption", "captions", "text", "captions/text")
TALK = ("conversations/from", "conversations/value")
IMAGES = ("image", "images")
IDS = ("id", "image/id", "key")
OWN_CLASS = re.compile(r"tensorflow_datasets(\.\w+)+", re.ASCII)
OWN_NAME = re.compile(r"\w+(/[\w.-]+)?(:\d+\.\d+\.\d+)?", re.ASCII)  # without a namespace, whose code would be fetched
_lock = Lock()


class TfdsSplit:
    """The records of a split of a TensorFlow data set, see `base.Source`; `name` is NAME[:SPLIT], train by default.

    texts: False also reads examples without texts.
    """

    tables: Path | None = None

    def __init__(self, name: str, texts: bool = True) -> None:
        self.name, self._split = _split_off(name)
        self._with_texts = texts
        try:
            import tensorflow_datasets as tfds  # takes seconds to load
        except ModuleNotFoundError as e:
            if e.name != "tensorflow_datasets":
                raise
            raise UserError(f"tfds:{name}: the package tensorflow-datasets is missing: {install('tfds')}") from None
        folder = Path(self.name)
        if not folder.is_dir() and not OWN_NAME.fullmatch(self.name):
            raise UserError(
                f"tfds:{name}: no such folder, and no name of a data set that TensorFlow Datasets has itself"
            )
        try:
            with _own_features():
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
        self.path = Path(builder.data_dir) / self._split
        features = set(self._info.features.keys())
        if texts and not features & {"conversations", "caption", "captions", "text"}:
            raise UserError(
                f"tfds:{name}: has neither conversations nor a caption, but the features {', '.join(sorted(features))}"
            )

    def __len__(self) -> int:
        return len(self._data)

    def where(self, index: int) -> str:
        """tfds:name:split#number, from 1."""
        return f"tfds:{self.name}:{self._split}#{index + 1}"

    def read(self, index: int) -> tuple[Record, Fields]:
        """Return the record and its features. Raises `BadRecord`."""
        from tensorflow_datasets.proto import tf_example_pb2

        where = self.where(index)
        try:
            example = tf_example_pb2.Example.FromString(self._data[index])
        except Exception as e:  # array_record's RuntimeError, protobuf's DecodeError
            raise BadRecord(f"cannot be read ({' '.join(str(e).split())[:200]})", where) from None
        values = {name: _values(feature) for name, feature in example.features.feature.items()}
        return read_record(_raw(values, where), Place(where, where.removeprefix("tfds:"), texts=self._with_texts))

    def fingerprint(self) -> str:
        """Return a hash of the data set's name, version and split, of its files' paths, sizes and times."""
        split = self._info.splits[self._split]
        files = [(str(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in split.filepaths]
        return digest_of([self._info.full_name, self._split, repr(files), str(split.shard_lengths)])


@contextmanager
def _own_features() -> Iterator[None]:
    """In the block TFDS takes its own classes of features alone.

    Otherwise it imports the module of any class that a data set's features.json names, which runs what is in it.
    """
    from tensorflow_datasets.core.features.feature import FeatureConnector

    find = FeatureConnector.cls_from_name

    def own(name: str) -> Any:
        if not OWN_CLASS.fullmatch(name):
            raise ValueError(
                f"features.json names the class {shorten(name, 100)}, which TensorFlow Datasets does not have"
            )
        return find(name)

    with _lock:
        FeatureConnector.cls_from_name = staticmethod(own)
        try:
            yield
        finally:
            FeatureConnector.cls_from_name = find


def _split_off(name: str) -> tuple[str, str]:
    """NAME[:SPLIT] taken apart; the version in coco_captions/2014:1.1.0 is no split."""
    found = re.fullmatch(r"(.+?)(?::([A-Za-z_][^/.]*))?", name)
    if found is None:
        raise UserError("tfds: names no data set; write tfds:NAME[:SPLIT]")
    return found[1], found[2] or "train"


def _values(feature: Any) -> list:
    return list(getattr(feature, feature.WhichOneof("kind")).value) if feature.WhichOneof("kind") else []


def _raw(features: dict[str, list], where: str) -> dict[str, Any]:
    """Return the features of an example as the fields of a record."""
    given = {name: values for name, values in features.items() if values}
    raw: dict[str, Any] = {}
    own = next((name for name in IDS if name in given), None)
    if own is not None:
        raw["id"] = _text(given.pop(own)[0])
    if TALK[0] in given:
        pairs = zip(given.pop(TALK[0]), given.pop(TALK[1], []), strict=False)
        raw["conversations"] = [{"from": _text(role), "value": _text(value)} for role, value in pairs]
    else:
        captions = [given.pop(name) for name in CAPTIONS if name in given]
        raw["caption"] = _text(captions[0][0]) if captions else None
    for name in IMAGES:
        files = enumerate(given.pop(name, []), 1)
        raw[name] = [StoredImage(f"{where}[{n}]", partial(_stream, data)) for n, data in files]
    return raw | {name: [_plain(value) for value in values] for name, values in given.items()}


def _plain(value: object) -> object:
    """Return what is text as such, to be seen for what it is by those who look for images; other bytes as they are."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def _text(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _stream(data: bytes) -> BinaryIO:
    return io.BytesIO(data)
