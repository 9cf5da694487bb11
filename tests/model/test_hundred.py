"""The $100 model: its patch embedding, what of a conversation it learns, which images it takes."""

import numpy as np
import pytest

from eve_jax.batch import EVE_LAYOUT, Layout
from eve_jax.data.image.patches import patchify
from eve_jax.data.record import Turn
from eve_jax.data.text.encode import IGNORE, IMAGE_ID, encode_chat, prompt_ids
from eve_jax.errors import FieldError
from eve_jax.model.eve import bind, init_params
from tests.data.synthetic import byte_tokenizer
from tests.family import by_their_names
from tests.hundred import SIDES, hundred, patch_tokens


def test_patches_with_places_by_row_and_column() -> None:
    """Two images of different shapes in a row, next to the formula on their pixels."""
    cfg = hundred()
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=value.shape).astype(np.float32) for name, value in init_params(cfg, 0).items()}
    images = [rng.integers(0, 256, (8 * h, 8 * w, 3), np.uint8) for h, w in ((2, 3), (SIDES, 1))]
    place = np.concatenate([np.stack(np.divmod(np.arange(h * w), w), 1) for h, w in ((2, 3), (SIDES, 1))])
    patches = np.concatenate([patchify(image, 8) for image in images])
    ours = bind(cfg, params).patch_embed({"patches": patches[None], "place": place[None].astype(np.int32)})
    tensors = by_their_names(cfg, params)
    wanted = np.concatenate([patch_tokens(image, tensors, 8) for image in images])
    np.testing.assert_allclose(np.asarray(ours)[0], wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_questions_and_headers_are_targets() -> None:
    tokenizer = byte_tokenizer(("<|im_start|>", "<|im_end|>"))
    turns = [Turn("human", "<image>\nWhat?"), Turn("gpt", "This."), Turn("human", "Why?"), Turn("gpt", "So.")]
    encoded = encode_chat(turns, tokenizer, "hundred", 1)
    same = encode_chat(turns, tokenizer, "qwen3", 1)
    np.testing.assert_array_equal(encoded.ids, same.ids)
    np.testing.assert_array_equal(encoded.labels, np.where(encoded.ids == IMAGE_ID, IGNORE, encoded.ids))
    assert (same.labels == IGNORE).sum() > 20
    asked = prompt_ids(turns, tokenizer, "hundred", 1)
    np.testing.assert_array_equal(asked, encoded.ids[: len(asked)])


def test_an_image_with_a_side_longer_than_the_tables() -> None:
    layout = hundred().layout
    assert not layout.refuses(SIDES, 1) and not layout.refuses(1, SIDES)
    for h, w in ((SIDES + 1, 1), (1, SIDES + 1)):
        assert layout.refuses(h, w) == f"an image of {h} x {w} patches, a side of more than config.model.patch_sides=5"
    assert layout.key[-1] == SIDES and len(Layout(longest=3).key) == len(EVE_LAYOUT) - 1, "as before there were any"


def test_tables_without_a_size_and_sizes_without_tables() -> None:
    with pytest.raises(FieldError, match=r"patch_sides=0, and config\.model\.patch_embed=ln_linear_pos: ln_linear"):
        hundred(patch_sides=0)
    with pytest.raises(FieldError, match=r"patch_sides=5, and config\.model\.patch_embed=linear"):
        hundred(patch_embed="linear")
