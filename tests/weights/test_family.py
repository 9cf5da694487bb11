"""NEO's and SAIL's folders: opened, imported, exported, asked and scored; its start from a plain LLM."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from eve_jax.data.image.size_rules import NEO_AREA
from eve_jax.data.text.encode import IMAGE_ID
from eve_jax.errors import UserError
from eve_jax.hf.export_config import check_exported, hf_config
from eve_jax.hf.family import member
from eve_jax.infer.api import EVE
from eve_jax.infer.parameters import ready
from eve_jax.model.config import ModelConfig
from eve_jax.model.family_config import EVE_FIELDS
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from eve_jax.weights.open import open_checkpoint
from tests import family as ref
from tests.hundred import hundred
from tests.launcher import launch
from tests.weights.sail import sail_folder

CHAT = ("--max_new_tokens=16", "--json")
FILES = {
    "neo_config.json": "config.json",
    "neo_tokenizer.json": "tokenizer.json",
    "neo_tokenizer_config.json": "tokenizer_config.json",
    "neo_special_tokens_map.json": "special_tokens_map.json",
    "neo_weights.safetensors": "model.safetensors",
}


def neo_folder(folder: Path, **changes: Any) -> Path:
    """The golden model as a folder; `changes` to the sections of its config.json."""
    folder.mkdir()
    for source, name in FILES.items():
        shutil.copyfile(ref.FOLDER / source, folder / name)
    config = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def sizes(cfg: ModelConfig) -> dict[str, Any]:
    return {name: value for name, value in vars(cfg).items() if name not in ("remat", "dtype", "frozen_dtype")}


def test_import_and_export_keep_every_bit(tmp_path: Path) -> None:
    folder = neo_folder(tmp_path / "neo")
    stage = import_checkpoint(str(folder), tmp_path / "stage", quiet=True)
    out = export_checkpoint(stage, tmp_path / "out", quiet=True)
    golden, made = ref.tensors("neo_weights"), load_file(out / "model.safetensors")
    assert golden.keys() == made.keys()
    for name, value in golden.items():
        np.testing.assert_array_equal(made[name], value, err_msg=name)
    before, after = (json.loads((place / "config.json").read_text()) for place in (folder, out))
    for section in ("llm_config", "vision_config"):
        assert before[section] == {name: after[section].get(name) for name in before[section]}
    assert {name: after[name] for name in ("model_type", "template", "auto_map", "architectures")} == {
        name: before[name] for name in ("model_type", "template", "auto_map", "architectures")
    }
    again = open_checkpoint(out)
    assert sizes(again.cfg) == sizes(ref.neo()) and again.data == open_checkpoint(folder).data
    assert again.data["area"] == [1024, 65536] and again.data["template"] == again.data["image_mode"] == "neo"


def test_the_form_of_the_training_kit(tmp_path: Path) -> None:
    folder = neo_folder(tmp_path / "neo", vision_config={"llm_hidden_size": [64], "downsample_ratio": [0.5]})
    config = json.loads((folder / "config.json").read_text())
    for name in ("template", "downsample_ratio", "use_backbone_lora", "use_llm_lora"):
        config.pop(name)
    (folder / "config.json").write_text(json.dumps(config | {"img_start_token_id": 284, "hidden_size": 64}))
    assert sizes(open_checkpoint(folder).cfg) == sizes(ref.neo())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"template": "neo2"}, "template is 'neo2', which eve_jax does not have; known: neo1_0"),
        ({"vision_config": {"num_channels": 4}}, r"vision_config\.num_channels is 4: expected 3"),
        ({"vision_config": {"downsample_ratio": 0.25}}, r"vision_config\.downsample_ratio is 0\.25: expected 0\.5"),
        ({"vision_config": {"patch_size": "16"}}, r"vision_config\.patch_size='16': expected a number of pixels"),
        ({"vision_config": {"patch_size": None}}, r"vision_config\.patch_size=None: expected a number of pixels"),
        ({"vision_config": {"rope_theta_vision": "x"}}, r"vision_config\.rope_theta_vision='x': expected a number"),
        ({"vision_config": {"min_pixels": "many"}}, r"vision_config\.min_pixels='many': expected a number of pixels"),
        ({"vision_config": {"max_pixels": 1e5}}, r"vision_config\.max_pixels=100000\.0: expected a number of pixels"),
        ({"vision_config": {"min_pixels": 70_000}}, r"vision_config\.min_pixels is 70000, above max_pixels, 65536"),
        ({"llm_config": {"extra_num_layers": 4}}, r"extra_layers=4: expected fewer than"),
        ({"llm_config": {"extra_num_layers": None}}, r"llm_config\.extra_num_layers is missing: how many of the 4"),
        ({"llm_config": {"rope_scaling": {"type": "longrope"}}}, "longrope"),
    ],
)
def test_a_config_of_another_model_is_refused(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"neo/config\.json.*{says}"):
        open_checkpoint(neo_folder(tmp_path / "neo", **changes))


def test_an_area_that_is_given_in_part_has_the_default_of_the_rest(tmp_path: Path) -> None:
    folder = neo_folder(tmp_path / "neo", vision_config={"min_pixels": None})
    assert open_checkpoint(folder).data["area"] == [NEO_AREA[0], 65536]


def test_a_model_that_trains_is_asked_about_images_of_any_size() -> None:
    """`longest_image` is of training's rows: attention that looked no further would not see the rest of an image."""
    assert ready(ref.neo(longest_image=6), dict(ref.neo_params(ref.neo())))[0].longest_image == 0


def plain_qwen3(folder: Path) -> Path:
    """The plain LLM of the golden start."""
    folder.mkdir()
    found = ref.tensors("neo_surgery")
    plain = {name.removeprefix("qwen3."): value for name, value in found.items() if name.startswith("qwen3.")}
    save_file(plain, folder / "model.safetensors")
    config = {"model_type": "qwen3", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_start_from_a_plain_llm(tmp_path: Path) -> None:
    """Every weight of the LLM's layers bit for bit; the new layers as random as the original's, and of one seed."""
    fields: dict[str, Any] = {name: getattr(ref.neo(), name) for name in ("patch_embed", "image_attention", "rope")}
    fields |= {"index_rule": "thw", "extra_layers": 3, "patch_hidden": 16}
    folder = plain_qwen3(tmp_path / "qwen")
    checkpoint = open_checkpoint(folder, **fields)
    params = {name: np.asarray(value) for name, value in checkpoint.params().items()}
    made = ref.by_their_names(checkpoint.cfg, params)
    golden = {n.removeprefix("neo."): v for n, v in ref.tensors("neo_surgery").items() if n.startswith("neo.")}
    for name, value in golden.items():
        np.testing.assert_array_equal(made[f"language_model.{name}"], value, err_msg=name)
    for name, facts in ref.facts("neo_surgery")["pre_buffer_layer0"].items():
        own = made[f"language_model.{name}"]
        assert list(own.shape) == facts["shape"] and bool((own == 1).all()) == facts["ones"]
        assert facts["ones"] or own.std() == pytest.approx(0.02, rel=0.1)
    again = open_checkpoint(folder, **fields).params()
    assert all(np.array_equal(params[name], value) for name, value in again.items())
    others = open_checkpoint(folder, seed=1, **fields).params()
    assert not np.array_equal(params["extra.mlp.text.up"], others["extra.mlp.text.up"])
    assert len(made) == 7 + 17 * 5


def test_a_list_of_the_layers_of_the_base_is_not_that_of_more_layers() -> None:
    base = {"model_type": "qwen3", "layer_types": ["full_attention"] * 2}
    assert "layer_types" not in hf_config(ref.neo(), {}, base, "float32")["llm_config"]
    plain = replace(ref.neo(), num_layers=2, **EVE_FIELDS)
    assert hf_config(plain, {}, base, "float32", text_only=True)["layer_types"] == base["layer_types"]


@pytest.mark.slow
def test_questions_and_losses(tmp_path: Path) -> None:
    """By the folder alone: prompts are the golden ones, so are answers; the loss of a record is that of its case."""
    folder = neo_folder(tmp_path / "neo")
    eve = EVE.from_pretrained(folder)
    case = ref.facts("neo_meta")["cases"]["one"]
    image = ref.FOLDER / "neo_image_a.png"
    prompt = eve.prompt("What is shown?", [image])
    golden = ref.neo_prompt("one", ref.neo())
    np.testing.assert_array_equal(prompt.ids, golden.ids)
    np.testing.assert_array_equal(prompt.patches[0], golden.patches[0])
    answer = eve.answer("What is shown?", [image], max_new_tokens=16)
    assert answer.new_ids == ref.tensors("neo_generate")["one.new_ids"].tolist()
    records = tmp_path / "records.json"
    records.write_text(json.dumps([{"id": "1", "image": str(image), "conversations": case["conversations"]}]))
    (line,) = eve.score(records).lines
    assert line.n_target == case["n_target"] and line.loss == pytest.approx(case["loss_token"], abs=5e-6)


def test_a_sail_whose_config_does_not_state_the_patches(tmp_path: Path) -> None:
    folder, _ = sail_folder(tmp_path / "sail")
    config = json.loads((folder / "config.json").read_text())
    config.pop("vision_patch_size")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"vis_embed\.weight is SAIL's, but config\.json has no vision_patch_size"):
        open_checkpoint(folder)


@pytest.mark.slow
def test_sail_is_opened_asked_and_goes_back(tmp_path: Path) -> None:
    """Images stand before the bos token; an export has the names and the field that tell SAIL from Mistral."""
    folder, cfg = sail_folder(tmp_path / "sail")
    eve = EVE.from_pretrained(folder)
    assert sizes(eve.engine.cfg) == sizes(cfg)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 29, 3), np.uint8))
    prompt = eve.prompt("What?", [image])
    begin, close, bos = (eve.tokenizer.token_id(token) for token in ("<vision>", "</vision>", "<s>"))
    text = eve.tokenizer.encode("[INST] What? [/INST]")
    assert prompt.ids.tolist() == [begin, IMAGE_ID, close, bos, *text]
    assert prompt.grids == [(3, 4)] and len(prompt) == 12 + 3 + len(text)
    assert len(eve.answer("What?", [image], max_new_tokens=4).new_ids) <= 4
    image.save(tmp_path / "image.png")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "This."}]
    records = tmp_path / "records.json"
    records.write_text(json.dumps([{"id": "1", "image": str(tmp_path / "image.png"), "conversations": turns}]))
    (line,) = eve.score(records).lines
    assert line.n_vision == 12 and 0 < line.loss < 20
    out = export_checkpoint(
        import_checkpoint(str(folder), tmp_path / "stage", quiet=True), tmp_path / "out", quiet=True
    )
    before, after = (load_file(place / "model.safetensors") for place in (folder, out))
    assert before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["vision_patch_size"]) == ("mistral", 8)
    assert sizes(open_checkpoint(out).cfg) == sizes(cfg)


def test_a_model_that_no_other_program_has_is_not_exported(tmp_path: Path) -> None:
    cfg = replace(ref.neo(), index_rule="token")
    with pytest.raises(
        UserError, match=r"model\.patch_embed=conv_gelu_rope: no program but eve_jax has a model with it"
    ):
        check_exported(cfg)
    check_exported(ref.neo())
    check_exported(ref.sail())
    stage = import_checkpoint(str(neo_folder(tmp_path / "neo")), tmp_path / "stage", quiet=True)
    with pytest.raises(UserError, match=r"model\.extra_layers=2: what is left without it is not the LLM"):
        export_checkpoint(stage, tmp_path / "out", text_only=True, quiet=True)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (kind, {name: value})
        for kind in ("neo", "sail", "hundred")
        for name, value in (
            ("logit_cap", 3.0),
            ("value_norm", True),
            ("layer_scale", True),
            ("patch_token", -1 if kind == "sail" else 7),
            ("extra_layers", 1),
        )
        if (kind, name) != ("neo", "extra_layers")
    ],
)
def test_what_the_folder_of_a_member_does_not_state_is_refused(kind: str, changes: dict[str, Any]) -> None:
    """Left out of config.json it would be another model, without a word."""
    base = {"neo": ref.neo, "sail": ref.sail, "hundred": hundred}[kind]()
    check_exported(base)
    ((name, value),) = changes.items()
    with pytest.raises(UserError, match=rf"model\.{name}={value}: a Hugging Face folder of {kind} does not state it"):
        check_exported(replace(base, **changes))


@pytest.mark.parametrize("carried", [{}, {"model_type": "llama"}, {"model_type": "mistral"}])
def test_sail_of_any_base_is_written_as_one_that_is_read(carried: dict[str, Any]) -> None:
    written = hf_config(ref.sail(), {}, carried, "float32")
    assert (written["model_type"], member(written)) == ("mistral", "sail")


@pytest.mark.slow
def test_by_the_command_line_alone(tmp_path: Path) -> None:
    folder, image = neo_folder(tmp_path / "neo"), ref.FOLDER / "neo_image_a.png"
    done = launch("launch.chat", f"--checkpoint={folder}", f"--image={image}", "--prompt=What is shown?", *CHAT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["new_ids"] == ref.tensors("neo_generate")["one.new_ids"].tolist()
    case = ref.facts("neo_meta")["cases"]["one"]
    records, out = tmp_path / "records.json", tmp_path / "scores.jsonl"
    records.write_text(json.dumps([{"id": "1", "image": str(image), "conversations": case["conversations"]}]))
    done = launch("launch.score", f"--checkpoint={folder}", f"--records={records}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["loss"] == pytest.approx(case["loss_token"], abs=5e-6)
