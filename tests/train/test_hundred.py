"""The $100 model through its config, from a plain LLM to a folder under its own names, asked and scored."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from eve_jax.checkpoint.stage_folder import steps_in
from eve_jax.data.image.patches import resize
from eve_jax.errors import UserError
from eve_jax.infer.api import EVE
from eve_jax.model.eve import bind
from eve_jax.train.metrics import TIMED, read_metrics
from eve_jax.train.trainer import train
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from eve_jax.weights.open import open_checkpoint
from launch._configs import load_config
from tests.hundred import patch_tokens
from tests.train.placing import demo_data
from tests.train.test_family import plain_llm_folder


def lines_of(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if k not in TIMED} for line in read_metrics(folder)]


@pytest.mark.long
@pytest.mark.slow
def test_from_a_plain_llm_to_a_folder(tmp_path: Path) -> None:
    """A run that was cut resumes with the same bits; the folder of its export is opened, asked, scored and trained."""
    data = demo_data(tmp_path / "data")
    plain_llm_folder(tmp_path / "qwen", data / "tokenizer")
    c = load_config(f"hundred:llm={tmp_path / 'qwen'},sides=6")
    assert c.data.records.startswith("hf:HuggingFaceM4/FineVision:densefusion_1m,")
    c.data.update(records=f"{data}/sft.jsonl", images=f"{data}/images", max_size=128)
    c.data.update(row_tokens=512, max_tokens=512, rows=2, micro_batches=1, max_shapes=1)
    c.model.frozen_dtype = "float32"
    c.train.update(steps=4, save_every=2, keep=4)
    folder = train(c, tmp_path, quiet=True)
    wanted = lines_of(folder)
    assert len(wanted) == 4 and steps_in(folder) == [2, 4]
    assert all(line["targets"] > 100 for line in wanted), "questions are targets"
    shutil.rmtree(folder / "checkpoints" / "4")
    assert lines_of(train(c, tmp_path, quiet=True)) == wanted

    out = export_checkpoint(folder, tmp_path / "out", quiet=True)
    config, tensors = json.loads((out / "config.json").read_text()), load_file(out / "model.safetensors")
    assert config["eve_patches"] == {"patch_size": 32, "hidden_size": 64, "sides": 6}
    assert config["model_type"] == "qwen3"
    eve = EVE.from_pretrained(out)
    assert eve.rule.template == "hundred" and eve.rule.images.max_size == 128
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))
    prompt = eve.prompt("What?", [image])
    h, w = prompt.grids[0]
    place = np.stack(np.divmod(np.arange(h * w, dtype=np.int32), w), 1)
    opened = open_checkpoint(out)
    seen = bind(opened.cfg, opened.params()).patch_embed({"patches": prompt.patches[0][None], "place": place[None]})
    vision = {name: value for name, value in tensors.items() if "vision" in name}
    assert len(vision) == 11
    formula = patch_tokens(resize(image, eve.rule.images), vision, 32)
    np.testing.assert_allclose(np.asarray(seen)[0], formula, rtol=0, atol=2e-5 * np.abs(formula).max())
    assert len(eve.answer("What?", [image], max_new_tokens=3).new_ids) <= 3
    with pytest.raises(UserError, match=r"of 2 x 12 patches, a side of more than config\.model\.patch_sides=6"):
        eve.prompt("What?", [Image.new("RGB", (320, 32))])
    stage = import_checkpoint(str(out), tmp_path / "stage", quiet=True)
    again = export_checkpoint(stage, tmp_path / "again", quiet=True)
    same = load_file(again / "model.safetensors")
    assert same.keys() == tensors.keys() and all(np.array_equal(same[name], tensors[name]) for name in same)
    assert json.loads((again / "config.json").read_text())["eve_patches"] == config["eve_patches"]
    assert load_config(f"hundred:llm={out}").model.patch_sides == 6
