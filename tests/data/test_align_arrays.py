"""The arrays of the patch aligning layer in packed rows: each place learns from the teacher's patch that lies there."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eve_jax.batch import RowShape
from eve_jax.data.image.patches import Pixels, open_pixels, patchify, unpatchify
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.plan.plan import MicroBatch, PlanSettings, build_plan
from eve_jax.data.rows.align_arrays import most_images, place_images, teacher_image
from eve_jax.data.rows.bad_records import BadRecords
from eve_jax.data.rows.build import RowBuilder
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records
from tests.data.synthetic import byte_tokenizer, write_records

RULES = {
    1: ImageRule("square", max_size=48, patch=8, teacher=(24, 4)),
    2: ImageRule("square", max_size=96, patch=8, teacher=(24, 4)),
}


@pytest.mark.parametrize("pool", RULES)
@pytest.mark.parametrize(("width", "height"), [(90, 60), (50, 110), (64, 64), (300, 20)])
def test_places_are_where_the_teacher_looks(pool: int, width: int, height: int) -> None:
    """An image whose color is its place, seen by windows and by the teacher: both see the same at every place."""
    rule = RULES[pool]
    assert rule.pool == pool
    y, x = np.mgrid[:height, :width]
    red, green = 255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1)
    image = Image.fromarray(np.stack([red, green, np.full_like(red, 200)], axis=2).astype(np.uint8))
    h, w = rule.grid(width, height)
    shape = RowShape(2 * h * w + 5, 2 * (h + 1), 10)
    arrays = place_images([(h, w, 1.0), (h, w, 0.5)], shape, rule)
    places = h * w // pool**2
    weight = arrays["align_weight"]
    np.testing.assert_allclose([weight[:places].sum(), weight[places : 2 * places].sum()], [1.0, 0.5], rtol=1e-6)
    assert not weight[2 * places :].any()
    windows = patchify(np.asarray(image.resize((w * 8, h * 8), Image.Resampling.BICUBIC)), 8).reshape(h * w, -1, 3)
    mean = np.concatenate([windows.mean(axis=1), windows.mean(axis=1), np.zeros((5, 3))])
    order = arrays.get("pool", np.arange(shape.patches))
    assert np.array_equal(np.sort(order), np.arange(shape.patches))
    if pool > 1:
        assert np.array_equal(order[arrays["pool_inv"]], np.arange(shape.patches))
    pooled = mean[order][: 2 * places * pool**2].reshape(2 * places, pool**2, 3).mean(axis=1)
    seen = (
        teacher_image(Pixels(np.asarray(image), image.size), rule)
        .reshape(6, 4, 6, 4, 3)
        .swapaxes(1, 2)
        .reshape(36, 16, 3)
        .mean(axis=1)
    )
    seen = np.concatenate([seen, seen])
    np.testing.assert_allclose(seen[arrays["teacher_idx"][: 2 * places]], pooled, atol=6)
    assert set(arrays["teacher_idx"][places : 2 * places] // 36) == {1}


def test_rows(tmp_path: Path) -> None:
    """Batches hold the teacher's images in the order of the row; a broken image's places weigh nothing."""
    records = open_records(str(write_records(tmp_path, 12)), tmp_path / "images")
    rule = SampleRule(byte_tokenizer(), RULES[2], "qwen2", max_tokens=2000)
    lengths = measure(records, rule)
    plan = build_plan(lengths, PlanSettings(2048, 2, rows=2, micro_batches=1, epochs=1, seed=0))
    most = most_images(plan, lengths)
    counts = dict.fromkeys(plan.shapes, 0)
    for step in range(plan.steps):
        shape, rows = plan.step(step)[0]
        counts[shape] = max(counts[shape], *(sum(len(records[int(lengths.record[e])].images) for e in r) for r in rows))
    assert most == counts
    shape = RowShape(432, 48, 1568)
    bad = BadRecords(tmp_path / "work", 5)
    builder = RowBuilder(records, lengths, rule, bad, {shape: 3})
    batch = builder.build(MicroBatch(shape, [(2, 1), (0,), ()]))
    assert batch["teacher_images"].shape == (3, 3, 24, 24, 3)
    images = [*records[2].images, *records[1].images]
    for number, file in enumerate(images):
        seen = teacher_image(open_pixels(file, rule.images), rule.images)
        assert np.array_equal(batch["teacher_images"][0, number], seen)
    assert not batch["teacher_images"][1:].any()
    np.testing.assert_allclose(batch["align_weight"].sum(axis=1), [3, 0, 0], rtol=1e-6)
    h, w = lengths.entry_grids(2)[0]
    assert unpatchify(batch["patches"][0, : h * w], h, w).shape == (h * 8, w * 8, 3)
    (tmp_path / "images" / "2_1.png").write_bytes(b"")
    batch = builder.build(MicroBatch(shape, [(2, 1), (0,), ()]))
    np.testing.assert_allclose(batch["align_weight"].sum(axis=1), [1, 0, 0], rtol=1e-6)
