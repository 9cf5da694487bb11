"""Rows looked at: what is drawn is what the arrays hold, and that is what the records say."""

from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs.base import get_config
from eve_jax.data.image.patches import open_image, patchify, resize, unpatchify
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.rows.pipeline import StageData, open_stage_data
from eve_jax.data.view import draw, typeset
from eve_jax.data.view.step import rows_of_step, show_step
from eve_jax.data.view.take_apart import PAD, PATCH, SPECIAL, TEXT, ShownRow
from eve_jax.errors import UserError
from tests.data.synthetic import byte_tokenizer, write_records

RULE = ImageRule("anyratio_ld", max_size=96)


def stage_config(folder: Path) -> ConfigDict:
    config = get_config("tiny")
    byte_tokenizer().save(folder / "tokenizer")
    config.data.update({"records": str(write_records(folder, 30)), "images": str(folder / "images")})
    config.data.update({"tokenizer": str(folder / "tokenizer"), "image_mode": RULE.mode, "max_size": RULE.max_size})
    config.data.update({"max_tokens": 512, "row_tokens": 768, "rows": 3, "max_shapes": 2})
    return config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> StageData:
    folder = tmp_path_factory.mktemp("show")
    return open_stage_data(stage_config(folder), folder / "stage")


def test_patches_become_the_image_again() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 160, 3), np.uint8)
    assert np.array_equal(unpatchify(patchify(pixels), 2, 5), pixels)


def test_samples_are_taken_apart_into_what_they_were_made_of(data: StageData) -> None:
    seen = set()
    records = {record.id: record for record in data.builder.records}
    for step in range(data.plan.steps):
        for row in rows_of_step(data, step, 100):
            for sample in row.samples:
                seen.add(sample.id)
                record = records[sample.id]
                images = [piece.image for piece in sample.pieces if piece.image is not None]
                assert len(images) == len(record.images)
                for image, file in zip(images, record.images, strict=True):
                    assert np.array_equal(image, resize(open_image(file), RULE))
                learnt = "".join(piece.text for piece in sample.pieces if piece.learnt)
                assert learnt == " " + record.turns[1].text + "<|im_end|>"
                text = "".join("<image>" if piece.image is not None else piece.text for piece in sample.pieces)
                assert f"USER: {record.turns[0].text} ASSISTANT:{learnt}" in text
                assert sample.n_learnt == len(record.turns[1].text) + 2
    assert seen == set(records)


def test_counts_add_up(data: StageData) -> None:
    for row in rows_of_step(data, 0, 100):
        for kind, budget in zip((PATCH, SPECIAL, TEXT), row.shape, strict=True):
            own = int((row.kind == kind).sum())
            assert own == sum(sample.counts[kind] for sample in row.samples) <= budget
        assert int((row.kind == PAD).sum()) == row.shape.length - sum(sum(sample.counts) for sample in row.samples)
        assert int(row.learnt.sum()) == sum(sample.n_learnt for sample in row.samples)
        assert sorted(row.slots.tolist()) == list(range(row.shape.length))


def test_rows_are_chosen_from_all_micro_batches(data: StageData) -> None:
    rows = rows_of_step(data, 0, 2)
    assert [row.title for row in rows] == ["row 1 of 3, micro-batch 1 of 2", "row 1 of 3, micro-batch 2 of 2"]
    assert len(rows_of_step(data, 0, 100)) == 6
    with pytest.raises(UserError, match=rf"--step={data.plan.steps}: the plan has {data.plan.steps} steps"):
        rows_of_step(data, data.plan.steps, 2)


def test_a_sample_that_broke_is_said_to_be_masked(data: StageData, tmp_path: Path) -> None:
    data = open_stage_data(stage_config(tmp_path), tmp_path / "stage")
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"broken")
    samples = [sample for row in rows_of_step(data, 0, 100) for sample in row.samples]
    assert any(sample.n_learnt == 0 for sample in samples)
    for sample in samples:
        assert (sample.n_learnt == 0) == bool(sample.counts.patches)
        assert not any(piece.image.any() for piece in sample.pieces if piece.image is not None)


def test_the_picture(data: StageData, tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    out = tmp_path / "new" / "rows.png"
    show_step(config, None, 0, str(out), max_rows=3)
    with Image.open(out) as picture:
        assert picture.size[0] == draw.WIDTH
        assert picture.size[1] > 3 * 300
        found = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or []}
    assert {draw._shade(number, kind) for number in (1, 2) for kind in (PATCH, SPECIAL, TEXT)} <= found
    assert [path.name for path in out.parent.iterdir()] == ["rows.png"]
    with pytest.raises(UserError, match=r"--out=.*\.jpg: name a file that ends with \.png"):
        show_step(config, None, 0, str(tmp_path / "a.jpg"), max_rows=3)
    (tmp_path / "b.png").mkdir()
    with pytest.raises(UserError, match=r"--out=.*b\.png is a folder"):
        show_step(config, None, 0, str(tmp_path / "b.png"), max_rows=3)


def test_the_plan_of_a_training_is_used_and_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = stage_config(tmp_path)
    (tmp_path / "images" / "1_0.png").unlink()
    stage = tmp_path / "stage"
    open_stage_data(config, stage)
    (tmp_path / "images" / "2_0.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in stage.rglob("*")}
    drawn: list[str] = []

    def note(rows: list[ShownRow], title: str, about: str) -> Image.Image:
        drawn.append(about)
        return Image.new("RGB", (9, 9))

    monkeypatch.setattr(draw, "draw_rows", note)
    show_step(config, stage, 0, str(tmp_path / "a.png"), max_rows=1)
    config.data.row_tokens = 1024
    show_step(config, stage, 0, str(tmp_path / "a.png"), max_rows=1)
    show_step(config, None, 0, str(tmp_path / "a.png"), max_rows=1)
    assert {path: path.stat().st_mtime_ns for path in stage.rglob("*")} == before
    assert [about.rpartition("; ")[2] for about in drawn] == [
        "1 records left out",
        "1 records left out",
        "2 records left out",
    ]


def test_images_are_fitted_and_ruled(data: StageData) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)
    drawn = np.asarray(draw._ruled(pixels, 32, 500))
    scale = min(draw.MAX_IMAGE / 96, 2.5)
    assert drawn.shape == (round(96 * scale), round(64 * scale), 3)
    large = np.full((1600, 1600, 3), 77, np.uint8)
    assert np.array_equal(np.unique(np.asarray(draw._ruled(large, 32, 500))), [77])  # no lines where patches are tiny


def test_bars_show_every_slot(data: StageData) -> None:
    row: ShownRow = rows_of_step(data, 0, 1)[0]
    strip = np.asarray(draw._strip(draw._colours(row), row.shape.length * 4, 5))
    assert np.array_equal(strip[2, 1::4], draw._colours(row))


def test_text_is_wrapped_and_cut_with_a_word_about_it() -> None:
    runs = [("What is\nit? ", False), ("word " * 30, True), ("x" * 300, False)]
    lines = typeset.wrapped(runs, 400, 100)
    assert all(line[-1].x + line[-1].width <= 400 + 6 for line in lines)
    assert "".join(run.text for run in lines[0]) == "What is↵"
    joined = "".join(run.text for line in lines for run in line).replace(" ", "")
    assert joined == "Whatis↵it?" + "word" * 30 + "x" * 300
    assert {run.text.strip(): run.learnt for line in lines for run in line}["word"] is True
    short = typeset.wrapped(runs, 400, 3)
    assert len(short) == 4
    assert short[-1][0].text.startswith("… ")
    assert typeset.wrapped([], 400, 3) == []
