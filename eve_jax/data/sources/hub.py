"""Parquet files of a data set of the Hugging Face hub, read where they are.

    hf:ORG/NAME[@REVISION][:CONFIG[:SPLIT]]

Of each file the footer is read, then by range what is asked for of a row group; files in the cache are read there.
Which files are those of a split, the front matter of the data set's card says (`configs`), or their names as the hub
itself reads them: CONFIG/train-00000-of-00002.parquet, data/test-..., CONFIG/train/0000.parquet.
"""

import io
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.parquet as pq

from eve_jax.data.record import Source, digest_of
from eve_jax.data.sources.hub_files import DataSet, Split, splits_of
from eve_jax.data.sources.parquet import ParquetRecords
from eve_jax.errors import Unreachable, UserError, shorten
from eve_jax.process.hub import CARD, Snapshot
from eve_jax.process.hub_errors import is_offline, reason

FOOTERS = 16  # read at a time
PIECE = re.compile(r"(.*)-\d+-of-(\d+)\.parquet")


def open_data_set(name: str, images_dir: str | Path = "", texts: bool = True) -> list[Source]:
    """Return the Parquet files that `name` stands for, in the order of their names; `texts` as for `ParquetRecords`.

    Raise UserError when the hub does not give them, and for a config or a split that the data set has not.
    """
    data_set = DataSet.of(name)
    snapshot = data_set.snapshot()
    sizes = _sizes(snapshot)
    splits = splits_of(sizes, snapshot.folder / CARD)
    if not splits and not is_offline():
        raise UserError(
            f"{name}: the data set has no Parquet files, which alone are read from the hub: download it and name the "
            f"folder, or try hf:{data_set.id}@refs/convert/parquet"
        )
    split = _chosen(data_set, splits) if splits else Split("", "", ())
    if is_offline() and (lacking := _lacking(split.files)):
        raise UserError(
            f"{name}: HF_HUB_OFFLINE is set, and the cache does not have {lacking}; where there is a network, "
            f"`hf download {data_set.id} --repo-type=dataset` fetches all"
        )
    others = [path for path in split.files if not path.endswith(".parquet")]
    if others or not split.files:
        what = f"is in {shorten(', '.join(others), 100)}" if others else "has no files"
        raise UserError(
            f"{name}: split {split.name} of {split.config} {what}; only Parquet files are read from the hub: download "
            f"them and name the folder, or try hf:{data_set.id}@refs/convert/parquet"
        )
    with ThreadPoolExecutor(FOOTERS) as pool:
        return list(pool.map(lambda path: HubParquet(snapshot, path, sizes[path], images_dir, texts), split.files))


def _lacking(files: Sequence[str]) -> str:
    """Return what is missing of the files of a split, by the count in their names (-00000-of-00002), "" for nothing."""
    for found in filter(None, map(PIECE.fullmatch, files)):
        start, count = found[1], found[2]
        every = (f"{start}-{number:0{len(count)}}-of-{count}.parquet" for number in range(int(count)))
        if lacking := next((file for file in every if file not in files), ""):
            return lacking
    return "" if files else "its Parquet files"


def _chosen(data_set: DataSet, splits: list[Split]) -> Split:
    configs = list(dict.fromkeys(split.config for split in splits))
    config = data_set.config
    if not config:
        first = [split.config for split in splits if split.first]
        config = (first or [c for c in configs if c == "default" or len(configs) == 1] or [""])[0]
    own = {split.name: split for split in splits if split.config == config}
    if not own:
        which = f"no config {data_set.config!r}" if data_set.config else "several configs"
        listed = shorten(", ".join(configs), 200)
        raise UserError(f"{data_set.given}: the data set has {which}; name one, hf:{data_set.id}:CONFIG, of {listed}")
    name = data_set.split or ("train" if "train" in own or len(own) > 1 else next(iter(own)))
    if name not in own:
        raise UserError(
            f"{data_set.given}: config {config} has no split {name}; name one, hf:{data_set.id}:{config}:SPLIT, of "
            f"{shorten(', '.join(own), 200)}"
        )
    return own[name]


@cache  # of a commit, which does not change
def _sizes(snapshot: Snapshot) -> Mapping[str, int]:
    """Return the files of a data set with their bytes; without network, those in the cache."""
    if is_offline():
        files = [path for path in snapshot.folder.rglob("*") if path.is_file()]
        return {path.relative_to(snapshot.folder).as_posix(): path.stat().st_size for path in files}
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    try:
        tree = HfApi().list_repo_tree(snapshot.id, recursive=True, revision=snapshot.commit, repo_type="dataset")
        return {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}
    except Exception as error:  # the hub's client raises many kinds, of itself and of its HTTP library
        raise Unreachable(f"{snapshot.name}: its files cannot be listed: {reason(error)}") from error


class HubParquet(ParquetRecords):
    """The records of a Parquet file `file` of `size` bytes on the hub, see `ParquetRecords`.

    `path` is its name there, for messages. Raises Unreachable when the hub does not give what is asked for.
    """

    def __init__(
        self, snapshot: Snapshot, file: str, size: int, images_dir: str | Path = "", texts: bool = True
    ) -> None:
        self._snapshot, self._name, self._size = snapshot, file, size
        super().__init__(PurePosixPath(snapshot.name, file).as_posix(), images_dir, texts)

    def _check_there(self) -> None:
        """Leave it to the reading of the footer."""

    def _open(self, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
        return pq.ParquetFile(
            self._binary(), metadata=metadata, page_checksum_verification=True, pre_buffer=not self._kept().is_file()
        )

    def _kept(self) -> Path:
        return self._snapshot.folder / self._name

    def _binary(self) -> Any:
        return self._kept().open("rb") if self._kept().is_file() else RangeFile(self._snapshot, self._name, self._size)

    def fingerprint(self) -> str:
        """Return a hash of the file's name with its commit, of its footer and size, and the path of images."""
        parts = (str(self.path), self.images_dir, str(self._size), self._footer())
        return digest_of((*parts, *filter(None, [self.form])))


class RangeFile(io.RawIOBase):
    """A file of a data set on the hub, of `size` bytes: what is read of it is asked for by range.

    Raises Unreachable after several attempts.
    """

    def __init__(self, snapshot: Snapshot, file: str, size: int) -> None:
        from huggingface_hub import hf_hub_url

        self.name = f"{snapshot.name}/{file}"
        self._url = hf_hub_url(snapshot.id, file, repo_type="dataset", revision=snapshot.commit)
        self._size, self._at = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def size(self) -> int:
        """Return the file's bytes."""
        return self._size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes, `size` of them or all that are left."""
        left = max(self._size - self._at, 0)
        size = left if size is None or size < 0 else min(size, left)
        data = self._range(self._at, self._at + size) if size else b""
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _range(self, start: int, end: int) -> bytes:
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

        if is_offline():
            raise Unreachable(f"{self.name}: HF_HUB_OFFLINE is set, and the cache does not have it")
        try:
            headers = {**build_hf_headers(), "Range": f"bytes={start}-{end - 1}"}
            answer = http_backoff("GET", self._url, headers=headers, follow_redirects=True)
            hf_raise_for_status(answer)
        except Exception as error:  # the hub's client raises many kinds, of itself and of its HTTP library
            raise Unreachable(f"{self.name}: cannot be read from the hub: {reason(error)}") from error
        data = answer.content
        if answer.status_code == 200 and len(data) == self._size:  # of a server without ranges
            data = data[start:end]
        if len(data) != end - start:
            raise Unreachable(f"{self.name}: the hub gave {len(data)} bytes for {end - start}")
        return data
