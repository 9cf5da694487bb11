"""Gemma 4 Unified trains: packed as alone, whatever neighbors hold, images of any aspect ratio, adapters, resumed."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from eve_jax.checkpoint.stage_folder import steps_in
from eve_jax.model.eve import bind, init_params
from eve_jax.train.metrics import TIMED, read_metrics
from eve_jax.train.step import gradient_sums
from eve_jax.train.trainer import train
from eve_jax.weights.import_export import export_checkpoint
from launch._configs import load_config
from tests.train.placing import demo_data
from tests.weights.gemma import packed_row, tiny_gemma, write_gemma

# Of a weight's largest gradient: float32 sums in another order over six layers come to 3e-5 here.
CLOSE = 5e-5
CHANGES: list[dict[str, Any]] = [{}, {"image_reach": "window"}, {"parts": ("layernorm", "self_attn", "mlp")}]


@pytest.mark.slow
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_packed_as_alone(changes: dict[str, Any]) -> None:
    """Loss and gradients of three samples in one row as in rows of their own.

    What a neighbor holds has no part in a sample's logits.
    """
    cfg = tiny_gemma(**changes)
    params = init_params(cfg, 0)
    sums = jax.jit(gradient_sums, static_argnums=0)
    packed = sums(cfg, params, {}, packed_row(cfg, [0, 1, 2]))
    each = [packed_row(cfg, [i]) for i in range(3)]
    alone = sums(cfg, params, {}, {name: np.concatenate([one[name] for one in each]) for name in each[0]})
    np.testing.assert_allclose(packed.loss, alone.loss, rtol=1e-6)
    for name, gradient in alone.grads.items():
        assert np.abs(packed.grads[name] - gradient).max() <= CLOSE * np.abs(gradient).max(), name
        constant = name.startswith("layers.turn") and name.count(".") == 2  # the scale of a layer's output
        assert bool(np.any(gradient)) != constant, name
    forward = jax.jit(lambda batch: bind(cfg, params)(batch))
    first, second = packed_row(cfg, [0, 2]), packed_row(cfg, [0, 2], seed=7)
    second["patches"][0, :6] = first["patches"][0, :6]
    ours, theirs = (np.asarray(forward(batch))[0][batch["perm"][0, :19]] for batch in (first, second))
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(np.asarray(forward(first)) - np.asarray(forward(second))).max() > 1e-3


def lines_of(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if k not in TIMED} for line in read_metrics(folder)]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("lora", ["", ",lora=4"])
def test_a_folder_trains_resumes_and_goes_back(lora: str, tmp_path: Path) -> None:
    """The same losses after a run that was cut; an export that has learned, under transformers' names."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    data = demo_data(tmp_path / "data")
    write_gemma(tmp_path / "gemma")
    c = load_config(f"gemma4_sft:llm={tmp_path / 'gemma'},tokens=70{lora}")
    c.data.update(records=f"{data}/sft.jsonl", images=f"{data}/images")
    c.data.update(row_tokens=512, max_tokens=512, rows=2, micro_batches=1, max_shapes=1)
    c.model.frozen_dtype = "float32"  # what stays frozen keeps its bits
    c.train.update(steps=4, save_every=2, keep=4)
    folder = train(c, tmp_path, quiet=True)
    wanted = lines_of(folder)
    assert len(wanted) == 4 and steps_in(folder) == [2, 4]
    shutil.rmtree(folder / "checkpoints" / "4")
    assert lines_of(train(c, tmp_path, quiet=True)) == wanted
    before = load_file(tmp_path / "gemma" / "model.safetensors")
    out = export_checkpoint(folder, tmp_path / "out", quiet=True)
    after = load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert not any("layer_scalar" in name for name in moved) and any("layers.5.self_attn.k_proj" in n for n in moved)
    assert json.loads((out / "config.json").read_text())["model_type"] == "gemma4_unified"
