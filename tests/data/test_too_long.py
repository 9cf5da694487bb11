"""Samples that are too long: counted, and made to fit the same way when measured and when built."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from PIL import Image

from configs.base import get_config
from eve_jax.data.image.rule import PATCH
from eve_jax.data.record import BadRecord
from eve_jax.data.rows.pipeline import StageData, open_stage_data
from eve_jax.data.samples.too_long import fitted, grid_tokens, shrunk
from eve_jax.data.text.encode import IGNORE, IMAGE_ID, Encoded
from eve_jax.errors import UserError
from tests.data.synthetic import byte_tokenizer

grid_lists = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=4)


def encoded(text: str) -> Encoded:
    """`I` an image, `r` a token that is read, any other one that is learned."""
    ids = np.array([IMAGE_ID if c == "I" else ord(c) for c in text], np.int32)
    return Encoded(ids, np.array([IGNORE if c in "Ir" else ord(c) for c in text], np.int32))


def test_what_fits_stays() -> None:
    sample, grids = encoded("Irrab"), [(2, 3)]  # 4 text tokens, 6 patches, 3 specials
    for long in ("drop", "truncate_text", "shrink_image"):
        assert fitted(sample, grids, 13, long)[0] is sample
        assert fitted(sample, grids, 13, long)[1] is grids
    with pytest.raises(BadRecord, match="too long: 13 tokens, more than 12"):
        fitted(sample, grids, 12, "drop")


def test_text_is_cut_from_its_end() -> None:
    sample, grids = encoded("rIrabIcd"), [(1, 1), (1, 1)]
    short, same = fitted(sample, grids, 6 + 4, "truncate_text")
    assert same is grids
    assert short.ids.tolist() == encoded("rIrabI").ids.tolist()
    assert short.labels.tolist() == encoded("rIrabI").labels.tolist()
    with pytest.raises(BadRecord, match="too long: 12 tokens, more than 8; nothing to learn within them"):
        fitted(sample, grids, 8, "truncate_text")
    with pytest.raises(BadRecord, match="nothing to learn"):
        fitted(encoded("Iab"), [(9, 9)], 20, "truncate_text")
    with pytest.raises(BadRecord, match="nothing to learn"):  # nothing could predict a first token
        fitted(encoded("abc"), [], 1, "truncate_text")


def test_images_are_made_smaller() -> None:
    sample = encoded("IIrab")
    _, grids = fitted(sample, [(20, 10), (10, 5)], 3 + 120, "shrink_image")
    assert grids == [(12, 6), (6, 3)]
    with pytest.raises(BadRecord, match="even with the smallest images"):
        fitted(sample, [(20, 10), (10, 5)], 3 + 5, "shrink_image")
    with pytest.raises(BadRecord, match="even with the smallest images"):
        fitted(encoded("abcdefgh"), [], 7, "shrink_image")


@given(grid_lists, st.integers(0, 4000))
def test_shrunk_images_fit_and_keep_their_shape(grids: list[tuple[int, int]], room: int) -> None:
    longest = max(side for grid in grids for side in grid)

    def by(side: int) -> list[tuple[int, int]]:
        """All made smaller, so that the longest side is `side`."""
        return [(max(int(h * side / longest + 0.5), 1), max(int(w * side / longest + 0.5), 1)) for h, w in grids]

    options = [by(side) for side in range(longest, 0, -1)]
    fitting = [option for option in options if sum(grid_tokens(option)) <= room]
    smaller = shrunk(grids, room)
    assert smaller == (fitting[0] if fitting else None)


@settings(deadline=None)
@given(st.text("Irab", min_size=2, max_size=30), st.integers(1, 60), st.sampled_from(["truncate_text", "shrink_image"]))
def test_what_comes_out_fits(text: str, max_tokens: int, long: str) -> None:
    sample, grids = encoded(text), [(3, 4)] * text.count("I")
    try:
        short, smaller = fitted(sample, grids, max_tokens, long)
    except BadRecord:
        return
    assert len(short.ids) - len(smaller) + sum(grid_tokens(smaller)) <= max_tokens
    assert (short.ids == IMAGE_ID).sum() == len(smaller) == len(grids)
    assert [i for i in short.ids if i != IMAGE_ID] == [i for i in sample.ids if i != IMAGE_ID][
        : len(short.ids) - len(grids)
    ]


def write_samples(folder: Path) -> Path:
    """8 records of a big image and a short caption, 8 of a small one and a long caption, 4 of the biggest and long."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = []
    for number in range(20):
        big, wordy = number < 8 or number >= 16, number >= 8
        height, width = ((6 if wordy else 5) * PATCH, 6 * PATCH) if big else (2 * PATCH, PATCH)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(folder / "images" / f"{number}.png")
        turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "word " * (9 if wordy else 2)}]
        lines.append(json.dumps({"id": f"r{number}", "image": f"{number}.png", "conversations": turns}))
    (folder / "records.jsonl").write_text("\n".join(lines))
    return folder / "records.jsonl"


def stage(folder: Path, long: str, **changes: Any) -> ConfigDict:
    config = get_config("tiny")
    byte_tokenizer().save(folder / "tokenizer")
    config.data.update(
        {
            "records": str(write_samples(folder)),
            "images": str(folder / "images"),
            "tokenizer": str(folder / "tokenizer"),
            "image_mode": "anyresolution",
            "template": "plain",
            "max_tokens": 40,
            "row_tokens": 256,
            "rows": 2,
            "long": long,
            **changes,
        }
    )
    return config


def built(data: StageData) -> tuple[int, int]:
    """Tokens of all rows, and targets."""
    batches = [batch for _, step in data.batches() for batch in step]
    return sum(int((b["segment"] > 0).sum()) for b in batches), sum(int((b["loss_weight"] > 0).sum()) for b in batches)


@pytest.mark.parametrize(
    ("long", "kept", "truncated", "shrunk"),
    [("drop", 0, 0, 0), ("truncate_text", 16, 16, 0), ("shrink_image", 8, 0, 8)],
)
def test_a_stage_of_long_samples(tmp_path: Path, long: str, kept: int, truncated: int, shrunk: int) -> None:
    config = stage(tmp_path, long, max_tokens=40, max_bad=0)
    if not kept:
        with pytest.raises(
            UserError, match=r"none of the records can be used \(20 were left out; .*too long: 46 tokens"
        ):
            open_stage_data(config, tmp_path / "work")
        return
    for _ in range(2):  # measured, and read again
        data = open_stage_data(config, tmp_path / "work")
        totals = data.lengths.text + data.lengths.patches + data.lengths.specials
        assert totals.max() <= 40
        assert (len(data.lengths), data.lengths.truncated, data.lengths.shrunk) == (kept, truncated, shrunk)
        listed = [json.loads(line) for line in data.bad.path.read_text().splitlines()]
        assert len(listed) == 20 - kept
        assert all(entry["reason"].startswith("too long: ") and entry["found"] == "planning" for entry in listed)
        tokens, targets = built(data)
        assert tokens == totals.sum() == data.plan.stats["tokens"]
        assert targets == data.lengths.text.sum()
    if truncated:
        assert "16 texts cut to fit (config.data.long)" in data.summary()
    else:
        assert "8 samples' images made smaller to fit (config.data.long)" in data.summary()
        assert set(map(tuple, data.lengths.grids.tolist())) == {(4, 5)}


def test_a_changed_image_is_seen_though_it_was_made_smaller(tmp_path: Path) -> None:
    data = open_stage_data(stage(tmp_path, "shrink_image", max_bad=2), tmp_path / "work")
    Image.new("RGB", (6 * PATCH, 7 * PATCH)).save(tmp_path / "images" / "1.png")
    Image.new("RGB", (6 * PATCH, 5 * PATCH)).save(tmp_path / "images" / "2.png")  # another image of the same size
    built(data)
    listed = [json.loads(line) for line in data.bad.path.read_text().splitlines()]
    assert sorted((e["id"], e["reason"]) for e in listed if e["found"] == "training") == [
        ("r1", "the image changed its size since it was measured"),
        ("r2", "the image changed since it was measured"),
    ]


def test_an_unknown_way(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.data\.long: 'shrink' is not one of"):
        open_stage_data(stage(tmp_path, "shrink"), tmp_path / "work")
