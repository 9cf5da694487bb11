"""A record, what can be wrong with one, and the interface that every kind of source has.

How the fields of a record are read, whatever the source, is in `fields`.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from eve_jax.data.image_file import ImageFile
from eve_jax.errors import UserError, shorten

Role = Literal["system", "human", "gpt"]
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "human": "human",
    "user": "human",
    "gpt": "gpt",
    "assistant": "gpt",
    "bot": "gpt",
    "chatgpt": "gpt",
    "model": "gpt",
}
# What the web said of the image, and what experts (OCR, detectors, tags) found in it: docs/curation.md.
KEPT_FIELDS = ("alt", "experts")
NOTHING_KEPT: Mapping[str, Any] = {}  # a dict, which other processes can be sent
BOM = b"\xef\xbb\xbf"  # UTF-8 byte order mark, which some editors put before a text
T = TypeVar("T")


class BadRecord(UserError):
    """A record that cannot be used: `reason`, and where known `where` (file:line), `id` and `image` (path).

    Long values are shortened.
    """

    def __init__(self, reason: str, where: str = "", id: str = "", image: str = "") -> None:
        self.reason, self.where, self.id, self.image = shorten(reason), where, shorten(id), shorten(image)
        label = " ".join(part for part in (where, f"(record {self.id})" if id else "") if part)
        super().__init__(f"{label}: {self.reason}" if label else self.reason)


class UnknownForm(BadRecord):
    """A record without any of the fields that hold texts."""


class UnreadMedia(BadRecord):
    """A record with a field that looks like an image, a video or audio and that is not read.

    Measuring and converting stop at the first one, so that a model is never trained without what the field holds.
    """


class Turn(NamedTuple):
    """One turn of a conversation; a human turn's `text` may hold `<image>` markers (see `eve_jax.data.markers`)."""

    role: Role
    text: str


class Record(NamedTuple):
    """One conversation with its images; `where` says in which file and at which place (from 1) it stands.

    kept: fields of KEPT_FIELDS that it has; they go with it from source to source, and nothing trains on them.
    """

    id: str
    images: tuple[ImageFile, ...]
    turns: tuple[Turn, ...]
    where: str
    kept: Mapping[str, Any] = NOTHING_KEPT


class Fields(NamedTuple):
    """Names of the fields of a record that hold something: those it was made of, and those that are not used.

    doubts: what it has that may stand for an image and does not.
    """

    used: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


class Source(Protocol):
    """Records by their number from 0; every method may be called by several threads at once."""

    @property
    def path(self) -> Path | None:
        """The file or folder that holds the records, None for those that a class of the user's own makes."""

    @property
    def tables(self) -> Path | None:
        """The folder where lengths tables lie with the records, of a source that has one."""

    def __len__(self) -> int: ...

    def where(self, index: int) -> str:
        """The place of a record, for people."""

    def read(self, index: int) -> tuple[Record, Fields]:
        """Return a record and which of its fields were used. Raises `BadRecord` when it is broken.

        Its images are opened later.
        """

    def fingerprint(self) -> str:
        """A text that differs whenever the records (not image files next to them) do."""


@runtime_checkable
class ReadByFields(Source, Protocol):
    """A source whose records are read by the names of their fields.

    form: the only form of texts, "" for any. texts: False also reads records without texts, as images alone.
    """

    form: str
    texts: bool


def text_of(value: object, what: str) -> str:
    """Return `value` if it is a text that can be written as UTF-8; raise `BadRecord` if not."""
    if not isinstance(value, str):
        raise BadRecord(f"{what} is not a text but {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRecord(f"{what} is not valid UTF-8") from None
    return value


def is_empty(value: object, depth: int = 4) -> bool:
    """Whether a field holds nothing: null, NaN, "", no bytes, [], {}, or a list or an object of nothing but those.

    Looked at to `depth` levels; what is nested deeper counts as something.
    """
    if isinstance(value, list | tuple | dict):
        inner = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(is_empty(item, depth - 1) for item in inner)
    return (
        value is None or (isinstance(value, str | bytes) and not value) or (isinstance(value, float) and value != value)
    )


class Recent(Generic[T]):
    """The last `size` results of `make`, kept by key; safe for threads, which wait for one another."""

    def __init__(self, make: Callable[..., T], size: int) -> None:
        self._make, self._size = make, size
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, T] = OrderedDict()

    def __call__(self, *key: Any) -> T:
        with self._lock:
            if key not in self._kept:
                while len(self._kept) >= self._size:
                    self._kept.popitem(last=False)
                self._kept[key] = self._make(*key)
            self._kept.move_to_end(key)
            return self._kept[key]


def digest_of(parts: Iterable[str | bytes]) -> str:
    """A short hash of texts and bytes in order."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
