"""The lengths table: right counts, everything unusable listed, made once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eve_jax.data.image.patches import load_patches
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.plan.lengths import Lengths
from eve_jax.data.samples import measure as measure_module
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records
from eve_jax.data.text.encode import IMAGE_ID, encode_chat
from tests.data.synthetic import byte_tokenizer, write_records

RULE = ImageRule("anyratio_ld", max_size=96)
ARRAYS = ("record", "text", "patches", "specials", "grids", "first_grid")


def measured(path: Path, max_tokens: int = 1000, cache_dir: Path | None = None, **changes: Any) -> Lengths:
    settings: dict[str, Any] = {"images": RULE, "template": "qwen2", "max_tokens": max_tokens, **changes}
    records = open_records(str(path), path.parent / "images")
    return measure(records, SampleRule(byte_tokenizer(), **settings), cache_dir)


def test_counts_are_those_of_the_real_thing(tmp_path: Path) -> None:
    path = write_records(tmp_path, 9)
    table = measured(path)
    assert table.dropped == []
    assert len(table) == 9
    for entry, record in enumerate(open_records(str(path), tmp_path / "images")):
        grids = [load_patches(image, RULE)[1] for image in record.images]
        ids, _ = encode_chat(record.turns, byte_tokenizer(), "qwen2", len(grids))
        assert table.record[entry] == entry
        assert table.entry_grids(entry) == grids
        assert table.text[entry] == (ids != IMAGE_ID).sum()
        assert table.patches[entry] == sum(h * w for h, w in grids)
        assert table.specials[entry] == sum(1 + h for h, _ in grids)
    assert {getattr(table, name).dtype for name in ARRAYS} == {np.dtype(np.int32), np.dtype(np.int64)}


def test_what_cannot_be_used_is_listed(tmp_path: Path) -> None:
    path = write_records(tmp_path, 9)
    lines = path.read_text().splitlines()
    lines[0] = lines[0][:-9]
    lines[1] = lines[1].replace("<image>", "")  # one image without a marker: fine
    lines[2] = lines[2].replace("<image><image>", "<image>")
    lines[3] = lines[3].replace("What is it?", "What is it? " * 100)
    lines[6] = json.dumps({"id": "r6", "conversations": [{"from": "human", "value": "Hm?"}]})
    path.write_text("\n".join(lines))
    (tmp_path / "images" / "4_0.png").unlink()
    (tmp_path / "images" / "5_1.png").write_bytes(b"")
    table = measured(path, max_tokens=800)
    assert table.record.tolist() == [1, 7, 8]
    images = tmp_path / "images"
    assert [(d.where.rpartition(":")[2], d.id, d.image) for d in table.dropped] == [
        ("1", "r0", ""),
        ("3", "r2", ""),
        ("4", "r3", ""),
        ("5", "r4", str(images / "4_0.png")),
        ("6", "r5", str(images / "5_1.png")),
        ("7", "r6", ""),
    ]
    reasons = [d.reason for d in table.dropped]
    for reason, expected in zip(
        reasons,
        ["not valid JSON", "1 <image> marker for 2 images", "too long: ", "missing file", "empty file", "nothing to"],
        strict=True,
    ):
        assert reason.startswith(expected)


def test_the_table_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_records(tmp_path, 6)
    path.write_text(path.read_text() + "{bad\n")
    cache = tmp_path / "cache"
    first = measured(path, cache_dir=cache)
    calls = []
    original = measure_module.measure_part

    def spy(*arguments: Any) -> Lengths:
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(measure_module, "measure_part", spy)
    again = measured(path, cache_dir=cache)
    assert not calls
    assert again.dropped == first.dropped
    assert len(again.dropped) == 1
    for name in ARRAYS:
        assert np.array_equal(getattr(again, name), getattr(first, name))
    for change in ({"template": "plain"}, {"image_first": True}, {"max_tokens": 999}, {"images": ImageRule()}):
        measured(path, cache_dir=cache, **change)
    path.write_text(path.read_text() + "\n{worse\n")
    assert len(measured(path, cache_dir=cache).dropped) == 2
    assert len(calls) == 5
    unkept = measured(path)
    assert again.key
    assert not unkept.key
    assert [again.entry(i) for i in range(len(again))] == [unkept.entry(i) for i in range(len(unkept))]
    assert again.entry(2) == (2, again.text[2], again.patches[2], again.entry_grids(2))
    assert len(list(cache.iterdir())) == 6
