"""Mutated tar files: members in another order, renamed, missing, damaged; files cut off, put together, overwritten."""

import io
import json
import posixpath
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eve_jax.data.record import Turn
from tests.data.source_files import add_member
from tests.mutations.strategies import (
    QUICK,
    SAMPLES,
    Meaning,
    many,
    meaning,
    outcome,
    strict_json,
    write_images,
)

BLOCK = tarfile.BLOCKSIZE


class Member(NamedTuple):
    """A file in a tar; `link` is what it is a link to, "" for an ordinary file."""

    name: str
    data: bytes
    link: str = ""

    def __repr__(self) -> str:
        return f"Member({self.name!r}, {self.data[:40]!r}, {self.link!r})"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("tars")
    write_images(target)
    return target


def members_of(folder: Path) -> list[Member]:
    """Return the members of a valid tar: `s2.json`, `s2.0.png`, `s2.1.png` and so on."""
    members = []
    for sample in SAMPLES:
        fields = {name: value for name, value in sample.fields().items() if name != "image"}
        members.append(Member(f"{sample.id}.json", json.dumps(fields).encode()))
        images = [(folder / "images" / name).read_bytes() for name in sample.images]
        members += [Member(f"{sample.id}.{number}.png", data) for number, data in enumerate(images)]
    return members


NAMES = [
    f"s{number}.{ending}"
    for number in (1, 2, 9)
    for ending in ("png", "7.png", "0.PNG", "json", "a.json", "txt", "0.txt")
]
NAMES += [
    f"s2{ending}" for ending in ("", ".", ".0.xyz", ".0.mp4", ".0.heic", ".0.png.bak", ".photo", ".0.png/x", ".cls")
]
NAMES += [
    ".s2.png",
    "._s2.0.png",
    "__MACOSX/s2.png",
    "a.b/s2.0.png",
    "./s2.0.png",
    "/s2.0.png",
    "a/" * 120 + "s2.0.png",
]
NAMES += ["\u00e9.\u56fe.png", "\udcff.png", "a\nb.png", "\x1b[0m.png", "README", "index.html", " .png"]
PREFIXES = ["x/", "v1.0/", "p.1.", "a b.", "\u56fe", "./", "d" * 150 + "/"]
JUNK = [
    Member("README", b"?"),
    Member("docs/index.html", b"<p>"),
    Member(".DS_Store", b"?"),
    Member("__MACOSX/._s2.png", b"?"),
]
JUNK += [Member("s2.cls", b"7"), Member("s1.md", b"BM25 is a ranking. ID3 is a tree."), Member("s2.npy", b"\x93NUMPY")]
JUNK += [Member("s0.0.png", b"", "s1.0.png"), Member("s2.bin", b"\x89PNG\r\n\x1a\n"), Member("s0.txt", b"Nobody.")]
DATA = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b"\xff",
    b"\0" * 600,
    b"[" * 5000,
    b'{"id": 1, "id": 2}',
    b"\xef\xbb\xbf",
    b"{" * 5000,
]


@st.composite
def changed_members(draw: st.DrawFn, folder: Path) -> tuple[list[Member], int]:
    """The members of a tar after one or two changes, and the format to write them in."""
    members = members_of(folder)
    for _ in range(draw(st.integers(1, 2))):
        which = draw(st.integers(0, len(members) - 1))
        chosen = members[which]
        how = draw(st.sampled_from(["move", "mix", "rename", "drop", "twice", "junk", "data", "link", "prefix"]))
        if how == "move":
            members.insert(draw(st.integers(0, len(members) - 1)), members.pop(which))
        elif how == "mix":
            members = draw(st.permutations(members))
        elif how == "rename":
            members[which] = chosen._replace(name=draw(st.sampled_from(NAMES)))
        elif how == "drop" and len(members) > 1:
            del members[which]
        elif how == "twice":
            members.insert(draw(st.integers(0, len(members))), chosen)
        elif how == "junk":
            members.insert(which, draw(st.sampled_from(JUNK)))
        elif how == "data":
            members[which] = chosen._replace(data=draw(st.sampled_from(DATA)))
        elif how == "link":
            members[which] = Member(chosen.name, b"", draw(st.sampled_from(["s1.0.png", "nothing", "s0.json"])))
        elif how == "prefix":
            own, prefix = key_of(chosen.name), draw(st.sampled_from(PREFIXES))
            members = [m._replace(name=prefix + m.name) if key_of(m.name) == own else m for m in members]
    return members, draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))


def key_of(name: str) -> str:
    """Return WebDataset's key of a member, without `./` before it."""
    folder, slash, base = posixpath.normpath(name).lstrip("/").rpartition("/")
    return folder + slash + base.partition(".")[0]


def by_dots(key: str, group: list[Member]) -> dict[str, list[Member]]:
    """Return the members of one key by record, as docs/data.md has it for names with dots of their own."""
    stems = [posixpath.normpath(member.name).lstrip("/").rpartition(".")[0] for member in group]
    texts = {stem for stem, member in zip(stems, group, strict=True) if member.name.lower().endswith((".json", ".txt"))}
    images = [stem for stem, member in zip(stems, group, strict=True) if member.name.lower().endswith(".png")]
    own = {text for text in texts for stem in images if f"{stem}.".startswith(f"{text}.")}
    found: dict[str, list[Member]] = {}
    for stem, member in zip(stems, group, strict=True):
        mine = [text for text in own if f"{stem}.".startswith(f"{text}.")]
        alone = all(any(f"{image}.".startswith(f"{text}.") for text in own) for image in images)
        found.setdefault(max(mine, key=len) if mine else stem if alone else key, []).append(member)
    return found


def packed(members: list[Member], format: int = tarfile.GNU_FORMAT) -> bytes:
    """Return the tar file of `members`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format, errors="surrogateescape") as tar:
        for name, data, link in members:
            if not link:
                add_member(tar, name, data)
                continue
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, link
            tar.addfile(info)
    return stream.getvalue()


def read_members(members: list[Member]) -> Meaning | None:
    """Return what the members of one record mean; None where they are not one .json and images alone."""
    texts = [m.data for m in members if m.name.lower().endswith((".json", ".txt"))]
    images = [m.data for m in members if m.name.lower().endswith(".png")]
    if len(texts) != 1:
        return None
    try:
        given = strict_json(texts[0])
        turns = [Turn("human" if t["from"] == "human" else t["from"], t["value"]) for t in given["conversations"]]
    except (ValueError, KeyError, TypeError):
        return None
    return meaning(turns, images)


def check_members(folder: Path, members: list[Member], format: int) -> None:
    """Write a tar of `members`, and compare what comes of it with what the members of each record mean."""
    path = folder / "a.tar"
    path.write_bytes(packed(members, format))
    found = outcome(path)
    if found.refused:
        return
    assert not any(member.link and member.name.endswith((".png", ".json")) for member in members)
    base = members_of(folder)
    valid = {sample: read_members([m for m in base if key_of(m.name) == sample.id]) for sample in SAMPLES}
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(key_of(member.name), []).append(member)
    groups = {key: own for first, group in groups.items() for key, own in by_dots(first, group).items()}
    meanings = [read_members(group) for group in groups.values()]
    assert all(one in meanings for one in found.usable.values())
    for sample in SAMPLES:  # those that nothing was done to
        own = [member for member in base if key_of(member.name) == sample.id]
        if groups.get(sample.id) == own:
            assert [one == valid[sample] for one in found.usable.values()].count(True) == 1
    kept = [one for one in meanings if one is not None]
    assert list(found.usable.values()) == [one for one in kept if one in found.usable.values()]
    lost = [group for group in groups.values() if read_members(group) not in found.usable.values()]
    if any(m.name.endswith(".png") or m.name.endswith(".json") for group in lost for m in group if is_seen(m.name)):
        assert not found.silent


def is_seen(name: str) -> bool:
    """Whether a member of that name belongs to a record: hidden files and those of macOS do not."""
    return not name.rpartition("/")[2].startswith(".") and "__MACOSX" not in name


class Damage(NamedTuple):
    """What is done to the bytes of a tar: `how`, at a place from 0 to 1, and a number."""

    how: str
    place: float
    number: int


DAMAGE = st.builds(
    Damage,
    st.sampled_from(["cut", "cut at a member", "flip in a header", "number in a header", "zeros", "twice", "rest"]),
    st.floats(0, 1),
    st.integers(0, 4095),
)


def damaged(members: list[Member], damage: Damage) -> bytes:
    """Return the tar of `members` with that damage."""
    data = bytearray(packed(members))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        headers = [info.offset for info in tar]
    at = headers[int(damage.place * (len(headers) - 1))]
    if damage.how == "cut":
        return bytes(data[: 1 + int(damage.place * (len(data) - 1))])
    if damage.how == "cut at a member":
        return bytes(data[: at + damage.number % 3 * BLOCK])
    if damage.how == "flip in a header":
        data[at + damage.number // 8] ^= 1 << damage.number % 8
    elif damage.how == "number in a header":  # with a checksum that fits
        field, value = (
            [(b"\xff" * 12), (b"\x80" + b"\x7f" * 11), (b"\x80" + b"\xff" * 11), b"77777777777\0", b"-0000000001\0"],
            damage.number,
        )
        start = (100, 108, 116, 124, 136)[damage.number % 5]
        width = 12 if start in (124, 136) else 8
        data[at + start : at + start + width] = field[value % 4][:width]
        data[at + 148 : at + 156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])
    elif damage.how == "zeros":
        data[at : at + BLOCK] = bytes(BLOCK)
    elif damage.how == "twice":
        data += packed([member._replace(name=f"z{member.name}") for member in members])
    elif damage.how == "rest":
        data += b"?" * (damage.number + 1)
    return bytes(data)


def check_damage(folder: Path, damage: Damage) -> None:
    """Compare what comes of a damaged tar with what comes of it undamaged."""
    base = members_of(folder)
    path = folder / "a.tar"
    path.write_bytes(packed(base))
    valid = outcome(path)
    assert valid.silent
    path.write_bytes(damaged(base, damage))
    found = outcome(path)
    if found.silent:
        assert found == valid
    else:
        assert set(found.usable.values()) <= set(valid.usable.values())


@QUICK
@given(st.data())
def test_changed_members(folder: Path, data: st.DataObject) -> None:
    check_members(folder, *data.draw(changed_members(folder)))


@pytest.mark.parametrize(
    "member",
    [
        Member("s1.0.png", b"", "s4.0.png"),  # was left out, as if the record had no image
        Member("s1.0.xyz", b"\x89PNG\r\n\x1a\n"),  # the same
        Member("s1.0.txt", b"Nobody."),
        Member("a\nb.png", b"?"),  # its place was two lines
    ],
)
def test_found_members(folder: Path, member: Member) -> None:
    members = [member if one.name == "s1.0.png" else one for one in members_of(folder)]
    check_members(folder, members, tarfile.GNU_FORMAT)


@QUICK
@example(Damage("flip in a header", 0.5, 8 * 3))  # what followed was left out without a word
@example(Damage("zeros", 0.5, 0))  # the same
@example(Damage("twice", 0.0, 0))  # the same of the second tar file
@example(Damage("cut at a member", 0.25, 0))  # a record was without its image
@given(DAMAGE)
def test_damaged_files(folder: Path, damage: Damage) -> None:
    check_damage(folder, damage)


@pytest.mark.slow
@many
@given(st.data())
def test_many_changed_members(folder: Path, data: st.DataObject) -> None:
    check_members(folder, *data.draw(changed_members(folder)))


@pytest.mark.slow
@many
@given(DAMAGE)
def test_many_damaged_files(folder: Path, damage: Damage) -> None:
    check_damage(folder, damage)
