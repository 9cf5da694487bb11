"""A record, what can be wrong with one, and the interface that every kind of source has.

    {"id": "42", "image": "a.jpg" | ["a.jpg", "b.jpg"] | absent,
     "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A bus."}]}

is how LLaVA writes a record, and what the other sources bring theirs into; `"caption": "A bus."` instead of
conversations is a single answer.
"""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from threading import Lock
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from eve_jax.data.images import ImageFile
from eve_jax.errors import UserError

Role = Literal["system", "human", "gpt"]
ROLES: dict[str, Role] = {"system": "system", "human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}
CAPTIONS = ("caption", "text")  # fields that stand for a single answer where there are no conversations
T = TypeVar("T")


class BadRecord(UserError):
    """A record that cannot be used: `reason`, and where known `where` (file:line), `id` and `image` (path)."""

    def __init__(self, reason: str, where: str = "", id: str = "", image: str = "") -> None:
        label = " ".join(part for part in (where, f"(record {id})" if id else "") if part)
        super().__init__(f"{label}: {reason}" if label else reason)
        self.reason, self.where, self.id, self.image = reason, where, id, image


class Turn(NamedTuple):
    """One turn of a conversation; a human turn's `text` may hold `<image>` markers (see `eve_jax.data.markers`)."""

    role: Role
    text: str


class Record(NamedTuple):
    """One conversation with its images; `where` says in which file and at which place (from 1) it stands."""

    id: str
    images: tuple[ImageFile, ...]
    turns: tuple[Turn, ...]
    where: str


class Source(Protocol):
    """Records by their number from 0; every method may be called by several threads at once."""

    @property
    def tables(self) -> Path | None:
        """The folder where lengths tables lie with the records, of a source that has one."""

    def __len__(self) -> int: ...

    def where(self, index: int) -> str:
        """The place of a record, for people."""

    def record(self, index: int) -> Record:
        """A record. Raises `BadRecord` when it is broken; its images are opened later."""

    def fingerprint(self) -> str:
        """A text that differs whenever the records (not image files beside them) do."""


def parse_record(raw: object, where: str, images_dir: str, fallback_id: str) -> Record:
    """The LLaVA record that the JSON value `raw` describes, its image paths relative to `images_dir`.

    Raises `BadRecord`, which names what is wrong.
    """
    return make_record(raw, where, fallback_id, lambda found: _image_paths(found, images_dir))


def make_record(raw: object, where: str, fallback_id: str, images: Callable[[dict], tuple[ImageFile, ...]]) -> Record:
    """The record that the JSON value `raw` describes, with the pictures that `images` finds for it, or `BadRecord`."""
    id = fallback_id
    try:
        if not isinstance(raw, dict):
            raise BadRecord(f"not an object but {type(raw).__name__}")
        if raw.get("id") is not None:
            id = text_of(str(raw["id"]), "id")
        return Record(id, images(raw), _turns(raw), where)
    except BadRecord as e:
        raise BadRecord(e.reason, where, id, e.image) from None


def _image_paths(raw: dict, folder: str) -> tuple[ImageFile, ...]:
    value = raw.get("images") if raw.get("image") is None else raw["image"]
    if value is None or value == "":
        return ()
    paths = value if isinstance(value, list) else [value]
    if not all(isinstance(path, str) and path and "\0" not in path for path in paths):
        raise BadRecord("image is neither a path nor a list of paths")
    return tuple(os.path.join(folder, text_of(path, "an image path")) for path in paths)


def text_of(value: object, what: str) -> str:
    """`value` if it is a text that can be written as UTF-8; `BadRecord` if not."""
    if not isinstance(value, str):
        raise BadRecord(f"{what} is not a text but {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRecord(f"{what} is not valid UTF-8") from None
    return value


def _turns(raw: dict) -> tuple[Turn, ...]:
    turns = raw.get("conversations")
    if turns is None:
        for field in CAPTIONS:
            if raw.get(field) is not None:
                return (Turn("gpt", text_of(raw[field], field)),)
    if not isinstance(turns, list) or not turns:
        raise BadRecord("no conversations" if not turns else "conversations is not a list")
    return tuple(_turn(turn, number) for number, turn in enumerate(turns, 1))


def _turn(raw: object, number: int) -> Turn:
    if not isinstance(raw, dict):
        raise BadRecord(f"turn {number} is not an object")
    role = ROLES.get(str(raw.get("from")))
    if role is None:
        raise BadRecord(f"turn {number} is from {raw.get('from')!r}, not one of human, gpt, system")
    return Turn(role, text_of(raw.get("value"), f"the value of turn {number}"))


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
