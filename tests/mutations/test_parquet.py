"""Mutated Parquet files: columns renamed, retyped or empty; row groups of any size; bytes cut off or flipped."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.mutations.strategies import QUICK, SAMPLES, Meaning, many, meaning, outcome, write_images

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TALK = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
NAMES = [
    "images",
    "img",
    "messages",
    "id",
    "image",
    "conversations",
    "caption",
    "system",
    "Image",
    "picture",
    "meta",
    "meta.image",
]
NAMES += ["video", "a.b", "", "a\nb", "query", "url", "\u00e9", "file_name"]
# Columns that a file may have besides, whose values cannot always be a Python object.
EXTRA: dict[str, pa.Array] = {
    "dates": pa.array([2**31 - 1] * 5, pa.int32()).view(pa.date32()),
    "times": pa.array([2**62] * 5, pa.int64()).view(pa.timestamp("us")),
    "nanoseconds": pa.array([1] * 5, pa.int64()).view(pa.timestamp("ns")),
    "durations": pa.array([2**62] * 5, pa.int64()).view(pa.duration("s")),
    "zones": pa.array([0] * 5, pa.timestamp("us", "Nowhere/Never")),
    "nothing": pa.nulls(5),
    "maps": pa.array([[("a", 1)]] * 5, pa.map_(pa.string(), pa.int32())),
    "numbers": pa.array([1.5, None, float("nan"), 0.0, 1e300]),
    "vectors": pa.array([[1.0, 2.0]] * 5, pa.list_(pa.float32(), 2)),
}


class Table(NamedTuple):
    """Columns by name, in order and perhaps of one name, and how they are written."""

    columns: list[tuple[str, pa.Array]]
    group: int = 2
    compression: str = "snappy"

    def __repr__(self) -> str:
        columns = [(name, str(column.type), [str(value)[:40] for value in column]) for name, column in self.columns]
        return f"Table({columns}, {self.group}, {self.compression!r})"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("parquet")
    write_images(target)
    return target


@functools.cache
def contents(folder: Path) -> list[list[bytes]]:
    """Return the images of SAMPLES."""
    return [[(folder / "images" / name).read_bytes() for name in sample.images] for sample in SAMPLES]


@functools.cache
def meanings(folder: Path) -> list[Meaning | None]:
    """Return what SAMPLES mean."""
    return [meaning(sample.turns, images) for sample, images in zip(SAMPLES, contents(folder), strict=True)]


@functools.cache
def columns_of(folder: Path) -> tuple[tuple[str, pa.Array], ...]:
    """Return the columns of SAMPLES as LLaVA-OneVision-Data has them."""
    images = [
        [{"bytes": data, "path": name} for name, data in zip(sample.images, own, strict=True)]
        for sample, own in zip(SAMPLES, contents(folder), strict=True)
    ]
    talks = [sample.fields()["conversations"] for sample in SAMPLES]
    return (
        ("id", pa.array([sample.id for sample in SAMPLES])),
        ("image", pa.array(images, pa.list_(IMAGE))),
        ("conversations", pa.array(talks, TALK)),
    )


@functools.cache
def images_as(folder: Path, kind: str) -> pa.Array:
    """Return the image column of another type with the same images."""
    own = contents(folder)
    if kind == "bytes":
        return pa.array(own, pa.list_(pa.binary()))
    if kind == "large":
        return pa.array(own, pa.large_list(pa.large_binary()))
    if kind == "paths":
        return pa.array([list(sample.images) for sample in SAMPLES])
    if kind == "dictionary":
        return pa.array([sample.images[0] if sample.images else None for sample in SAMPLES]).dictionary_encode()
    path = "path" if kind == "no bytes" else None
    values = [
        [
            {"bytes": None if path else data, "path": name if path else None}
            for name, data in zip(s.images, images, strict=True)
        ]
        for s, images in zip(SAMPLES, own, strict=True)
    ]
    return pa.array(values, pa.list_(IMAGE))


@functools.cache
def texts_as(kind: str) -> pa.Array:
    """Return the conversations of another type with the same turns."""
    talks = [sample.fields()["conversations"] for sample in SAMPLES]
    if kind == "large":
        return pa.array(talks, pa.large_list(pa.struct([("from", pa.large_string()), ("value", pa.large_string())])))
    if kind == "roles":
        other = [[{"role": t["from"], "content": t["value"]} for t in talk] for talk in talks]
        return pa.array(other)
    return pa.array(
        talks, pa.list_(pa.struct([("value", pa.string()), ("from", pa.string()), ("weight", pa.float32())]))
    )


SAME = ["bytes", "large", "paths", "no bytes", "no paths", "text large", "text roles", "text more"]


@st.composite
def same_tables(draw: st.DrawFn, folder: Path) -> Table:
    """A table of the same records in other columns, types, row groups or compression."""
    columns = dict(columns_of(folder))
    for kind in draw(st.lists(st.sampled_from(SAME), max_size=2)):
        if kind.startswith("text "):
            columns["conversations"] = texts_as(kind.removeprefix("text "))
        else:
            columns["image"] = images_as(folder, kind)
    renamed = {"image": ["image", "images", "img", "image_path"], "conversations": ["conversations", "messages"]}
    pairs = [(draw(st.sampled_from(renamed.get(name, [name]))), column) for name, column in columns.items()]
    pairs += [(name, EXTRA[name]) for name in draw(st.lists(st.sampled_from(sorted(EXTRA)), unique=True))]
    return Table(
        draw(st.permutations(pairs)), draw(st.integers(1, 6)), draw(st.sampled_from(["snappy", "none", "zstd"]))
    )


@st.composite
def changed_tables(draw: st.DrawFn, folder: Path) -> Table:
    """A table with columns that are gone, renamed, there twice, or that hold nulls or values of another type."""
    columns = list(columns_of(folder))
    for _ in range(draw(st.integers(1, 2))):
        which = draw(st.integers(0, len(columns) - 1))
        name, column = columns[which]
        how = draw(st.sampled_from(["drop", "rename", "null", "retype", "extra", "twice", "case"]))
        if how == "drop" and len(columns) > 1:
            del columns[which]
        elif how == "rename":
            columns[which] = (draw(st.sampled_from(NAMES)), column)
        elif how == "null":
            mask = draw(st.lists(st.booleans(), min_size=5, max_size=5))
            values = [None if gone else value for gone, value in zip(mask, column.to_pylist(), strict=True)]
            columns[which] = (name, pa.array(values, column.type))
        elif how == "retype":
            values = draw(
                st.sampled_from([[1] * 5, ["text"] * 5, [b"\x89PNG"] * 5, [[1]] * 5, [{"x": 1}] * 5, [True] * 5])
            )
            columns[which] = (name, pa.array(values))
        elif how == "extra":
            columns.append(draw(st.sampled_from(sorted(EXTRA.items(), key=lambda one: one[0]))))
        else:
            columns.append((name if how == "twice" else name.upper(), column))
    return Table(columns, draw(st.integers(1, 6)))


def write(path: Path, table: Table) -> None:
    """Write the file, with a checksum of every page."""
    arrow = pa.Table.from_arrays([column for _, column in table.columns], [name for name, _ in table.columns])
    pq.write_table(arrow, path, row_group_size=table.group, compression=table.compression, write_page_checksum=True)


def check_same(folder: Path, table: Table) -> None:
    """Compare what comes of a table with what SAMPLES mean."""
    write(folder / "a.parquet", table)
    found = outcome(folder / "a.parquet", folder / "images")
    assert not found.refused
    assert [found.usable.get(number) for number in range(len(SAMPLES))] == meanings(folder)


def check_changed(folder: Path, table: Table) -> None:
    """Compare what comes of a changed table with what its columns hold; a cell without value is no image, no talk."""
    write(folder / "a.parquet", table)
    found = outcome(folder / "a.parquet", folder / "images")
    if found.refused:
        return
    talks = first_of(table.columns, ["conversations", "messages"], "value")
    images = first_of(table.columns, ["image", "images", "img", "url", "file_name"], "bytes")
    systems = first_of(table.columns, ["system"], "")
    for number, one in found.usable.items():
        assert talks[number] is not None and systems[number] in (None, "text")
        turns = SAMPLES[number].turns
        assert talks[number] == SAMPLES[number].fields()["conversations"]
        assert one == meaning(turns, [image["bytes"] for image in images[number] or []])


def first_of(columns: Sequence[tuple[str, pa.Array]], names: list[str], key: str) -> list[Any]:
    """Return the values of the first column of one of `names` that has any, else nulls.

    Values are lists of objects that have `key`; texts where it is "".
    """
    found = [column.to_pylist() for name, column in columns if name in names]

    def fits(value: Any) -> bool:
        if not key:
            return isinstance(value, str) and bool(value)
        return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and key in value[0]

    return [next((column[n] for column in found if fits(column[n])), None) for n in range(len(SAMPLES))]


class Damage(NamedTuple):
    """Where, from 0 to 1, a file is cut off (`bit` 8) or a bit is flipped."""

    place: float
    bit: int


def check_damage(folder: Path, damage: Damage, footer: bool) -> None:
    """Compare what comes of a damaged file with what comes of it undamaged; nothing may change without a line."""
    path = folder / "a.parquet"
    write(path, Table(list(columns_of(folder))))
    data = bytearray(path.read_bytes())
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    first, last = (begin, len(data)) if footer else (0, begin)
    at = first + int(damage.place * (last - first - 1))
    if damage.bit == 8:
        del data[at:]
    else:
        data[at] ^= 1 << damage.bit
    path.write_bytes(data)
    found = outcome(path, folder / "images")
    wanted = meanings(folder)
    for number, one in found.usable.items():
        assert one == wanted[number]
    assert not found.silent or len(found.usable) == len(SAMPLES)


DAMAGE = st.builds(Damage, st.floats(0, 1), st.integers(0, 8))


@QUICK
@given(st.data())
def test_the_same_tables(folder: Path, data: st.DataObject) -> None:
    check_same(folder, data.draw(same_tables(folder)))


@QUICK
@given(st.data())
def test_changed_tables(folder: Path, data: st.DataObject) -> None:
    check_changed(folder, data.draw(changed_tables(folder)))


@pytest.mark.parametrize("name", sorted(EXTRA))
def test_found_columns(folder: Path, name: str) -> None:
    check_same(folder, Table([*columns_of(folder), (name, EXTRA[name])]))  # some raised OverflowError


@pytest.mark.parametrize(
    ("old", "new"), [("id", "image"), ("id", "conversations"), ("conversations", "a\nb"), ("image", "meta.image")]
)
def test_found_names(folder: Path, old: str, new: str) -> None:
    """Two columns of one name raised KeyError, a line break gave two lines, a name with a dot was not seen."""
    table = Table([(new if name == old else name, column) for name, column in columns_of(folder)])
    write(folder / "a.parquet", table)
    assert outcome(folder / "a.parquet", folder / "images").refused


@QUICK
@example(Damage(1.0, 0), False)  # another text, and no checksum was looked at
@given(DAMAGE, st.booleans())
def test_damaged_files(folder: Path, damage: Damage, footer: bool) -> None:
    check_damage(folder, damage, footer)


@pytest.mark.slow
@many
@given(st.data())
def test_many_same_tables(folder: Path, data: st.DataObject) -> None:
    check_same(folder, data.draw(same_tables(folder)))


@pytest.mark.slow
@many
@given(st.data())
def test_many_changed_tables(folder: Path, data: st.DataObject) -> None:
    check_changed(folder, data.draw(changed_tables(folder)))


@pytest.mark.slow
@many
@given(DAMAGE, st.booleans())
def test_many_damaged_files(folder: Path, damage: Damage, footer: bool) -> None:
    check_damage(folder, damage, footer)
