"""The row contract: what is declared is what docs/design.md says, and what data, engine and compiler make."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from eve_jax.batch import Layout, RowShape, TeacherShape, batch_arrays, place_arrays, row_shape, token_arrays, zeros
from eve_jax.compile.abstract import abstract_batch
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.rows.align_arrays import place_images, teacher_shape
from eve_jax.data.rows.build import lay_out
from eve_jax.data.rows.spell import Sample
from eve_jax.data.text.encode import IGNORE
from eve_jax.infer.prompt import Prompt, pack_prompts
from eve_jax.sharding import make_mesh

DESIGN = Path(__file__).parents[1] / "docs" / "design.md"
SHAPE = RowShape(36, 7, 85)
SIZES = {"R": 3, "P": 36, "S": 7, "T": 85, "L": 128, "12 s²": 3072, "I": 2, "s": 24, "A": 9, "2": 2, "3": 3}
EVERY = Layout(index_rule="thw", sees="image", places=True)
SQUARE = ImageRule("square", max_size=96, patch=8, teacher=(24, 4))  # a place is 2 x 2 patches


def described() -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """The arrays in the tables of docs/design.md#row-contract, with dimensions of SIZES."""
    text = DESIGN.read_text().split("## Row contract")[1].split("### Inference")[0]
    found: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    for names, dims, dtype in re.findall(r"^\| (`[^|]+`) \| \[([^]]+)\] (\w+)[^|]* \|", text, re.M):
        shape = tuple(SIZES[dim] for dim in dims.split(", "))
        found |= {name: (shape, np.dtype(dtype)) for name in re.findall(r"`(\w+)`", names)}
    return found


def made(arrays: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    return {name: (tuple(array.shape), np.dtype(array.dtype)) for name, array in arrays.items()}


def test_the_document_says_what_is_declared():
    arrays = batch_arrays(3, SHAPE, 3072, TeacherShape(images=2, side=24, pool=2), EVERY)
    assert described() == arrays
    assert len(arrays) == 18
    assert set(batch_arrays(3, SHAPE, 3072, TeacherShape(2, 24, 1), EVERY)) == set(arrays) - {"pool", "pool_inv"}
    assert set(batch_arrays(3, SHAPE, 3072, TeacherShape(2, 24, 2))) == set(arrays) - {"index", "end", "place"}
    assert list(batch_arrays(3, SHAPE, 3072)) == ["patches", *token_arrays(SHAPE)]
    empty = zeros(arrays)
    assert made(empty) == arrays
    assert not any(array.any() for array in empty.values())
    assert row_shape(empty) == SHAPE


def test_rows_are_as_declared():
    ids = np.arange(5, dtype=np.int64)
    for samples in ([], [Sample(ids, np.full(5, IGNORE), [])], [Sample(ids, ids, [], 0.5)]):
        assert made(lay_out(samples, SHAPE)) == token_arrays(SHAPE)
        assert made(lay_out(samples, SHAPE, EVERY)) == token_arrays(SHAPE, EVERY)
    for rule in (SQUARE, ImageRule("square", max_size=48, patch=8, teacher=(24, 4))):
        for images in ([], [(2, 4, 1.0)]):
            assert made(place_images(images, SHAPE, rule)) == place_arrays(SHAPE, rule.pool)


def test_prompts_are_as_declared():
    image = np.ones((6, 3072), np.uint8)
    prompts = [Prompt(np.arange(9)), Prompt(np.array([-200, 5]), [image], [(2, 3)]), Prompt(np.arange(3))]
    batch, (lengths, _) = pack_prompts(prompts, SHAPE)
    assert made(batch) == batch_arrays(3, SHAPE, 3072)
    assert lengths.tolist() == [9, 10, 3]
    assert batch["patches"].sum(axis=(1, 2)).tolist() == [0, image.size, 0]


@pytest.mark.parametrize("taught", [False, True])
def test_abstract_batches_are_as_declared(taught):
    shape = RowShape(288, 20, 76)
    batch = abstract_batch(shape, 2, make_mesh("fsdp:-1", jax.devices()[:1]), SQUARE, taught)
    assert made(batch) == batch_arrays(2, shape, 192, teacher_shape(SQUARE, 3) if taught else None)
