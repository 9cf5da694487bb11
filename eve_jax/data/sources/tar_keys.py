"""Which members of a tar file make one record.

WebDataset's key of a member is its name up to the first dot of its last part. Names may have dots of their own, too
(`page.1.png` with `page.1.txt`), so a name without its ending is a key of its own when a text and an image have it:

    page.1.png, page.1.txt, page.2.png, page.2.txt      records page.1 and page.2
    page.0.png, page.1.png, page.json                   record page, of two images
    page.jpg, page.seg.png, page.txt                    record page, of two images
    page.jpg, page.a.txt, page.b.txt                    record page, with two texts: a bad record where they differ

A name is compared without `./` before it. Members of one key may lie anywhere in the file; records come in the order of
their first members.
"""

import posixpath
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from eve_jax.data.record import BOM
from eve_jax.data.sources.media import IMAGE_SUFFIXES, OTHER_SUFFIXES, READ
from eve_jax.errors import UserError, amount, shorten, warn

JSON, TEXT, IMAGE, MEDIA, OTHER, HIDDEN = range(6)  # HIDDEN: belongs to no record
KINDS = {
    "json": JSON,
    **dict.fromkeys(("txt", "text", "caption"), TEXT),
    **dict.fromkeys(IMAGE_SUFFIXES | OTHER_SUFFIXES, MEDIA),
    **dict.fromkeys(READ, IMAGE),
}
LISTS = {"jsonl", "ndjson", "jsonlines", "parquet", "csv", "tsv", "arrow"}  # endings of files of many records
FEW = 8  # texts of a tar, which are looked into; with more it is one of records
MAC_FOLDER = "__MACOSX"  # what macOS puts next to files: no data


class Member(NamedTuple):
    """A file in a tar: its name up to the last dot, the ending behind it, its kind, first byte and number of bytes."""

    stem: str
    ending: str
    kind: int
    offset: int
    size: int

    @property
    def name(self) -> str:
        """The whole name, for people."""
        name = f"{self.stem}.{self.ending}" if self.ending else self.stem
        return shorten(name.encode("utf-8", "replace").decode())


def parse_name(name: str, offset: int, size: int) -> Member:
    """Return the member of that name; hidden files and those of macOS are of the kind HIDDEN."""
    folder, slash, base = plain_path(name).rpartition("/")
    stem, ending = base.rpartition(".")[::2] if "." in base else (base, "")
    hidden = base.startswith(".") or MAC_FOLDER in folder.split("/")
    return Member(folder + slash + stem, ending, HIDDEN if hidden else KINDS.get(ending.lower(), OTHER), offset, size)


def plain_path(name: str) -> str:
    """Return a name without `./`, `..` and `/` before it, as names are compared."""
    return posixpath.normpath(name).lstrip("/")


def lists_of_records(members: Sequence[Member], head: Callable[[Member], bytes]) -> tuple[list[Member], bool]:
    """Return the members that are lists of records, and whether any other member is a text.

    Such a list has the ending of a records file and a key of its own, or is one of few .json and holds an array by its
    first bytes (`head`).
    """
    texts = [member for member in members if member.kind in (JSON, TEXT)]
    arrays = [one for one in texts if one.kind == JSON and _is_array(head(one))] if len(texts) <= FEW else []
    keys = Counter(_first_dot(member.stem) for member in members)
    files = [one for one in members if one.ending.lower() in LISTS and keys[_first_dot(one.stem)] == 1]
    return [*files, *arrays], len(texts) > len(arrays)


def _is_array(head: bytes) -> bool:
    return head.removeprefix(BOM).lstrip().startswith(b"[")


def grouped(members: Iterable[Member], tar: str) -> Iterator[tuple[str, list[Member]]]:
    """Yield each key and its members, in the order of the first of them; all of kind OTHER, they make no record.

    Raises `UserError` for a name that is there twice, and for an image whose text has another key. Warns of others.
    """
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(_first_dot(member.stem), []).append(member)
    records: dict[str, list[Member]] = {}
    for key, group in groups.items():
        for own, member in zip(_keys(key, group), group, strict=True):
            records.setdefault(own, []).append(member)
    _check_apart(records, tar)
    for key, own_members in records.items():
        if len({(member.stem, member.ending) for member in own_members}) < len(own_members):
            names = [member.name for member in own_members]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{tar}: holds {twice} twice; records of one key are one, so give each its own name")
        yield key, own_members


def _check_apart(records: Mapping[str, list[Member]], tar: str) -> None:
    """Raise `UserError` where an image without a text and a text without an image seem to be one record."""
    texts: list[tuple[str, Member]] = []
    images: list[tuple[str, Member]] = []
    for key, members in records.items():
        text = next((member for member in members if member.kind in (JSON, TEXT)), None)
        image = next((member for member in members if member.kind in (IMAGE, MEDIA)), None)
        if text is not None and image is None:
            texts.append((key, text))
        elif image is not None and text is None:
            images.append((key, image))
    by_name = {_folded(key): text for key, text in texts}
    for key, lonely in images:
        other = by_name.get(_folded(key)) or by_name.get(_folded(key.rpartition("/")[0]))
        if other is not None:
            raise UserError(
                f"{tar}: {lonely.name} and {other.name} seem to be one record, but their keys differ; give both "
                "the same name up to the first dot, with the same folder and the same case"
            )
    if images and texts:
        warn(
            f"{tar}: {amount(len(images), 'image')} without a text of the same key (the first: {images[0][1].name}), "
            f"and {amount(len(texts), 'text')} without an image (the first: {texts[0][1].name})"
        )


def _folded(key: str) -> str:
    """Return what keys have in common that differ in folder, case or Unicode form alone."""
    return unicodedata.normalize("NFC", key.rpartition("/")[2]).casefold()


def _first_dot(stem: str) -> str:
    folder, slash, base = stem.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _keys(key: str, group: list[Member]) -> Iterator[str]:
    """Yield the key of each member of those that have the same name up to the first dot, which is `key`."""
    texts = {member.stem for member in group if member.kind in (JSON, TEXT)}
    seen = [member for member in group if member.kind in (IMAGE, MEDIA)]
    own = {start for member in seen for start in _starts(member.stem, key) if start in texts}
    rest = any(not any(start in own for start in _starts(member.stem, key)) for member in seen)
    for member in group:
        found = next((start for start in _starts(member.stem, key) if start in own), None)
        yield found or (key if rest or (member.kind == OTHER and member.stem not in texts) else member.stem)


def _starts(stem: str, key: str) -> Iterator[str]:
    """Yield `stem`, then what is left of it without its last part behind a dot, down to `key`."""
    yield stem
    while len(stem) > len(key):
        stem = stem.rpartition(".")[0]
        yield stem
