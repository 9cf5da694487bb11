"""Which members of a tar file make one record.

WebDataset's key of a member is its name up to the first dot of its last part. Names may have dots of their own, too
(`page.1.png` with `page.1.txt`), so a name without its ending is a key of its own when a text and an image have it:

    page.1.png, page.1.txt, page.2.png, page.2.txt      records page.1 and page.2
    page.0.png, page.1.png, page.json                   record page, of two images
    page.jpg, page.seg.png, page.txt                    record page, of two images
    page.jpg, page.a.txt, page.b.txt                    record page, with two texts: a bad record where they differ

Members of one key may lie anywhere in the file; records come in the order of their first members.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from eve_jax.data.sources.media import IMAGE_SUFFIXES, OTHER_SUFFIXES, READ
from eve_jax.errors import UserError, shorten

JSON, TEXT, IMAGE, MEDIA, OTHER = range(5)
KINDS = {
    "json": JSON,
    **dict.fromkeys(("txt", "text", "caption"), TEXT),
    **dict.fromkeys(IMAGE_SUFFIXES | OTHER_SUFFIXES, MEDIA),
    **dict.fromkeys(READ, IMAGE),
}
MAC_FOLDER = "__MACOSX"  # what macOS puts beside files: no data


class Member(NamedTuple):
    """A file in a tar: its name up to the last dot, the ending behind it, its kind, first byte and number of bytes."""

    stem: str
    ending: str
    kind: int
    offset: int
    size: int


def parse_name(name: str, offset: int, size: int) -> Member | None:
    """Return the member of that name; None for one that belongs to no record: hidden files, and those of macOS."""
    folder, _, base = name.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    if not dot or base.startswith(".") or "/" in ending or MAC_FOLDER in folder.split("/"):
        return None
    return Member(stem, ending, KINDS.get(ending.lower(), OTHER), offset, size)


def grouped(members: Iterable[Member], tar: str) -> Iterator[tuple[str, list[Member]]]:
    """Yield each record's key and its members, in the order of the first of them. `UserError` for a name met twice."""
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(_first_dot(member.stem), []).append(member)
    records: dict[str, list[Member]] = {}
    for key, group in groups.items():
        for own, member in zip(_keys(key, group), group, strict=True):
            records.setdefault(own, []).append(member)
    for key, own_members in records.items():
        if all(member.kind == OTHER for member in own_members):
            continue
        if len({(member.stem, member.ending) for member in own_members}) < len(own_members):
            names = [f"{member.stem}.{member.ending}" for member in own_members]
            twice = next(name for name in names if names.count(name) > 1)
            shown = twice.encode("utf-8", "replace").decode()
            raise UserError(
                f"{tar}: holds {shorten(shown)} twice; records of one key are one, so give each its own name"
            )
        yield key, own_members


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
