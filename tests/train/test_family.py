"""Other members of the family train: packed as alone, on meshes as on one device, through a stage of each of NEO's."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eve_jax.batch import RowShape
from eve_jax.checkpoint.stage_folder import steps_in
from eve_jax.checkpoint.stored import stored_shapes
from eve_jax.data.rows.build import Batch, lay_out
from eve_jax.data.rows.spell import Sample
from eve_jax.hf.names import plain_llm
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import bind, init_params
from eve_jax.train.metrics import TIMED, read_metrics
from eve_jax.train.step import gradient_sums
from eve_jax.train.trainer import train
from eve_jax.weights.import_export import export_checkpoint
from eve_jax.weights.open import open_checkpoint
from launch._configs import load_config
from tests import family, reference
from tests.train.placing import demo_data

SHAPE = RowShape(24, 12, 92)
# Models that nobody has tried: EVEv2's patch embedding and vision weights with NEO's and with SAIL's rules.
MIXED: dict[str, dict[str, Any]] = {
    "dac, image, thw": {"image_attention": "image", "rope": "thw", "index_rule": "thw", "extra_layers": 1},
    "dac, prefix, sections": {"image_attention": "prefix", "rope": "sections", "index_rule": "max+1"},
}


STAGES = ("neo_mt", "neo_sft")


def samples() -> list[Sample]:
    """Three samples of text and images, with targets behind the last image."""
    rng = np.random.default_rng(0)
    found = []
    for grids in ([(2, 3)], [], [(3, 1), (1, 2)]):
        ids = rng.integers(1, 300, 14).astype(np.int32)
        ids[2 : 2 + len(grids)] = reference.IMAGE_ID
        labels = np.where(np.arange(14) > 7, ids, -100).astype(np.int32)
        found.append(Sample(ids, labels, grids))
    return found


def row(cfg: ModelConfig, which: list[int], seed: int = 1) -> Batch:
    """A row of samples, each image's pixels its own whatever else is in the row."""
    every = samples()
    rows = lay_out([every[i] for i in which], SHAPE, cfg.layout)
    patches, at = np.zeros((SHAPE.patches, 3072), np.uint8), 0
    for i in which:
        count = sum(h * w for h, w in every[i].grids)
        patches[at : at + count] = np.random.default_rng(seed + i).integers(0, 256, (count, 3072))
        at += count
    return {name: value[None] for name, value in (rows | {"patches": patches}).items()}


@pytest.mark.parametrize("routing", ["split", pytest.param("masked", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in MIXED])
def test_switches_combine_with_divided_weights_and_packing(name: str, routing: str) -> None:
    """Loss and gradients of three samples in one row as in rows of their own; what a neighbor holds has no part."""
    cfg = replace(reference.config(routing=routing), **MIXED[name])
    params = init_params(cfg, 0)
    sums = jax.jit(gradient_sums, static_argnums=0)
    packed = sums(cfg, params, {}, row(cfg, [0, 1, 2]))
    alone = sums(cfg, params, {}, {n: np.concatenate(v) for n, v in _each(cfg).items()})
    np.testing.assert_allclose(packed.loss, alone.loss, rtol=1e-6)
    for weight, gradient in alone.grads.items():
        close = np.linalg.norm(packed.grads[weight] - gradient) <= 1e-5 * np.linalg.norm(gradient)
        assert close, weight
    forward = jax.jit(lambda batch: bind(cfg, params)(batch))
    first, second = row(cfg, [0, 2]), row(cfg, [0, 2], seed=7)
    second["patches"][0, :6] = first["patches"][0, :6]
    length = 14 - 1 + cfg.layout.tokens_of(2, 3)
    ours, theirs = (np.asarray(forward(batch))[0][batch["perm"][0, :length]] for batch in (first, second))
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(np.asarray(forward(first)) - np.asarray(forward(second))).max() > 1e-3


def _each(cfg: ModelConfig) -> dict[str, list[np.ndarray]]:
    rows = [row(cfg, [i]) for i in range(3)]
    return {name: [one[name] for one in rows] for name in rows[0]}


@pytest.mark.slow
def test_neo_packed_equals_unpacked() -> None:
    cfg = family.neo()
    sums = jax.jit(gradient_sums, static_argnums=0)
    rows = [family.neo_row(cfg, [case], RowShape(16, 0, 112)) for case in family.CASES]
    alone = sums(cfg, family.neo_params(cfg), {}, {n: np.concatenate([one[n] for one in rows]) for n in rows[0]})
    packed = sums(cfg, family.neo_params(cfg), {}, family.neo_row(cfg))
    np.testing.assert_allclose(packed.loss, alone.loss, rtol=1e-6)
    for name, gradient in alone.grads.items():
        assert np.linalg.norm(packed.grads[name] - gradient) <= 1e-5 * np.linalg.norm(gradient), name


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("config", ["neo_pt", "neo_mt", "neo_sft"])
def test_a_stage_trains_and_resumes_with_the_same_bits(config: str, tmp_path: Path) -> None:
    data = demo_data(tmp_path / "data")
    c = load_config(f"{config}:llm=tiny,extra=1")
    c.data.update(records=f"{data}/sft.jsonl", images=f"{data}/images", tokenizer=f"{data}/tokenizer")
    c.data.update(row_tokens=512, max_tokens=512, rows=2, micro_batches=1, max_shapes=1, area=(1024, 16_384))
    c.model.patch_hidden = 32
    c.optim.warmup, c.optim.warmup_steps = 0.25, 0
    c.train.update(steps=4, save_every=2, keep=4)
    folder = train(c, tmp_path, quiet=True)
    wanted = [{k: v for k, v in line.items() if k not in TIMED} for line in read_metrics(folder)]
    assert len(wanted) == 4 and steps_in(folder) == [2, 4]
    sizes = json.loads((folder / "config.json").read_text())["model"]
    assert (sizes["image_attention"], sizes["extra_layers"], sizes["num_layers"]) == ("image", 1, 3)
    shutil.rmtree(folder / "checkpoints" / "4")
    again = train(c, tmp_path, quiet=True)
    assert [{k: v for k, v in line.items() if k not in TIMED} for line in read_metrics(again)] == wanted


def plain_llm_folder(folder: Path, tokenizer: Path) -> dict[str, np.ndarray]:
    """A random Qwen3 of the size `tiny` in `folder`, with a tokenizer; returns its tensors."""
    sizes = {"vocab_size": 1024, "hidden_size": 64, "intermediate_size": 160, "num_layers": 2, "num_heads": 4}
    switches: dict[str, Any] = {"num_kv_heads": 2, "head_dim": 16, "qk_norm": "head", "qkv_bias": False, "parts": ()}
    cfg = ModelConfig(**sizes | switches)
    params = init_params(cfg, 5)
    tensors: dict[str, np.ndarray] = {}
    for entry in plain_llm(cfg):
        values = params[entry.ours] if entry.stacked else [params[entry.ours]]
        pairs = zip(entry.names(cfg), values, strict=True)
        tensors |= {name: np.ascontiguousarray(entry.to_theirs(np.asarray(value))) for name, value in pairs}
    shutil.copytree(tokenizer, folder)
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "qwen3", "vocab_size": 1024, "hidden_size": 64, "intermediate_size": 160}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    config |= {"layer_types": ["full_attention"] * 2}  # as transformers writes it
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


@pytest.mark.slow
def test_from_a_plain_llm_to_a_folder_of_neo(tmp_path: Path) -> None:
    """Pre-training leaves every weight of the LLM as it is and stores none of them; the export is NEO's form."""
    data = demo_data(tmp_path / "data")
    tensors = plain_llm_folder(tmp_path / "qwen", data / "tokenizer")
    stages: dict[str, Path] = {}
    for config in ("neo_pt", "neo_mt"):
        c = load_config(f"{config}:llm={tmp_path / 'qwen'},extra=1")
        c.data.update(records=f"{data}/sft.jsonl", images=f"{data}/images", area=(1024, 16_384))
        c.data.update(row_tokens=512, max_tokens=512, rows=2, micro_batches=1, max_shapes=1)
        c.model.update(patch_hidden=32, frozen_dtype="float32")
        c.optim.warmup, c.optim.warmup_steps = 0.25, 0
        c.init = str(stages.get("neo_pt", tmp_path / "qwen"))
        c.train.update(steps=2, save_every=2)
        stages[config] = train(c, tmp_path, quiet=True)
    stored = stored_shapes(stages["neo_pt"], 2)
    assert {name.split(".")[0] for name in stored} == {"patch_embed", "extra", "layers"}
    assert all("_place." in name for name in stored if name.startswith("layers."))
    out = export_checkpoint(stages["neo_pt"], tmp_path / "out", quiet=True)
    made = load_file(out / "model.safetensors")
    for name, value in tensors.items():
        moved = re.sub(r"layers\.(\d+)", lambda found: f"layers.{int(found[1]) + 1}", name)
        np.testing.assert_array_equal(made[f"language_model.{moved}"], value, err_msg=name)
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["llm_config"]["num_hidden_layers"]) == ("neo_chat", 3)
    assert config["llm_config"]["extra_num_layers"] == 1
    again = open_checkpoint(out)
    assert again.cfg.layout == family.neo().layout and again.data["area"] == [1024, 16_384]
    trained = open_checkpoint(stages["neo_mt"]).params()
    assert any(np.any(trained[n] != v) for n, v in again.params().items() if n.startswith("layers.mlp"))
