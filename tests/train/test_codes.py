"""A model with a vision vocabulary: codes made once, rows of codes, stages, chat and score with the encoder."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from safetensors.numpy import save_file

from configs import dt
from eve_jax.checkpoint.stage_folder import CHECKPOINTS, newest_step
from eve_jax.config.stage import Config
from eve_jax.data.image.codes import as_codes, as_patches, codes_file, digest_of_tokenizer, stored_codes
from eve_jax.data.image.patches import load_patches
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.image.square import padded
from eve_jax.data.image_file import BadImage
from eve_jax.data.prepare.convert import Conversion, convert
from eve_jax.data.samples.data_fingerprint import check_rule
from eve_jax.data.samples.sample_rule import VISION_TOKENIZER, SampleRule
from eve_jax.errors import UserError
from eve_jax.hf.vision_tokenizer import VisionCoder, with_coder
from eve_jax.hf.vq_folder import names_of
from eve_jax.infer.api import EVE
from eve_jax.model.eve import declared
from eve_jax.model.vq import VqConfig, vq_shapes
from eve_jax.train.metrics import read_metrics
from eve_jax.train.stage_files import write_stage_files
from eve_jax.train.trainer import train
from eve_jax.weights.open import load_params
from tests.data.synthetic import byte_tokenizer, write_records

WEIGHTS = "model.safetensors"
VQ = VqConfig(image_size=16, channels=32, multipliers=(1, 1), blocks=1, codes=300)


def write_vq(folder: Path, seed: int = 0) -> Path:
    """A random encoder under SBER's names, of 2 x 2 pixels a code."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    tensors = {}
    shapes = vq_shapes(VQ)
    for ours, theirs in names_of(VQ, "chameleon"):
        value = rng.normal(size=shapes[ours].shape).astype(np.float32) * (0.2 if value_of(ours) else 1)
        tensors[theirs] = np.ascontiguousarray(value.transpose(3, 2, 0, 1) if value.ndim == 4 else value)
    save_file(tensors, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps({"model_type": "sber_movqgan", **VQ.to_dict()}))
    return folder


def value_of(name: str) -> bool:
    return name != "table"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Records, a text tokenizer, a vision tokenizer, and the records with codes for images."""
    folder = tmp_path_factory.mktemp("codes")
    write_records(folder, 24)
    byte_tokenizer().save(folder / "tokenizer")
    write_vq(folder / "vq")
    rule = SampleRule.of(Config.of(stage(folder, "dt1", "1"))).images
    coder = replace(rule, coder=VisionCoder(folder / "vq"))
    convert(
        Conversion(
            str(folder / "records.jsonl"), str(folder / "images"), str(folder / "shards"), 10, "headers", codes=coder
        )
    )
    return folder


def stage(folder: Path, name: str, kind: str, init: str = "", steps: int = 3) -> ConfigDict:
    c = dt.codes_config("tiny-llama", "" if init else str(folder / "vq"), codes=300, patch=2, image_size=16)
    c.name, c.stage, c.init = name, kind, init
    c.model.dtype = "float32"
    c.data.template = "qwen2"
    c.data.records, c.data.tokenizer = str(folder / "shards"), str(folder / "tokenizer")
    c.data.max_tokens = c.data.row_tokens = 384
    c.data.max_shapes, c.data.rows = 2, 2
    c.optim.lr, c.optim.warmup = 1e-2, 0.0
    c.train.steps = steps
    return c


def test_codes_are_kept_as_they_are(tmp_path):
    codes = np.arange(12, dtype=np.int32).reshape(3, 4) * 4000
    (tmp_path / "a.png").write_bytes(codes_file(codes, "abc"))
    np.testing.assert_array_equal(stored_codes(tmp_path / "a.png", "abc"), codes)
    np.testing.assert_array_equal(as_codes(as_patches(codes)), codes.reshape(-1))
    with pytest.raises(BadImage, match="another vision tokenizer"):
        stored_codes(tmp_path / "a.png", "xyz")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    assert stored_codes(tmp_path / "b.png", "abc") is None


def test_codes_are_not_trained_on_as_pixels(data, tmp_path):
    (tmp_path / "a.png").write_bytes(codes_file(np.zeros((8, 8), np.int32), "abc"))
    with pytest.raises(BadImage, match="holds codes of a vision tokenizer, not an image"):
        load_patches(tmp_path / "a.png", ImageRule("anyratio_ld", max_size=64, max_aspect=0.0))


def written(folder: Path, c: ConfigDict, resumed: bool = False) -> str:
    """The files of the stage folder `folder`, written; the digest of its vision tokenizer."""
    config = Config.of(c)
    folder.mkdir(exist_ok=True)
    write_stage_files(folder, config, SampleRule.of(config), resumed, verified=True)
    return digest_of_tokenizer(folder / VISION_TOKENIZER)


def test_a_dead_runs_vision_tokenizer_is_replaced(data, tmp_path):
    folder = tmp_path / "dt1"
    write_vq(folder / VISION_TOKENIZER, seed=1)
    assert written(folder, stage(data, "dt1", "1")) == digest_of_tokenizer(data / "vq")
    assert not os.path.samefile(folder / VISION_TOKENIZER / WEIGHTS, data / "vq" / WEIGHTS)  # anybody writes the latter


def test_that_of_checkpoints_is_the_one_that_they_began_with(data, tmp_path, capsys):
    """Another one is refused and stays; one that is gone comes back."""
    folder, c = tmp_path / "dt1", stage(data, "dt1", "1")
    began = written(folder, c)
    assert written(folder, c, resumed=True) == began
    shutil.rmtree(folder / VISION_TOKENIZER)
    other = digest_of_tokenizer(write_vq(folder / VISION_TOKENIZER, seed=1))
    with pytest.raises(UserError, match=r"dt1/vision_tokenizer is not the vision tokenizer .* remove it, and that of"):
        written(folder, c, resumed=True)
    assert digest_of_tokenizer(folder / VISION_TOKENIZER) == other != began
    assert not capsys.readouterr().out
    shutil.rmtree(folder / VISION_TOKENIZER)
    assert written(folder, c, resumed=True) == began
    assert "dt1/vision_tokenizer was missing: written again" in capsys.readouterr().out


@pytest.mark.parametrize("linked", [True, False])
def test_stages_share_the_files_of_a_vision_tokenizer(data, tmp_path, monkeypatch, linked):
    """Where the file system can; each has it when the other is gone."""
    if not linked:

        def other_disk(source: Path, target: Path) -> None:
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", other_disk)
    first, second = tmp_path / "dt1", tmp_path / "dt2"
    digest = written(first, stage(data, "dt1", "1"))
    (first / CHECKPOINTS / "1").mkdir(parents=True)
    assert written(second, stage(data, "dt2", "2.2", f"{first}@1")) == digest
    names = [path.name for path in (first / VISION_TOKENIZER).iterdir()]
    same = [os.path.samefile(first / VISION_TOKENIZER / name, second / VISION_TOKENIZER / name) for name in names]
    assert same == [linked] * 2
    shutil.rmtree(first)
    assert digest_of_tokenizer(second / VISION_TOKENIZER) == digest


def test_checkpoints_name_their_vision_tokenizer(data, tmp_path):
    """Training with another one is refused by that name, and so is asking a stage with another one in it."""
    rule = SampleRule.of(Config.of(stage(data, "dt1", "1")))
    now = rule.fingerprint()
    assert now["vision_tokenizer"] == digest_of_tokenizer(data / "vq")
    check_rule(tmp_path, {name: now[name] for name in now.keys() - {"vision_tokenizer"}}, now, rule)  # of older ones
    other = now | {"vision_tokenizer": "other", "image_rule": "other"}
    with pytest.raises(UserError, match=r"config\.data\.vision_tokenizer is not the vision tokenizer that its"):
        check_rule(tmp_path, other, now, rule)
    shutil.copytree(data / "vq", tmp_path / VISION_TOKENIZER)
    meta = tmp_path / CHECKPOINTS / "1" / "meta" / "metadata"
    meta.parent.mkdir(parents=True)
    for saved in ({}, {"data": now}):
        meta.write_text(json.dumps(saved))
        assert with_coder(rule.images, tmp_path).vocabulary == now["vision_tokenizer"]
    meta.write_text(json.dumps({"data": other}))
    with pytest.raises(UserError, match="vision_tokenizer is not the vision tokenizer that the checkpoints next to it"):
        with_coder(rule.images, tmp_path)


@pytest.mark.slow
def test_stages_and_what_reads_them(data, tmp_path):
    """The vocabulary, then everything, twice; a chat and a score make codes themselves, the same ones."""
    init, params = "", {}
    for name, kind in (("dt1", "1"), ("dt2", "2.2"), ("dt3", "3")):
        c = stage(data, name, kind, init)
        c.train.save_every, c.train.keep = 2, 4
        init = str(train(c, tmp_path / "runs", quiet=True))
        cfg, params[name] = load_params(Path(init))
        assert np.isfinite([line["loss"] for line in read_metrics(Path(init))]).all()
    groups = {n: weight.group for n, weight in declared(cfg).items()}
    moved = {groups[n] for n in groups if not np.array_equal(params["dt1"][n], params["dt3"][n])}
    assert moved == {"vocabulary", "text"} == set(groups.values())
    folder = tmp_path / "runs" / "dt3"
    shutil.rmtree(folder / CHECKPOINTS / "3")
    train(c, tmp_path / "runs", quiet=True)
    assert newest_step(folder) == 3
    again = load_params(folder)[1]
    assert all(np.array_equal(np.asarray(again[n]), np.asarray(value)) for n, value in params["dt3"].items())
    eve = EVE.from_pretrained(folder)
    image = next((data / "images").glob("*.png"))
    assert eve.prompt("What?", str(image)).need[:2] == (64, 0)
    assert isinstance(eve.generate("What?", str(image), max_new_tokens=2), str)
    prepared, plain = (eve.score(data / name, data / "images").loss for name in ("shards", "records.jsonl"))
    assert prepared == pytest.approx(plain, abs=1e-6)
    (row,) = load_patches(image, eve.rule.images)[:1]
    with Image.open(image) as opened:
        own = VisionCoder(data / "vq")(padded(opened.convert("RGB"), 16)[None])[0]
    np.testing.assert_array_equal(as_codes(row), own.reshape(-1))
    assert len(np.unique(own)) > 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model.codes": 299}, "model.codes=299, but the vision tokenizer in .* has 300"),
        ({"data.patch": 4, "model.sub_patch": 2}, "data.patch=4, but the vision tokenizer"),
        ({"data.vision_tokenizer": "nowhere"}, r"nowhere holds no vision tokenizer; .* vq=DIR"),
        ({"data.image_mode": "pad"}, "vq codes"),
    ],
)
def test_what_does_not_fit_is_noticed_at_once(data, tmp_path, change, says):
    c = stage(data, "dt1", "1")
    c.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=says):
        train(c, tmp_path / "runs", quiet=True)


def test_images_are_not_trained_on(data, tmp_path):
    """Records whose images were not made codes break, with what to do."""
    rule = SampleRule.of(Config.of(stage(data, "dt1", "1"))).images
    with pytest.raises(BadImage, match=r"make codes of the records by launch\.prepare_data"):
        load_patches(next((data / "images").glob("*.png")), rule)


def test_the_config():
    for number, kind in (("1", "1"), ("2", "2.2"), ("3", "3")):
        c = dt.get_config(f"stage={number}")
        assert (c.name, c.stage, c.model.patch_embed, c.model.codes) == (f"dt{number}", kind, "vq", 16_384)
        assert (c.data.image_mode, c.data.patch, c.data.max_size, c.model.sub_patch) == ("codes", 8, 256, 4)
