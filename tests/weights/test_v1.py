"""EVEv1 folders in and out: bit for bit, with and without what aligning needs; greedy tokens of golden set D."""

import json

import numpy as np
import pytest

from eve_jax.data.image.patches import patchify, resize
from eve_jax.errors import UserError
from eve_jax.hf.clip_teacher import TWIN, with_aligning
from eve_jax.infer.engine import Engine
from eve_jax.infer.prompt import Prompt
from eve_jax.model.eve import init_params
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from eve_jax.weights.open import load_params, open_checkpoint
from tests import reference as ref
from tests import reference_v1 as v1
from tests.weights import folders, folders_v1


@pytest.mark.parametrize(("name", "aligning"), [("D1", True), ("D1", False), ("D2", True)])
def test_import_export(tmp_path, name, aligning):
    tensors, config = folders_v1.golden(name, aligning)
    hf = folders.write_hf(tmp_path / "hf", folders.as_bfloat16(tensors), config, shards=2)
    ours = import_checkpoint(str(hf), tmp_path / "ours", quiet=True)
    cfg = open_checkpoint(ours).cfg
    assert (cfg.patch_embed, cfg.sub_patch, cfg.parts) == ("v1", v1.config(name).sub_patch, ())
    assert cfg.teacher == (v1.config(name, aligned=True).teacher if aligning else None)
    assert cfg.align_width == (32 if aligning else 0)
    out = export_checkpoint(ours, tmp_path / "out", quiet=True)
    folders.same(folders.read_hf(out), folders.as_bfloat16(tensors))
    written = json.loads((out / "config.json").read_text())
    assert written["model_type"] == "eve"
    for key in config.keys() - {"architectures", "torch_dtype", "_name_or_path", "_attn_implementation", "eve_jax"}:
        assert written.get(key, config[key]) == config[key] or key == "requires_cliploss", key
    again = import_checkpoint(str(out), tmp_path / "again", quiet=True)
    folders.same(load_params(again)[1], load_params(ours)[1])
    bare = export_checkpoint(ours, tmp_path / "bare", aligning=False, quiet=True)
    plain, _ = folders_v1.golden(name, aligning=False)
    folders.same(folders.read_hf(bare), folders.as_bfloat16(plain))


def test_the_teacher_under_two_names(tmp_path):
    """The original's state holds it twice."""
    tensors, config = folders_v1.golden("D1")
    first = "model.vision_clip.backbone."
    twins = {TWIN + k.removeprefix(first): v for k, v in tensors.items() if k.startswith(first)}
    both = folders.write_hf(tmp_path / "both", tensors | twins, config)
    second = folders.write_hf(
        tmp_path / "second", {k: v for k, v in tensors.items() if not k.startswith(first)} | twins, config
    )
    wanted = open_checkpoint(folders_v1.write(tmp_path / "one", "D1")).params()
    for folder in (both, second):
        folders.same(open_checkpoint(folder).params(), wanted)
    twins[TWIN + "vision_model.post_layernorm.bias"] = np.ones(32, np.float32)
    other = folders.write_hf(tmp_path / "other", tensors | twins, config)
    with pytest.raises(UserError, match="which are one weight"):
        open_checkpoint(other)


def test_a_name_too_many(tmp_path):
    tensors, config = folders_v1.golden("D1")
    hf = folders.write_hf(tmp_path / "hf", tensors | {"model.vision_tower.extra": np.ones(2, np.float32)}, config)
    with pytest.raises(UserError, match=r"vision_tower\.extra is unknown"):
        open_checkpoint(hf)


@pytest.mark.parametrize("name", v1.NAMES)
def test_greedy_tokens(tmp_path, name):
    checkpoint = open_checkpoint(folders_v1.write(tmp_path / "hf", name))
    golden = ref.read_json(f"{name}_meta")["generate"]
    sized, image = v1.rule(name), v1.picture(name, golden["image_index"])
    patches = patchify(resize(image, sized), sized.patch)
    prompt = Prompt(np.array(golden["prompt_ids"], np.int32), [patches], [sized.grid(*image.size)])
    cfg, params = checkpoint.for_inference()
    assert not any(n.startswith(("align.", "teacher.")) for n in params)
    assert Engine(cfg, params).generate([prompt], 12, []) == [golden["new_tokens"]]


def test_a_stage_completes_or_drops_what_aligning_needs(tmp_path):
    bare = open_checkpoint(folders_v1.write(tmp_path / "bare", "D1", aligning=False)).params()
    full = open_checkpoint(folders_v1.write(tmp_path / "full", "D1")).params()
    cfg, plain = v1.config("D1", aligned=True), v1.config("D1")
    assert with_aligning(cfg, cfg, full, "", 0).keys() == full.keys()
    assert with_aligning(plain, cfg, full, "", 0).keys() == bare.keys()
    with pytest.raises(UserError, match=r"config\.teacher"):
        with_aligning(cfg, plain, bare, "", 0)
    assert with_aligning(cfg, plain, bare, "random", 0).keys() == full.keys()
    np.testing.assert_array_equal(
        with_aligning(cfg, cfg, full, "random", 0)["teacher.embed.conv"], full["teacher.embed.conv"]
    )
    fresh = init_params(cfg, 5, "align")
    taught = {name: value for name, value in full.items() if name.startswith("teacher.")}
    done = with_aligning(cfg, plain, bare | taught, "", 5)
    assert done.keys() == full.keys()
    for name in fresh:
        np.testing.assert_array_equal(done[name], fresh[name])
