"""Objects of buckets, `s3://BUCKET/KEY` and `gs://BUCKET/KEY`, read and written whole through TensorStore.

Credentials are found as the vendors' own tools find them; AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL and
TENSORSTORE_GCS_HTTP_URL name another server.
"""

import errno
import functools
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eve_jax.errors import UserError, shorten
from eve_jax.process import credentials
from eve_jax.process.host_memory import machine_memory
from eve_jax.process.places import is_name
from eve_jax.process.room import Room

DRIVERS = {"s3": "s3", "gs": "gcs"}
NONE_YET = b"\x02"  # TensorStore's generation of an object that is not there
ENDPOINTS = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "gs": ("TENSORSTORE_GCS_HTTP_URL",)}
UNMET = "FAILED_PRECONDITION"
_NO_GENERATION = (b"", b"\x00" + bytes(8))  # a server's that tells none
RETRIES = {"max_retries": 5, "initial_delay": "250ms", "max_delay": "4s"}
PATIENCE, SLOWEST = 60.0, 250_000  # seconds that a request may take, and bytes a second on top of it
LISTING = 5.0  # seconds after which a list that is on its way counts as one of some objects
CHUNK = 1 << 26  # bytes of a large object that are read at a time
FIRST = 1 << 22  # bytes of an object of unknown size that are read first
LARGEST = 5 << 30  # bytes of an object that is written at once
TRANSFERS = 16  # objects that are read or written at a time
_WHY = {
    "PERMISSION_DENIED": "access denied",
    "UNAUTHENTICATED": "no valid credentials",
    "Failed to get credentials": "no valid credentials",
    "NOT_FOUND": "no such bucket or object",
    "RESOURCE_EXHAUSTED": "its quota is used up",
    "CURL error": "it cannot be reached",
}
_DENIED = ("PERMISSION_DENIED", "UNAUTHENTICATED")
_search = credentials.Search()
_SHOWN = re.compile(r"\(?\s*\[http_response.*|\s*\[[\w-]+='.*", re.DOTALL)


class Refused(OSError):
    """A bucket that does not do what it is asked for; strerror says why, filename is the URL."""

    def __init__(self, url: str, why: str):
        super().__init__(errno.EREMOTEIO, why, url)


class NoAnswer(Refused):
    """A bucket that does not answer in time."""


class TakenOver(Refused):
    """A folder in a bucket that another run writes by now."""


@functools.cache
def _store(scheme: str, bucket: str, _pid: int, endpoint: str) -> Any:
    return _tensorstore().KvStore.open(_spec(scheme, bucket, endpoint)).result(timeout=PATIENCE)


def _spec(scheme: str, bucket: str, endpoint: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "driver": DRIVERS[scheme],
        "bucket": bucket,
        "context": {f"{DRIVERS[scheme]}_request_retries": RETRIES},
    }
    if scheme == "s3":
        spec["aws_credentials"] = credentials.aws()
        if endpoint:
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
            spec |= {"endpoint": endpoint.rstrip("/"), "aws_region": region}
    return spec


def folder_spec(url: str) -> dict[str, Any]:
    """Return TensorStore's description of a store whose keys are the names of objects below the folder `url`."""
    scheme, _, place = url.partition("://")
    bucket, _, key = place.partition("/")
    return _spec(scheme, bucket, _endpoint(scheme)) | {"path": f"{key}/"}


def _endpoint(scheme: str) -> str:
    return next(filter(None, map(os.environ.get, ENDPOINTS[scheme])), "")


def _tensorstore() -> Any:
    import tensorstore  # here, since it takes a moment and most runs have no bucket

    return tensorstore


@contextmanager
def _asking(url: str) -> Iterator[tuple[Any, str]]:
    """Yield the store and the key of `url` to a block that asks the store for something. Raises `Refused`."""
    scheme, _, place = url.partition("://")
    bucket, _, key = place.partition("/")
    store = (scheme, bucket, os.getpid(), _endpoint(scheme))
    with refusals(url), _search.first(*store):
        yield _store(*store), key


@contextmanager
def refusals(url: str) -> Iterator[None]:
    """Raise `Refused` in the block in place of TensorStore's errors."""
    try:
        yield
    except TimeoutError:
        raise NoAnswer(url, "it does not answer, or too slowly") from None
    except (ValueError, RuntimeError, NotImplementedError) as error:
        text = str(error)
        kind = next((kind for kind in _WHY if kind in text), "")
        if kind == "PERMISSION_DENIED" and re.search("quota", text, re.IGNORECASE):
            kind = "RESOURCE_EXHAUSTED"
        said = shorten(" ".join(_SHOWN.sub("", text).split()), 200)
        lacking = _search.lacking(url.partition("://")[0]) if kind in _DENIED else ""
        raise Refused(
            url, f"{_WHY[kind]}; {lacking}" if lacking else f"{_WHY[kind]} ({said})" if kind else said
        ) from error


def read(url: str, known: bytes = b"", part: slice | None = None) -> tuple[bytes | None, bytes]:
    """Return the object at `url`, or its bytes `part`, and its generation; (None, b"") when there is none.

    An object as a whole is one of at most some MB: see `download`. known: a generation; while it is still that one,
    (b"", known) is returned and nothing is read. Raises Refused.
    """
    size = FIRST if part is None else CHUNK if part.stop is None else part.stop - part.start
    with _asking(url) as (store, key):
        reading = store.read(key, if_not_equal=known or None, byte_range=part)
        found = reading.result(timeout=PATIENCE + size / SLOWEST)
    if found.state == "missing":
        return None, b""
    generation = bytes(found.stamp.generation)
    return bytes(found.value), b"" if generation in _NO_GENERATION else generation


def read_whole(url: str) -> bytes:
    """Return the object at `url`. Raises Refused, FileNotFoundError when there is none."""
    data, _ = read(url)
    if data is None:
        raise FileNotFoundError(errno.ENOENT, "no such object", url)
    return data


def exists(url: str) -> bool:
    """Return whether there is an object at `url`. Raises Refused."""
    return read(url, part=slice(0, 0))[0] is not None


def write(url: str, data: bytes, instead_of: bytes | None = None) -> bytes:
    """Write the object at `url` and return its generation; of another one that was there, nothing is left.

    instead_of: the generation that it must have, NONE_YET for none; b"" is returned when it has another one, or when
    an answer was lost. Raises Refused; the object is then written, or not.
    """
    try:
        with _asking(url) as (store, key):
            done = store.write(key, data, if_equal=instead_of).result(timeout=PATIENCE + len(data) / SLOWEST)
    except Refused as error:
        if instead_of is None or UNMET not in str(error):
            raise
        return b""
    return bytes(done.generation)


def remove(url: str, known: bytes | None = None) -> None:
    """Remove the object at `url`, if it has the generation `known` where one is given. Raises Refused."""
    try:
        with _asking(url) as (store, key):
            store.write(key, None, if_equal=known).result(timeout=PATIENCE)
    except Refused as error:
        if known is None or UNMET not in str(error):
            raise


def remove_below(url: str) -> None:
    """Remove all objects below the folder `url`. Raises Refused."""
    together(remove, [f"{url}/{name}" for name in names_below(url)])


def names_below(url: str) -> list[str]:
    """Return the names of all objects below the folder `url`, relative to it, sorted. Raises Refused, UserError."""
    with _asking(url.rstrip("/")) as (store, key):
        found, below = _listing(store, key)
        keys = [name.decode("utf-8", "replace") for name in found.result(PATIENCE * 5)]
    if url.startswith("gs:"):  # of which TensorStore takes an error in place of a list for an empty list
        exists(f"{url.rstrip('/')}/.listed")
    names = sorted(name.removeprefix(below) for name in keys if name.startswith(below))  # not all servers know ranges
    names = [name for name in names if name and not name.endswith("/")]  # which consoles make for empty folders
    if wrong := next((name for name in names if not all(map(is_name, name.split("/")))), ""):
        raise UserError(f"{url}: an object is called {wrong!r}, which no file can be; remove or rename it")
    return names


def any_below(url: str) -> bool:
    """Return whether an object is below the folder `url`; True, too, where listing takes long. Raises Refused."""
    with _asking(url.rstrip("/")) as (store, key):
        found, below = _listing(store, key)
        try:
            return any(name.decode("utf-8", "replace").startswith(below) for name in found.result(LISTING))
        except TimeoutError:
            found.cancel()
            return True


def _listing(store: Any, key: str) -> tuple[Any, str]:
    """The names below the folder `key` that are on their way, and how they begin."""
    below, ranges = f"{key}/" if key else "", _tensorstore().KvStore.KeyRange
    return store.list(ranges(below, f"{key}0") if key else ranges()), below


def download(url: str, path: Path) -> bytes:
    """Write the object at `url` into the file `path`, in pieces, and return its generation. Raises OSError."""
    size = min(FIRST, CHUNK)
    with path.open("wb") as file:
        try:
            piece, generation = read(url, part=slice(0, size))
        except Refused as error:
            if "OUT_OF_RANGE" not in str(error):
                raise
            piece, generation = read(url)
        if piece is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", url)
        file.write(piece)
        place = len(piece)
        while len(piece) == size:
            size = CHUNK
            try:
                piece, now = read(url, part=slice(place, place + CHUNK))
            except Refused as error:
                if "OUT_OF_RANGE" not in str(error):
                    raise
                piece, now = _tail(url, place)
            if piece is None or now != generation:
                raise Refused(url, "it was changed while it was read")
            file.write(piece)
            place += len(piece)
    return generation


def _tail(url: str, place: int) -> tuple[bytes | None, bytes]:
    """What is left of an object from `place`, perhaps nothing."""
    try:
        return read(url, part=slice(place, None))
    except Refused as error:
        if "OUT_OF_RANGE" not in str(error):
            raise
        return b"", read(url, part=slice(0, 0))[1]


def upload(path: Path, url: str) -> bytes:
    """Write the file `path` to `url` and return its generation. Raises OSError."""
    with content(path, url) as data:
        return write(url, data)


@contextmanager
def content(path: Path, url: str) -> Iterator[bytes]:
    """Yield what is in the file `path`, which is to be written to `url` in the block.

    Files of several threads wait for each other where they have more than a quarter of the machine's memory together,
    twice: TensorStore makes a copy. Raises OSError, also for a file that is too large.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise Refused(url, f"{path.name} has more than {LARGEST >> 30} GiB, which no single request can write")
    with _sending().taken(2 * size):
        yield path.read_bytes()


@functools.cache
def _sending() -> Room:
    return Room(machine_memory() // 4)


def together(do: Any, items: Iterable[Any]) -> list[Any]:
    """Return what `do` gives for each of `items`, several at a time. Raises the first error, when all have ended."""
    with ThreadPoolExecutor(TRANSFERS) as pool:
        return list(pool.map(do, items))
