"""NEO's and SAIL's images and conversations: sizes, pixels, ids and labels of their own code (tests/golden/family)."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eve_jax.data.image.patches import patchify, resize, unpatchify
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.image.size_rules import BUDGETS, sail_size
from eve_jax.data.record import BadRecord, Turn
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.text.encode import IMAGE_ID, Encoded, encode_chat, prompt_ids, render
from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.templates import check_template, get_template
from eve_jax.data.view.take_apart import take_apart
from eve_jax.errors import UserError
from eve_jax.model.plain_patches import IMAGENET
from tests import family as ref
from tests.data.synthetic import byte_tokenizer

FACTS = ref.facts("neo_preprocess")


def rule(setting: str) -> ImageRule:
    return ImageRule("neo", max_aspect=0.0, area=tuple(FACTS["settings"][setting]))


@pytest.mark.parametrize("setting", FACTS["settings"])
def test_sizes_of_neo(setting: str) -> None:
    for one in FACTS["sizes"]:
        if one[setting] == "ValueError":
            with pytest.raises(BadRecord, match="one side is more than 200 times the other"):
                rule(setting).resized(one["width"], one["height"])
        else:
            assert rule(setting).resized(one["width"], one["height"])[::-1] == tuple(one[setting])


def test_several_images_of_a_record_share_an_area() -> None:
    for one in FACTS["several_images"]:
        shared = rule(one["setting"]).among(one["n_images"])
        assert shared.area[1] == one["max_pixels"]
        assert shared.resized(1600, 1200)[::-1] == tuple(one["of_1200x1600"])


def test_pixels_of_neo() -> None:
    """Resized images bit for bit, and float32 patches, channel by channel, from ours."""
    for one in FACTS["pixels"]:
        image = Image.open(ref.FOLDER / one["image"]).convert("RGB")
        resized = resize(image, rule(one["setting"]))
        assert hashlib.sha256(resized.tobytes()).hexdigest() == one["sha256_resized_uint8"]
        h, w = one["grid_hw"]
        ours = patchify(resized).reshape(h // 2, w // 2, 2, 2, 16, 16, 3).transpose(0, 2, 1, 3, 6, 4, 5)
        scaled = ours.reshape(h * w, 3, 256).astype(np.float32) / np.float32(255)
        mean, std = (of_channels[:, None] for of_channels in IMAGENET)
        floats = (scaled - mean) / std
        assert hashlib.sha256(floats.astype("<f4").tobytes()).hexdigest() == one["sha256_float32"]


def test_sizes_of_sail() -> None:
    for one in ref.facts("sail_meta")["resize"]:
        assert sail_size(one["width"], one["height"], 32) == tuple(one["out_wh"])
    assert ImageRule("sail", max_aspect=0.0).resized(100_000, 10)[1] == 32, "a side of none in the original"


def test_sizes_of_gemma_at_every_budget() -> None:
    """Those of transformers' image processor."""
    for one in json.loads((ref.FOLDER / "gemma_sizes.json").read_text()):
        for tokens in BUDGETS:
            taken = ImageRule("gemma", max_aspect=0.0, patch=48, tokens=tokens)
            assert taken.resized(one["width"], one["height"]) == tuple(one[str(tokens)])
            h, w = taken.grid(one["width"], one["height"])
            assert h * w <= tokens
    assert ImageRule("gemma", max_aspect=0.0, patch=48).resized(640, 480) == (912, 672), "280 tokens by default"
    with pytest.raises(UserError, match=r"tokens=100: expected 70, 140, 280, 560, 1120 for image_mode=gemma alone"):
        ImageRule("gemma", patch=48, tokens=100)


@pytest.mark.parametrize("given", [(1, 0), (9, 3), (0, 5)])
def test_an_area_that_is_none(given: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=r"area=\(\d, \d\): expected the smallest and the largest area"):
        ImageRule("neo", area=given)
    with pytest.raises(UserError, match="for image_mode=neo alone"):
        ImageRule("anyratio_ld", area=(1, 2))


def test_rows_without_special_tokens_are_taken_apart(tokenizer: Any) -> None:
    """Two images, and one in a later turn, as the pixels that they were made of."""
    cfg = ref.neo()
    for case in ("two", "middle"):
        shown = take_apart(ref.neo_row(cfg, [case]), 0, ["a"], tokenizer)
        (sample,) = shown.samples
        found = [piece.image for piece in sample.pieces if piece.image is not None]
        wanted = [unpatchify(p, *grid) for p, grid in zip(ref.neo_patches(case), ref.neo_grids(case), strict=True)]
        assert len(found) == len(wanted) and all(map(np.array_equal, found, wanted))
        assert sample.counts.specials == 0 and any("<img>" in piece.text for piece in sample.pieces)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("neo")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(ref.FOLDER / f"neo_{name}", folder / name)
    return load_tokenizer(folder)


@pytest.mark.parametrize("case", ref.facts("neo_templates")["conversations"], ids=lambda case: case["name"])
def test_conversations_of_neo(case: dict[str, Any], tokenizer: Any) -> None:
    check_template(tokenizer, "neo")
    turns = [Turn(turn["from"], turn["value"]) for turn in case["conversations"]]
    sizes = case["tokens_per_image"]
    encoded = encode_chat(turns, tokenizer, "neo", len(sizes))
    asked = prompt_ids(turns, tokenizer, "neo", len(sizes))

    def expanded(ids: np.ndarray, values: np.ndarray, patch: int) -> list[int]:
        left = iter(sizes)
        found = [[patch] * next(left) if id == IMAGE_ID else [value] for id, value in zip(ids, values, strict=True)]
        return [int(value) for part in found for value in part]

    assert expanded(encoded.ids, encoded.ids, ref.PATCH_ID) == case["small_ids"]
    assert expanded(encoded.ids, encoded.labels, -100) == case["small_labels"]
    assert expanded(asked, asked, ref.PATCH_ID) == case["prompt_last_turn_expanded_small_ids"]


def test_texts_without_an_image_keep_their_line_ends() -> None:
    """SAIL's images go to the front; line ends go with them, and with nothing else."""
    turns = [Turn("human", "\nA list?"), Turn("gpt", "\n- one")]
    assert render(turns, "sail") == "[INST] \nA list? [/INST] \n- one</s>"


def test_the_tokenizer_of_a_base_gets_the_tokens_that_it_lacks(tmp_path: Path) -> None:
    given = byte_tokenizer()
    first = given.vocab_size
    adds = get_template("neo").adds
    given.add(adds)
    assert [given.find(token) for token in adds] == list(range(first, first + 13))
    given.add(adds)
    given.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.vocab_size == first + 13 and again.encode("a<img>b")[1] == first + 1
    assert again.encode("<img>", special_text=False) != [first + 1]


def test_an_image_that_is_longer_than_training_takes(tokenizer: Any) -> None:
    layout = ref.neo(longest_image=6).layout
    taken = SampleRule(tokenizer, rule("tiny"), "neo", layout=layout)
    sample = ref.neo_sample("one")
    encoded = Encoded(sample.ids, sample.labels)
    assert taken.fit(encoded, [(2, 3)])[1] == [(2, 3)]
    with pytest.raises(BadRecord, match=r"an image of 8 tokens, more than config\.model\.longest_image=6"):
        taken.fit(encoded, [(2, 4)])
