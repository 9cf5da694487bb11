"""Lengths tables that came with somebody's records: nothing in them is trusted before the loops of planning run."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eve_jax.data.image.rule import ImageRule
from eve_jax.data.plan.lengths import Lengths, kept_table
from eve_jax.data.plan.mapped_arrays import ArrayFile, save_arrays
from eve_jax.data.plan.table_check import BadTable, counts_digest
from eve_jax.data.prepare.convert import Conversion, convert
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records
from eve_jax.data.sources.shards import table_digests
from tests.data.synthetic import byte_tokenizer, write_records

RULE = SampleRule(byte_tokenizer(), ImageRule("anyratio_ld", max_size=96), "qwen2", max_tokens=1000)
N = 9


@pytest.fixture
def table(tmp_path: Path) -> Lengths:
    return measure(open_records(str(write_records(tmp_path, N)), tmp_path / "images"), RULE)


def kept(table: Lengths, path: Path, listed: str = "") -> Lengths | None:
    table.save(path)
    return kept_table(path, N, 1000, listed)


def put(name: str, at: int, value: int) -> Callable[[Lengths], Lengths]:
    def change(table: Lengths) -> Lengths:
        changed = getattr(table, name).copy()
        changed.reshape(-1)[at] = value
        return replace(table, **{name: changed})

    return change


CHANGES = {
    "negative patches": (put("patches", 3, -(2**30)), "entry 3 has a negative number of patches tokens"),
    "no end of text": (put("text", 4, 2**31 - 1), "entry 4 has more than 1,000 tokens"),
    "negative text": (put("text", 0, -1), "entry 0 has a negative number of text tokens"),
    "too many special tokens": (put("specials", 1, 50), "entry 1 has special tokens that its images do not have"),
    "other patches": (put("patches", 5, 7), "entry 5 has patches that its images do not have"),
    "a record twice": (put("record", 5, 4), "entry 5 has a record that does not come after the one before"),
    "a negative record": (put("record", 0, -5), "entry 0 has a record that does not come after the one before"),
    "a record past the end": (put("record", N - 1, N), "names record 9, of 9 records"),
    "images out of order": (put("first_grid", 2, 99), "the images of entries 0 to 9 do not follow one another"),
    "images before the first": (put("first_grid", 0, -1), "the images of entries 0 to 9 do not follow one another"),
    "a negative grid": (put("grids", 3, -2), "an image of entries 0 to 9 has no patches"),
    "images of nobody": (lambda t: replace(t, grids=t.grids[[*range(9), 0]], seen=None), "10 images, of which"),
    "another type": (lambda t: replace(t, text=t.text.astype(np.int64)), "its array text is int64 [9]"),
    "another length": (lambda t: replace(t, text=t.text[1:]), "its array text is int32 [8]"),
    "another shape": (lambda t: replace(t, grids=t.grids.reshape(-1)), "its array grids is int32"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_table_that_cannot_be_is_not_used(
    case: str, table: Lengths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, why = CHANGES[case]
    path = tmp_path / "table.npz"
    assert kept(table, path) is not None
    assert kept(change(table), path) is None
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {path} is not used, and the records are measured again: ")
    assert why in said
    assert said.count("\n") == 1


def test_tables_are_told_apart_by_their_digests(
    table: Lengths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.npz"
    table.save(path)
    arrays = {name: np.array(array) for name, array in ArrayFile(path).mapped().items()}
    digest = str(arrays["digest"])
    assert digest == counts_digest(ArrayFile(path))
    assert kept_table(path, N, 1000, digest) is not None
    assert kept_table(path, N, 1000, "0" * 32) is None
    assert "is not the one that belongs to the records" in capsys.readouterr().err
    arrays["text"][0] += 1
    save_arrays(path, arrays)
    assert kept_table(path, N, 1000) is None
    assert "its digest is not that of its arrays" in capsys.readouterr().err
    arrays["text"][0] -= 1
    del arrays["digest"]  # as an older version may have left it
    save_arrays(path, arrays)
    old = kept_table(path, N, 1000)
    assert old is not None
    assert old.digest == digest


def test_pieces_are_joined(table: Lengths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eve_jax.data.plan.table_check.BLOCK", 2)
    path = tmp_path / "table.npz"
    assert kept(table, path) is not None
    assert kept(put("patches", 8, -1)(table), path) is None
    assert kept(put("record", 4, 3)(table), path) is None


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2**62, 4), "<i4"), ((2**63,), "<i4"), ((-4,), "<i4"), ((1 << 40,), "<i4"), ((1,), "|O"), ((2,), "<U500000000")],
)
def test_an_array_that_is_not_in_its_file_is_refused(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    path = tmp_path / "x.npz"
    save_arrays(path, {"record": np.arange(64, dtype=np.int32)})
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    data = path.read_bytes()
    start = data.index(b"{'descr'")
    end = data.index(b"\n", start)
    path.write_bytes(data[:start] + header.encode().ljust(end - start) + data[end:])
    with pytest.raises(BadTable):
        Lengths.load(path)


def test_prepared_records_list_their_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, made = write_records(tmp_path, N), tmp_path / "made"
    conversion = Conversion(str(source), str(tmp_path / "images"), str(made), 4, "headers")
    name = convert(conversion, RULE)["table"]["file"]
    table = measure(open_records(str(made)), RULE)
    assert table.file is not None
    assert table_digests(made) == {name: table.digest}
    put("text", 2, int(table.text[2]) - 1)(table).save(made / name)  # numbers that could be, of other records
    measured = measure(open_records(str(made)), RULE)
    assert measured.text.tolist() == table.text.tolist()
    assert "is not the one that belongs to the records" in capsys.readouterr().err
    assert convert(conversion, RULE)["table"]["file"] == name  # made again, with the digest that it had
    assert measure(open_records(str(made)), RULE).file is not None
    listed = json.loads((made / "eve_records.json").read_text())
    del listed["tables"]
    (made / "eve_records.json").write_text(json.dumps(listed))  # of an earlier version
    assert measure(open_records(str(made)), RULE).file is not None


def test_tables_of_images_with_and_without_special_tokens(table: Lengths, tmp_path: Path) -> None:
    """Of two layouts, whose tables have different names: one is never taken for the other."""
    path = tmp_path / "table.npz"
    table.save(path)
    assert kept_table(path, N, 1000) is not None and kept_table(path, N, 1000, specials=False) is None
    replace(table, specials=np.zeros_like(table.specials)).save(path)
    assert kept_table(path, N, 1000) is None and kept_table(path, N, 1000, specials=False) is not None
