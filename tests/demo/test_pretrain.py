"""The demo's own vision encoder and vision tokenizer: what they learn, and that a model reads what is written."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import towers
from eve_jax.demo.config import DemoConfig
from eve_jax.demo.dataset import write_dataset
from eve_jax.demo.pretrain.contrast import Pair, train_encoder, write_tower
from eve_jax.demo.pretrain.images import Drawn, batches, drawn
from eve_jax.demo.pretrain.reconstruct import Autoencoder, nearest, train_tokenizer, write_vq
from eve_jax.demo.pretrain.run import lines, pretrain
from eve_jax.demo.pretrain_config import PretrainConfig
from eve_jax.demo.settings import TINY
from eve_jax.errors import UserError
from eve_jax.hf.clip_teacher import describe_teacher, load_teacher, tower_only
from eve_jax.hf.vq_folder import read_vq
from eve_jax.model.clip_config import ClipConfig
from eve_jax.model.eve import abstract_params, bind
from eve_jax.model.vq import codes_of
from tests.data.synthetic import byte_tokenizer

FEW = {"steps": 2, "batch": 4, "images": 6, "checked": 4}
ENCODER = replace(towers.ENCODER, **FEW, image_size=32, patch_size=16, hidden_size=32, num_layers=2, num_heads=2)
TOKENIZER = replace(towers.TOKENIZER, **FEW, image_size=16, multipliers=(1, 1), codes=12)


def noise(side: int, count: int = 10) -> Drawn:
    """Images of noise, each with a number as its caption."""
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return Drawn(images, [f"number {n}" for n in range(count)])


def test_a_model_reads_the_tower_that_is_written(tmp_path: Path) -> None:
    pair = Pair(ENCODER.sizes, 300, nnx.Rngs(0))
    write_tower(tmp_path / "encoder", ENCODER.sizes, pair.tower)
    sizes = describe_teacher(tmp_path / "encoder")
    assert sizes == ClipConfig(32, 16, 32, 128, 2, 2)
    found = load_teacher(tmp_path / "encoder", sizes)
    images = noise(32).images
    model = bind(tower_only(sizes), {**_rest(sizes), **found})
    np.testing.assert_allclose(model.teacher(images), pair.tower(jnp.asarray(images)), atol=1e-5)


def _rest(sizes: ClipConfig) -> dict:
    return {name: np.zeros(shape.shape, shape.dtype) for name, shape in abstract_params(tower_only(sizes)).items()}


def test_a_coder_reads_the_encoder_that_is_written(tmp_path: Path) -> None:
    model = Autoencoder(TOKENIZER.sizes, nnx.Rngs(0))
    write_vq(tmp_path / "tokenizer", TOKENIZER.sizes, model.encoder)
    cfg, params = read_vq(tmp_path / "tokenizer")
    assert cfg == TOKENIZER.sizes
    images = noise(16).images
    codes = nearest(model.encoder.latents(jnp.asarray(images)), model.encoder.table[...])
    np.testing.assert_array_equal(codes_of(cfg, jax.device_put(params), images), codes)
    assert len(np.unique(codes)) > 1


@pytest.mark.slow
def test_an_encoder_learns_which_caption_is_whose(tmp_path: Path) -> None:
    task = replace(ENCODER, steps=150, batch=16, images=16, checked=16, lr=3e-3)
    shown = noise(32, 16)
    twice = Drawn(np.concatenate([shown.images] * 2), shown.captions * 2)
    figures = train_encoder(tmp_path, task, twice, byte_tokenizer(), 0)
    assert figures["found"] > 0.9 and figures["loss"] < 0.5, "chance is 1/16, and 2.77 nats"
    assert (figures["among"], figures["seen"]) == (16, 2400)


@pytest.mark.slow
def test_a_tokenizer_learns_to_give_images_back(tmp_path: Path) -> None:
    """Images of two colors each: some codes say nearly all of it."""
    colors = np.random.default_rng(0).integers(0, 256, (40, 1, 2, 3), dtype=np.uint8)
    images = np.repeat(np.repeat(colors, 16, axis=1), 8, axis=2)
    task = replace(TOKENIZER, steps=200, batch=16, images=32, checked=8, codes=32, lr=3e-3)
    figures = train_tokenizer(tmp_path, task, Drawn(images, [""] * 40), 0)
    assert figures["error"] < figures["error_of_mean_color"] / 2
    assert 4 < figures["codes_used"] <= 32


def test_every_image_comes_once_before_any_comes_again() -> None:
    seen = np.concatenate(list(batches(6, 4, 3, 0)))
    assert sorted(seen[:6]) == sorted(seen[6:12]) == [*range(6)]


def test_images_are_others_than_the_records(tmp_path: Path) -> None:
    one, again, other = (drawn(TINY, seed, "encoder", 3, 32) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.images, again.images)
    assert one.captions == again.captions and one.captions != other.captions
    assert one.images.shape == (3, 32, 32, 3) and not np.array_equal(one.images, other.images)


@pytest.mark.slow
def test_what_is_there_is_kept(tmp_path: Path) -> None:
    demo = DemoConfig(size="tiny", seed=0, answer_batch=1, max_new_tokens=1)
    write_dataset(tmp_path / "data", seed=0, settings=demo.dataset)
    config = PretrainConfig(encoder=ENCODER, tokenizer=TOKENIZER, codes=("data/questions.jsonl",))
    pretrain(config, demo, tmp_path)
    kept = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.safetensors")}
    assert len(kept) == 2 and (tmp_path / "codes/questions/eve_records.json").is_file()
    figures = json.loads((tmp_path / "encoder/pretrain.json").read_text())
    assert {*figures} == {"loss", "found", "among", "seen"}
    pretrain(config, demo, tmp_path)
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.safetensors")} == kept
    pretrain(replace(config, encoder=replace(ENCODER, steps=3), tokenizer=None, codes=()), demo, tmp_path)
    changed = {f for f in kept if f.stat().st_mtime_ns != kept[f]}
    assert changed == {tmp_path / "encoder/model.safetensors"}


def test_settings() -> None:
    config = PretrainConfig(encoder=ENCODER, tokenizer=TOKENIZER, codes=("data/captions.jsonl",))
    assert [*lines(config)] == [
        "  before: the encoder sees 8 images, 6 different ones, in 2 steps",
        "  before: the tokenizer sees 8 images, 6 different ones, in 2 steps",
        "  before: codes of the images of data/captions.jsonl, once",
    ]
    with pytest.raises(UserError, match=r"pretrain\.codes are of a tokenizer: give .*pretrain\.tokenizer"):
        PretrainConfig(codes=("data/captions.jsonl",))
    with pytest.raises(UserError, match=r"pretrain\.encoder\.batch=7 is more than the 6 images"):
        replace(ENCODER, batch=7)
