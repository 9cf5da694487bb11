"""WebDataset tar files: members of one key make a record (`key.jpg` with `key.json` or `key.txt`), in any order.

`key.json` holds a record's fields, `key.txt` is a caption; any number of images, in the order in which the JSON names
them (`member_names`), else in that in which they lie in the file. How names become keys is in `tar_keys`.
"""

import os
import tarfile
from array import array
from collections.abc import Sequence
from functools import cached_property, partial
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from eve_jax.data.image_file import StoredImage
from eve_jax.data.record import BOM, BadRecord, Fields, Record, UnreadMedia, digest_of, is_empty
from eve_jax.data.sources.fields import Place, read_record
from eve_jax.data.sources.forms import CAPTIONS, TEXT_FIELDS
from eve_jax.data.sources.json_files import parse_json
from eve_jax.data.sources.media import HEAD, SCANS, kind_of_bytes, media_kind, suffix_of
from eve_jax.data.sources.member_names import stems
from eve_jax.data.sources.tar_keys import (
    HIDDEN,
    IMAGE,
    JSON,
    MEDIA,
    OTHER,
    TEXT,
    Member,
    grouped,
    lists_of_records,
    parse_name,
    plain_path,
)
from eve_jax.errors import Field, FieldError, UserError, shorten, warn
from eve_jax.process.places import shown

BEGIN = 64  # first bytes of a .json that tell whether it holds an array


class TarFile:
    """The records of a tar file that is not compressed, see `base.Source`; members are found by their offsets."""

    tables: Path | None = None
    form = ""  # of `eve_jax.data.sources.forms`, that alone is read
    texts = True  # False also reads records without texts

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FieldError(f"{path}: no such records file; set ", Field("data.records"), " to files that exist")
        try:
            self._file = os.open(path, os.O_RDONLY)  # never closed: shared by the threads through os.pread
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror})") from None
        found, self._complete = _members(self.path, self._file)
        _check_lists(self.path, self._file, found)
        members, first, keys = array("q"), array("q", [0]), bytearray()
        key_ends = array("q", [0])
        rests: dict[str, int] = {}  # what is behind the key
        for key, own in grouped(found, str(self.path)):
            if all(member.kind == OTHER for member in own):
                for member in own:
                    _refuse_media(self.path, self._file, member)
                continue
            keys += key.encode("utf-8", "surrogateescape")
            key_ends.append(len(keys))
            for member in own:
                rest = member.stem[len(key) :] + (f".{member.ending}" if member.ending else "")
                members.extend((member.kind, rests.setdefault(rest, len(rests)), member.offset, member.size))
            first.append(len(members) // 4)
        self._members = np.frombuffer(members, np.int64).reshape(-1, 4)  # kind, rest, offset, bytes
        self._rests = list(rests)
        self._endings = [rest.rpartition(".")[2] for rest in rests]
        self._first, self._key_ends = np.frombuffer(first, np.int64), np.frombuffer(key_ends, np.int64)
        self._keys = bytes(keys)

    def __len__(self) -> int:
        return len(self._first) - 1

    def _key(self, index: int) -> str:
        return self._keys[self._key_ends[index] : self._key_ends[index + 1]].decode("utf-8", "replace")

    def where(self, index: int) -> str:
        """file.tar#key."""
        return f"{self.path}#{shorten(self._key(index), 1000)}"

    def read(self, index: int) -> tuple[Record, Fields]:
        """Return the record and which members and JSON fields were used. Raises `BadRecord`."""
        where, key = self.where(index), self._key(index)
        members = self._members[self._first[index] : self._first[index + 1]].tolist()
        if any(offset + size > self._complete for _, _, offset, size in members):
            raise BadRecord("the tar file ends within it", where, key)
        media = next(
            (self._endings[ending] for kind, ending, offset, _ in members if self._unread(kind, ending, offset)), None
        )
        if media is None and not any(kind == IMAGE for kind, *_ in members):
            media = next(
                (suffix for _, rest, *_ in members if (suffix := suffix_of(f"_{self._rests[rest]}")) in SCANS), None
            )
        if media is not None:
            name = f".{media}" if media else "without an ending"
            reason = f"the member {name} is not an image format that is read; convert, rename or remove such members"
            raise UnreadMedia(f"{reason} (see docs/data.md)", where, key)
        try:
            raw, own = self._texts(members, where)
        except BadRecord as e:
            raise BadRecord(e.reason, where, e.id or key) from None
        images = [
            StoredImage(f"{where}[{number}]", partial(self._stream, offset, size), file_name=key + self._rests[rest])
            for number, (_, rest, offset, size) in enumerate((m for m in members if m[0] == IMAGE), 1)
        ]
        place = Place(where, key, owner=partial(self._owner, key), form=self.form, texts=self.texts)
        record, fields = read_record(raw, place, images)
        shown = [f".{ending}" if ending else "(no ending)" for ending in self._endings]
        names = {kind: [shown[m[1]] for m in members if m[0] == kind] for kind in (IMAGE, TEXT, OTHER)}
        used = (*names[IMAGE], *names[TEXT], *(name for name in fields.used if name != own))
        return record, Fields(tuple(dict.fromkeys(used)), (*dict.fromkeys(names[OTHER]), *fields.unused))

    def _owner(self, own: str, name: str) -> str:
        """Return the key of another record than `own` that an image called `name` belongs to, "" for none."""
        path = plain_path(name.replace("\\", "/"))
        paths = (plain_path(f"{own.rpartition('/')[0]}/{path}"), path)
        found = next((key for one in paths for key in stems(one) if key in self._known), own)
        return "" if found == own else found

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(map(self._key, range(len(self))))

    def _unread(self, kind: int, ending: int, offset: int) -> bool:
        """Whether a member holds an image, a video or audio, by its ending or its first bytes, that is not read."""
        if kind != OTHER:
            return kind == MEDIA
        return bool(media_kind(self._endings[ending], os.pread(self._file, HEAD, offset), bool, False))

    def _texts(self, members: list[list[int]], where: str) -> tuple[Any, str]:
        """Return the fields of the record's .json, and the one of them that its .txt became ("" for none).

        Raises `BadRecord` where texts differ.
        """
        raw: dict[str, Any] = {}
        captions: list[str] = []
        for kind, _, offset, size in members:
            data = os.pread(self._file, size, offset).removeprefix(BOM) if kind in (JSON, TEXT) else b""
            if kind == JSON:
                found = parse_json(data, where)
                if not isinstance(found, dict):
                    return found, ""
                twice = [name for name, value in found.items() if raw.get(name, value) != value]
                if twice:
                    raise BadRecord(f"two .json files of one key with different values of {twice[0]}")
                raw |= {name: value for name, value in found.items() if value is not None}
            elif kind == TEXT:
                captions.append(data.decode("utf-8", "surrogateescape").strip())
        if not captions:
            return raw, ""
        if len(set(captions)) > 1:
            raise BadRecord("two caption files of one key with different texts")
        others = [name for name in TEXT_FIELDS if not is_empty(raw.get(name))]
        different = (name for name in others if name not in CAPTIONS or str(raw[name]).strip() != captions[0])
        other = next(different, None)
        if other is not None:
            raise BadRecord(f"its .txt and the {other} of its .json are different texts; keep one of them")
        return ({"caption": captions[0], **raw}, "" if "caption" in raw else "caption")

    def _stream(self, offset: int, size: int) -> BinaryIO:
        return BufferedReader(_Window(self._file, offset, size), 1 << 14)

    def fingerprint(self) -> str:
        """Hash of the members' names, places and sizes, the file's name and when it was changed."""
        parts: list[str | bytes] = [
            shown(str(self.path)),
            str(os.fstat(self._file).st_mtime_ns),
            self._keys,
            self._members.tobytes(),
            *self._rests,
            *filter(None, [self.form]),
        ]
        return digest_of(parts)


def _members(path: Path, file: int) -> tuple[list[Member], int]:
    """Return every member that can belong to a record, and the byte up to which the tar file is known to be complete.

    Raises `UserError` where it is damaged, or holds records' members that are not ordinary files.
    """
    members: list[Member] = []
    try:
        with tarfile.open(path, "r:") as tar:
            while (info := _next(tar)) is not None:
                member = parse_name(info.name, info.offset_data, info.size)
                if info.isreg() and not info.issparse():
                    if member.kind == HIDDEN:
                        _refuse_media(path, file, member)
                    else:
                        members.append(member)
                elif not info.isdir() and member.kind not in (OTHER, HIDDEN):
                    what = "a link" if info.issym() or info.islnk() else "no ordinary file"
                    remedy = "make the tar file with --dereference --hard-dereference and without --sparse"
                    raise UserError(f"{path}: {shorten(repr(info.name))} is {what}, and would be left out; {remedy}")
            end = tar.offset
    except tarfile.TarError as e:
        raise UserError(f"{path}: not a tar file that can be read in place ({e}); is it compressed?") from None
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from None
    except (ValueError, OverflowError) as e:  # numbers in a header that no file has
        raise UserError(f"{path}: damaged ({shorten(str(e))}); make the tar file again") from None
    if _has_end_mark(path, file, end):
        return members, end
    warn(f"{path}: has no end-of-archive mark; it may be cut off, and records incomplete or missing")
    return members, members[-1].offset if members else end


def _refuse_media(path: Path, file: int, member: Member) -> None:
    """Raise `UserError` for a member of no record that holds an image, a video or audio by its first bytes."""
    if kind := kind_of_bytes(os.pread(file, min(HEAD, member.size), member.offset)):
        raise UserError(
            f"{path}: {member.name} holds {'an image' if kind == 'image' else kind}, but belongs to no record (see "
            "docs/data.md); give it the name of its text with the ending of its format, or remove it"
        )


def _check_lists(path: Path, file: int, members: Sequence[Member]) -> None:
    """Raise `UserError` for a tar file whose only texts are lists of records; warn of such lists next to others."""
    lists, others = lists_of_records(members, lambda member: os.pread(file, min(BEGIN, member.size), member.offset))
    if not lists:
        return
    about = f"{path}: {lists[0].name} is a list of records, but a tar file has a text for each (key.json, key.txt)"
    if not others:
        raise FieldError(
            f"{about}; unpack it and set ",
            Field("data.records"),
            f" to {lists[0].name} and ",
            Field("data.images"),
            " to the folder that its image paths start from",
        )
    warn(f"{about}; it is not read")


def _has_end_mark(path: Path, file: int, offset: int) -> bool:
    """Whether the members end at `offset` with an end-of-archive mark, zeros up to the end of the file.

    False for a file that is cut off there. Raises `UserError` where something else follows.
    """
    block = os.pread(file, tarfile.BLOCKSIZE, offset)
    if len(block) < tarfile.BLOCKSIZE:
        return False
    if any(block):
        raise UserError(f"{path}: damaged at byte {offset}, where a member should begin; make the tar file again")
    while block:
        if block.count(0) < len(block):
            remedy = "of tar files that were put together with cat only the first is read: name them one by one"
            raise UserError(f"{path}: continues after its end-of-archive mark at byte {offset}; {remedy}")
        offset += len(block)
        block = os.pread(file, 1 << 20, offset)
    return True


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    tar.members = []  # type: ignore[attr-defined]  # or it keeps a description of every member
    try:
        return tar.next()
    except tarfile.ReadError:  # the file is cut off: what is whole can be used
        return None


class _Window(RawIOBase):
    """Part of a file as a file of its own, which shares nothing with others but the descriptor."""

    def __init__(self, file: int, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("seek before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        wanted = max(min(len(buffer), self._size - self._at), 0)
        data = os.pread(self._file, wanted, self._start + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
