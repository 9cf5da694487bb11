"""import and export: bit for bit, exactly the original's names, from and into one file or shards."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from eve_jax.checkpoint.stage_folder import Checkpoints
from eve_jax.checkpoint.vision_copies import add_vision_copies
from eve_jax.infer.api import EVE
from eve_jax.model.config import VARIANTS
from eve_jax.model.eve import abstract_params, bind, init_params
from eve_jax.train.initial_state import initial_params
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from eve_jax.weights.open import load_params, open_checkpoint
from tests import reference as ref
from tests.launcher import launch
from tests.weights import folders

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("half", [False, True])
def test_import_export(tmp_path, shards, half):
    tensors, config = folders.golden()
    tensors = folders.as_bfloat16(tensors) if half else tensors
    hf = folders.write_hf(tmp_path / "hf", tensors, config, shards)
    ours = import_checkpoint(str(hf), tmp_path / "ours", quiet=True)
    out = export_checkpoint(ours, tmp_path / "out", max_shard_gb=0.0004 if shards > 1 else 5.0, quiet=True)
    folders.same(folders.read_hf(out), tensors)
    assert sorted(folders.read_hf(out)) == sorted(ref.read_json("A_meta")["parameter_names"])
    assert len(list(out.glob("*.safetensors"))) == (1 if shards == 1 else 2 if half else 4)
    assert (out / "model.safetensors.index.json").exists() == (shards > 1)
    assert (out / "tokenizer.json").read_bytes() == (hf / "tokenizer.json").read_bytes()
    written = json.loads((out / "config.json").read_text())
    for key in config.keys() - {"architectures", "torch_dtype", "_name_or_path", "_attn_implementation"}:
        assert written.get(key, config[key]) == config[key], key
    assert written["torch_dtype"] == ("bfloat16" if half else "float32")
    again = import_checkpoint(str(out), tmp_path / "again", quiet=True)
    folders.same(load_params(again)[1], load_params(ours)[1])
    assert (again / "config.json").read_text() == (ours / "config.json").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "hf", "ours", "out"]


@pytest.mark.parametrize("deltas", [True, False])
def test_llama3(tmp_path, deltas):
    tensors, config = folders.golden_llama(deltas)
    hf = folders.write_hf(tmp_path / "hf", tensors, config, shards=2)
    ours = import_checkpoint(str(hf), tmp_path / "ours", quiet=True)
    checkpoint = open_checkpoint(ours)
    assert checkpoint.cfg.parts == VARIANTS["rep" if deltas else "dense"]
    assert checkpoint.data["template"] == "llama3"
    out = export_checkpoint(ours, tmp_path / "out", quiet=True)
    folders.same(folders.read_hf(out), tensors)
    names = ref.read_json("C_meta")["parameter_names" if deltas else "dense_parameter_names"]
    assert sorted(folders.read_hf(out)) == sorted(names)
    written = json.loads((out / "config.json").read_text())
    assert (written["model_type"], written["add_moe"], written["moe_part"]) == ("eve-llama3", deltas, None)


def test_deltas_are_folded_where_the_original_has_no_name_for_them(tmp_path):
    """On a Qwen2 backbone always, on LLaMA-3 on request: the same model with single weights."""
    tensors, config = folders.plain("qwen2")
    hf = folders.write_hf(tmp_path / "hf", tensors, config)
    ours = import_checkpoint(str(hf), tmp_path / "ours", variant="rep", quiet=True)
    assert open_checkpoint(ours).cfg.parts == VARIANTS["rep"]
    out = folders.read_hf(export_checkpoint(ours, tmp_path / "out", quiet=True))
    assert not [name for name in out if "moe_" in name]
    folders.same({name: out[name] for name in tensors}, tensors)  # deltas that have not trained change nothing
    llama, config = folders.golden_llama()
    by_hand = {name: value.copy() for name, value in llama.items() if "moe_" not in name}
    for name in [n for n in llama if n.endswith(("moe_up_proj", "moe_down_proj"))]:
        gate = llama[name.replace("_proj", "_gate")]
        by_hand[f"{name.replace('moe_', '')}.weight"] += np.tanh(10 * gate) * llama[name].T
    hf = folders.write_hf(tmp_path / "llama", folders.golden_llama()[0], config)
    folded = folders.read_hf(export_checkpoint(hf, tmp_path / "folded", folded=True, quiet=True))
    assert folded.keys() == by_hand.keys()
    for name, value in by_hand.items():
        np.testing.assert_allclose(folded[name], value, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("parts", ["", "mlp", "self_attn-mlp", "layernorm"])
@pytest.mark.parametrize("tied", [False, True])
def test_every_part_setting(tmp_path, parts, tied):
    tensors, config = folders.golden(parts, tied)
    hf = folders.write_hf(tmp_path / "hf", tensors, config)
    checkpoint = open_checkpoint(hf)
    assert checkpoint.cfg.parts == tuple(filter(None, parts.split("-")))
    assert checkpoint.cfg.tie_embeddings == tied
    folders.same(folders.read_hf(export_checkpoint(hf, tmp_path / "out", quiet=True)), tensors)


def test_stored_values_are_those_of_the_original(tmp_path):
    hf = folders.write_hf(tmp_path / "hf", *folders.golden())
    ours = import_checkpoint(str(hf), tmp_path / "ours", quiet=True)
    cfg, params = load_params(ours)
    expected = {k: np.asarray(v) for k, v in ref.params(ref.config()).items()}
    folders.same({k: np.asarray(v) for k, v in params.items()}, expected)
    assert replace(cfg, remat="none") == ref.config()
    folders.same({k: np.asarray(v) for k, v in open_checkpoint(hf).params().items()}, expected)
    batch = ref.alone()
    logits = ref.in_causal_order(batch, bind(cfg, params)(batch), 0, 0, ref.LENGTHS[0])
    np.testing.assert_allclose(logits, ref.tensors("A_outputs")["logits"][0], atol=2e-5)


def test_export_of_a_trained_stage_with_a_cast(tmp_path):
    """Stored by the trainer: one chunk a parameter, mixed dtypes, an optimizer next to it."""
    tensors, config = folders.golden()
    hf = folders.write_hf(tmp_path / "hf", tensors, config)
    stage = tmp_path / "stage"
    stage.mkdir()
    imported = import_checkpoint(str(hf), tmp_path / "imported", quiet=True)
    data = {"image_mode": "anyratio_hd", "max_size": 1600, "max_aspect": 4.0, "template": "qwen2"}
    settings = json.loads((imported / "config.json").read_text()) | {"init": str(imported), "data": data}
    (stage / "config.json").write_text(json.dumps(settings))
    params = load_params(imported)[1]
    mixed = {k: v if "vision" in k else v.astype(jnp.bfloat16) for k, v in params.items()}
    checkpoints = Checkpoints(stage)
    checkpoints.save(7, mixed, {"count": jnp.zeros(())}, {"plan": "", "steps": 7})
    checkpoints.close()
    kept = folders.read_hf(export_checkpoint(stage, tmp_path / "kept", quiet=True))
    assert {str(v.dtype) for v in kept.values()} == {"float32", "bfloat16"}
    cast = export_checkpoint(stage, tmp_path / "cast", "bfloat16", quiet=True)
    folders.same(folders.read_hf(cast), folders.as_bfloat16(tensors))
    written = json.loads((cast / "config.json").read_text())
    assert (written["eos_token_id"], written["pad_token_id"]) == (318, 319), "of the config it was imported with"
    assert open_checkpoint(cast).data == data


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("tied", [False, True])
def test_plain_llm(tmp_path, kind, tied):
    tensors, config = folders.plain(kind, tied)
    hf = folders.write_hf(tmp_path / "hf", tensors, config, shards=2)
    ours = import_checkpoint(str(hf), tmp_path / "ours", variant="dac", seed=3, quiet=True)
    cfg, params = load_params(ours)
    assert (cfg.qkv_bias, cfg.rope_theta, cfg.rms_norm_eps) == (kind == "qwen2", 5e5, 1e-5)
    assert (cfg.parts, cfg.head_dim) == (VARIANTS["dac"], 16)
    folders.same(params, add_vision_copies(cfg, params))
    for name, value in params.items():
        if ".vision." in name:
            np.testing.assert_array_equal(value, params[name.replace(".vision.", ".text.")])
    text = export_checkpoint(ours, tmp_path / "text", text_only=True, quiet=True)
    folders.same(folders.read_hf(text), tensors)
    back = open_checkpoint(text)
    assert back.cfg == open_checkpoint(hf).cfg
    assert not list(text.glob("*.py"))
    eve = export_checkpoint(ours, tmp_path / "eve", quiet=True)
    assert open_checkpoint(eve).cfg == cfg
    folders.same(open_checkpoint(eve).params(), params)


def test_tied_head_saved_all_the_same(tmp_path):
    tensors, config = folders.plain("qwen2", tied=True)
    double = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    checkpoint = open_checkpoint(folders.write_hf(tmp_path / "hf", double, config))
    assert "head" not in checkpoint.params()


def test_a_stage_starts_from_hugging_face(tmp_path):
    hf = folders.write_hf(tmp_path / "hf", *folders.plain("qwen2"))
    cfg = replace(open_checkpoint(hf, "dac", patch_hidden=24).cfg, param_dtype="float32")
    config = ConfigDict({"init": str(hf), "seed": 5, "name": "stage2_1", "teacher": "", "encoder": ""})
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    params, _ = initial_params(config, cfg, dict.fromkeys(abstract_params(cfg), place))
    assert {k: v.shape for k, v in params.items()} == {k: v.shape for k, v in abstract_params(cfg).items()}
    fresh = init_params(replace(cfg, parts=()), 5)
    for name in params:
        if name.startswith("patch_embed."):
            np.testing.assert_array_equal(params[name], fresh[name], err_msg=name)


def test_answers_from_either_folder(tmp_path):
    hf = folders.write_hf(tmp_path / "hf", *folders.golden())
    ours = import_checkpoint(str(hf), tmp_path / "ours", quiet=True)
    answers = [EVE.from_pretrained(folder).answer("Why?", max_new_tokens=4).new_ids for folder in (hf, ours)]
    assert answers[0] == answers[1]
    assert len(answers[0]) == 4


def test_command_line(tmp_path):
    hf = folders.write_hf(tmp_path / "hf", *folders.plain("llama"))
    ours, out = tmp_path / "ours", tmp_path / "out"
    done = launch("launch.convert", "import", f"--from={hf}", f"--to={ours}", "--variant=moe")
    assert done.returncode == 0, done.stderr
    done = launch("launch.convert", "export", f"--from={ours}", f"--to={out}", "--dtype=bfloat16")
    assert done.returncode == 0, done.stderr
    assert {str(v.dtype) for v in folders.read_hf(out).values()} == {"bfloat16"}
    again = launch("launch.convert", "import", f"--from={out}", f"--to={tmp_path / 'again'}")
    assert (again.returncode, again.stderr) == (0, "")  # no field of an export of ours is unknown
    done = launch("launch.convert", "export", f"--from={ours}", f"--to={out}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "exists already" in done.stderr
    for words, says in {
        "merge --dtype=bfloat16": "--dtype is for export, not for merge",
        "import --ema": "--ema is for export, whole, merge, not for import",
        "export --noprivate": "--private is of what --push=ORG/NAME uploads",
        "export --peft --push=a/b": "--push goes without --peft, which writes the adapters as they are to --to",
    }.items():
        done = launch("launch.convert", *words.split(), f"--from={ours}", f"--to={out}")
        assert (done.returncode, done.stderr) == (1, f"error: {says}\n")
    done = launch("launch.convert", f"--from={ours}", f"--to={out}")
    assert done.returncode == 1
    assert "import|export" in done.stderr
