"""Rows: what lies in which slot, and batches that bad records leave in order."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eve_jax.batch import CLASS, SPLIT, RowShape, batch_arrays, row_shape
from eve_jax.data.image.patches import load_patches
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.plan.plan import MicroBatch
from eve_jax.data.rows.bad_records import BadRecords
from eve_jax.data.rows.build import Batch, RowBuilder, lay_out
from eve_jax.data.rows.spell import Sample
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.samples.too_long import grid_tokens
from eve_jax.data.sources.records import open_records
from eve_jax.data.text.encode import IGNORE, IMAGE_ID, encode_chat
from eve_jax.errors import UserError
from tests.data.synthetic import byte_tokenizer, write_records

SHAPE = RowShape(40, 20, 68)


def sample(ids: list[int], learnt: list[int], grids: list[tuple[int, int]], weight: float = 1.0) -> Sample:
    labels = np.full(len(ids), IGNORE, np.int32)
    labels[learnt] = np.array(ids, np.int32)[learnt]
    return Sample(np.array(ids, np.int32), labels, grids, weight)


def test_a_row_by_hand() -> None:
    first = sample([7, IMAGE_ID, 8, 9], [2, 3], [(2, 1)])
    second = sample([5, 6], [0, 1], [], weight=0.0)
    row = lay_out([first, second], RowShape(3, 4, 6))
    # causal: 7 | class p0 split p1 split | 8 9 || 5 6 || pads; slots: patches 0-2, specials 3-6, text 7-12
    assert row["perm"].tolist() == [7, 3, 0, 4, 1, 5, 8, 9, 10, 11, 2, 6, 12]
    assert row["special_ids"].tolist() == [CLASS, SPLIT, SPLIT, 0]
    assert row["text_ids"].tolist() == [7, 8, 9, 5, 6, 0]
    assert row["segment"].tolist() == [1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 2, 2, 0]
    assert row["position"].tolist() == [2, 4, 0, 1, 3, 5, 0, 0, 6, 7, 0, 1, 0]
    # 8 is predicted by the image's last split token, 9 by 8, 6 by 5; 5 has no predecessor
    assert row["loss_idx"].tolist() == [5, 8, 10, 0, 0, 0]
    assert row["labels"].tolist() == [8, 9, 6, 0, 0, 0]
    assert row["loss_weight"].tolist() == [1, 1, 0, 0, 0, 0]


def test_an_empty_row_is_all_pads() -> None:
    row = lay_out([], SHAPE)
    assert row["perm"].tolist() == row["inv"].tolist() == list(range(SHAPE.length))
    assert not any(row[name].any() for name in row if name not in ("perm", "inv"))


def test_a_row_too_full_is_refused() -> None:
    with pytest.raises(ValueError, match="patches do not fit"):
        lay_out([sample([IMAGE_ID], [], [(7, 6)])], SHAPE)
    with pytest.raises(ValueError, match="1 images in the ids, 0 grids"):
        lay_out([sample([IMAGE_ID], [], [])], SHAPE)


@st.composite
def rows_of_samples(draw: st.DrawFn) -> list[Sample]:
    """Samples that fit SHAPE."""
    samples: list[Sample] = []
    room = np.array(SHAPE)
    for _ in range(draw(st.integers(0, 6))):
        grids = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=3))
        text = draw(st.lists(st.integers(1, 99), min_size=1, max_size=15))
        need = np.array([*grid_tokens(grids), len(text)])
        if (need > room).any():
            continue
        room -= need
        ids = draw(st.permutations([IMAGE_ID] * len(grids) + text))
        learnt = [n for n, id in enumerate(ids) if id != IMAGE_ID and draw(st.booleans())]
        samples.append(sample(ids, learnt, grids, draw(st.sampled_from([0.0, 1.0]))))
    return samples


def spelt(one: Sample) -> list[tuple[str, int, int]]:
    """(kind, value, label) of every token of a sample in order, the obvious way."""
    out: list[tuple[str, int, int]] = []
    grids = iter(one.grids)
    for id, label in zip(one.ids.tolist(), one.labels.tolist(), strict=True):
        if id != IMAGE_ID:
            out.append(("text", id, label))
            continue
        h, w = next(grids)
        out.append(("special", CLASS, IGNORE))
        for _ in range(h):
            out += [("patch", 0, IGNORE)] * w + [("special", SPLIT, IGNORE)]
    return out


@given(rows_of_samples())
def test_rows_keep_every_token_in_its_place(samples: list[Sample]) -> None:
    row = lay_out(samples, SHAPE)
    slots = np.arange(SHAPE.length)
    perm, inv = row["perm"], row["inv"]
    assert np.array_equal(perm[inv], slots)
    assert np.array_equal(inv[perm], slots)
    tokens = [spelt(one) for one in samples]
    n = sum(map(len, tokens))

    causal_segment, causal_position = row["segment"][perm], row["position"][perm]
    expected = [(s, p) for s, one in enumerate(tokens, 1) for p in range(len(one))]
    assert list(zip(causal_segment[:n].tolist(), causal_position[:n].tolist(), strict=True)) == expected
    assert not causal_segment[n:].any()
    assert not causal_position[n:].any()

    values = np.concatenate([np.zeros(SHAPE.patches, np.int32), row["special_ids"], row["text_ids"]])
    kinds = np.repeat(["patch", "special", "text"], SHAPE)
    seen = list(zip(kinds[perm][:n].tolist(), values[perm][:n].tolist(), strict=True))
    assert seen == [token[:2] for one in tokens for token in one]
    assert not values[perm][n:].any()
    patch_slots = perm[:n][kinds[perm[:n]] == "patch"]
    assert patch_slots.tolist() == list(range(len(patch_slots)))  # patches are written in causal order

    targets = []
    start = 0
    for one, own in zip(samples, tokens, strict=True):
        targets += [(start + p - 1, own[p][2], one.weight) for p in range(1, len(own)) if own[p][2] != IGNORE]
        start += len(own)
    m = len(targets)
    assert inv[row["loss_idx"][:m]].tolist() == [c for c, _, _ in targets]
    assert row["labels"][:m].tolist() == [label for _, label, _ in targets]
    assert row["loss_weight"][:m].tolist() == [weight for _, _, weight in targets]
    assert not any(row[name][m:].any() for name in ("loss_idx", "labels", "loss_weight"))


class Setup:
    """Records with images on disk, measured, and a builder for them."""

    def __init__(self, folder: Path, n: int = 12, max_bad: int = 10) -> None:
        self.folder = folder
        self.records = open_records(str(write_records(folder, n)), folder / "images")
        self.rule = SampleRule(byte_tokenizer(), ImageRule("anyratio_ld", max_size=96), "qwen2", max_tokens=1000)
        self.lengths = measure(self.records, self.rule)
        self.bad = BadRecords(folder / "work", max_bad)
        self.builder = RowBuilder(self.records, self.lengths, self.rule, self.bad)

    def build(self, rows: list[tuple[int, ...]]) -> Batch:
        return self.builder.build(MicroBatch(RowShape(64, 32, 1056), rows))

    def listed(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.bad.path.read_text().splitlines()]


def test_batch_arrays(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    batch = setup.build([(0, 4), (2,), ()])
    expected: dict[str, tuple[tuple[int, ...], Any]] = {
        "patches": ((3, 64, 3072), np.uint8),
        "special_ids": ((3, 32), np.int32),
        "text_ids": ((3, 1056), np.int32),
        "segment": ((3, 1152), np.int32),
        "position": ((3, 1152), np.int32),
        "perm": ((3, 1152), np.int32),
        "inv": ((3, 1152), np.int32),
        "loss_idx": ((3, 1056), np.int32),
        "labels": ((3, 1056), np.int32),
        "loss_weight": ((3, 1056), np.float32),
    }
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == expected
    assert batch_arrays(3, row_shape(batch), 3072) == expected

    record = setup.records[2]
    encoded = encode_chat(record.turns, setup.rule.tokenizer, "qwen2", 2)
    text = encoded.ids[encoded.ids != IMAGE_ID]
    assert batch["text_ids"][1, : len(text)].tolist() == text.tolist()
    n_targets = int(batch["loss_weight"][1].sum())
    learnt = setup.rule.tokenizer.decode(batch["labels"][1, :n_targets], skip_special=False)
    assert learnt == " " + record.turns[1].text + "<|im_end|>"
    used = 0
    for path in record.images:
        patches, _ = load_patches(path, setup.rule.images)
        assert np.array_equal(batch["patches"][1, used : used + len(patches)], patches)
        used += len(patches)
    assert not batch["patches"][1, used:].any()
    assert used == setup.lengths.patches[2]
    assert not batch["segment"][2].any()


def break_image(setup: Setup, name: str, content: bytes | None) -> None:
    path = setup.folder / "images" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def test_a_broken_image_keeps_its_slots(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    rows: list[tuple[int, ...]] = [(1, 2, 3), (4, 5)]
    before = setup.build(rows)
    break_image(setup, "2_1.png", b"no picture")
    after = setup.build(rows)
    setup.build(rows)
    for name in ("special_ids", "text_ids", "segment", "position", "perm", "inv", "loss_idx", "labels"):
        assert np.array_equal(before[name], after[name]), name
    first, second = int(setup.lengths.patches[1]), int(setup.lengths.patches[2])
    assert not after["patches"][0, first : first + second].any()
    after["patches"][0, first : first + second] = before["patches"][0, first : first + second]
    assert np.array_equal(before["patches"], after["patches"])
    segment_of_target = np.take_along_axis(after["segment"], after["loss_idx"], 1)
    of_broken = (segment_of_target == 2) & (np.arange(2)[:, None] == 0)
    assert np.array_equal(after["loss_weight"], np.where(of_broken, 0, before["loss_weight"]))
    assert (before["loss_weight"][of_broken] == 1).any()
    assert setup.listed() == [
        {
            "where": f"{tmp_path}/records.jsonl:3",
            "id": "r2",
            "image": f"{tmp_path}/images/2_1.png",
            "reason": "not an image of a format that is read",
            "found": "training",
        }
    ]


def test_missing_and_changed_images_and_records(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    break_image(setup, "1_0.png", None)
    Image.new("RGB", (300, 30)).save(tmp_path / "images" / "4_0.png")
    lines = (tmp_path / "records.jsonl").read_bytes().splitlines(keepends=True)
    lines[5] = lines[5].replace(b"Number", b"Numbed")  # as long as before
    lines[6] = b"{" * (len(lines[6]) - 1) + b"\n"
    lines[9] = lines[9].replace(b"What is it?", b"What is it ", 1).replace(b"USER", b"USER")
    lines[7] = lines[7].replace(b'"7_0.png"', b"null     ").replace(b"<image>", b"       ")
    (tmp_path / "records.jsonl").write_bytes(b"".join(lines))
    batch = setup.build([(1, 4), (5, 6), (7, 0)])
    assert batch["loss_weight"].sum(1).astype(bool).tolist() == [False, False, True]
    assert [(entry["id"], entry["reason"]) for entry in setup.listed()] == [
        ("r1", "missing file"),
        ("r4", "the image changed its size since it was measured"),
        ("r5", "the record changed since it was measured"),
        ("", setup.listed()[3]["reason"]),
        ("r7", "the record changed since it was measured"),
    ]
    assert "not valid JSON" in setup.listed()[3]["reason"]


def test_another_image_of_the_same_size_is_noticed_and_a_copy_is_not(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    path = tmp_path / "images" / "1_0.png"
    data = path.read_bytes()
    before = setup.build([(1,)])
    os.utime(path, ns=(1, 1))
    assert np.array_equal(setup.build([(1,)])["loss_weight"], before["loss_weight"])
    with Image.open(path) as image:
        swapped = image.convert("RGB").transpose(Image.Transpose.ROTATE_180)
    swapped.save(path)
    path.write_bytes(path.read_bytes().ljust(len(data), b"\0"))
    assert not setup.build([(1,)])["loss_weight"].any()
    assert [entry["reason"] for entry in setup.listed()] == ["the image changed since it was measured"]


def test_too_many_broken_images_stop_the_run(tmp_path: Path) -> None:
    setup = Setup(tmp_path, max_bad=1)
    break_image(setup, "1_0.png", None)
    break_image(setup, "4_0.png", b"")
    setup.build([(1,)])
    with pytest.raises(UserError, match=r"2 records broke.*max_bad=1.*records\.jsonl:5 \(record r4\): empty file"):
        setup.build([(4,)])
