"""Data settings of EVE folders: the original's sizes, order of images and templates; what is not stated is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs import stage1, stage3
from eve_jax.data.image.rule import ImageRule
from eve_jax.errors import UserError
from eve_jax.hf.config import PATCH_FIELDS, SIZES, model_config
from eve_jax.hf.conventions import data_settings
from eve_jax.model.clip_config import ClipConfig
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from eve_jax.weights.open import open_checkpoint
from tests import reference as ref
from tests import reference_v1 as v1
from tests.weights import folders, folders_v1

Config = dict[str, Any]
CLIP = "openai/clip-vit-large-patch14-336"


def settings(
    where: Path, config: Config, preprocessor: Config | None = None, teacher: ClipConfig | None = None
) -> Config:
    """Settings of a model of golden A's sizes, or for EVEv1 of D1's, whose patches have 14 pixels."""
    where.mkdir(exist_ok=True)
    (where / "preprocessor_config.json").unlink(missing_ok=True)
    if preprocessor is not None:
        (where / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    cfg = v1.config("D1") if config["model_type"] == "eve" else ref.config()
    return data_settings(config, where, replace(cfg, teacher=teacher))


def v2_config(tower: str | None) -> Config:
    return ref.read_json("A_config") | {"mm_vision_tower": tower}


def v1_config(tower: str | None = "openai/eve-patch14-anypixel-672", clip: str | None = CLIP) -> Config:
    return ref.read_json("D1_config")["model"] | {"mm_vision_tower": tower, "mm_vision_tower_clip": clip}


@pytest.mark.parametrize("size", [800, 1600])
def test_sizes_of_evev2_are_the_original_s(tmp_path, size):
    """Training rule and inference rule, for all images and sizes of golden E."""
    data = settings(tmp_path, v2_config(f"openai/eve-anyratio-res{size}-patch16"))
    assert (data["image_mode"], data["max_size"]) == ("anyratio_ld" if size == 800 else "anyratio_hd", size)
    golden = ref.read_json("E_preprocess_v2")
    for image in golden["images"].values():
        for fit, rule in (("train", ImageRule.of(data)), ("infer", ImageRule.of(data, "fill"))):
            h, w = rule.grid(*image["original_WH"])
            assert [h, w] == image[f"{fit}_{size}"]["grid_hw"]
            assert 1 + h * (w + 1) == image[f"{fit}_{size}"]["n_image_tokens"]
    assert ImageRule.of(data).grid(1500, 90) == (3, 47)  # 145 tokens
    assert ImageRule.of(data, max_aspect=8.0).grid(1500, 90) != (3, 47)


@pytest.mark.parametrize("size", [672, 1344])
def test_sizes_of_evev1_are_the_original_s(tmp_path, size):
    data = settings(tmp_path, v1_config(f"openai/eve-patch14-anypixel-{size}"))
    assert (data["image_mode"], data["max_size"], data["patch"], data["teacher"]) == ("square", size, 28, [336, 14])
    for image in ref.read_json("E_preprocess_v1")["images"].values():
        for fit in ("shrink", "fill"):
            h, w = ImageRule.of(data, fit).grid(*image["original_WH"])
            assert 1 + h * (w + 1) == image[f"train_{size}"]["n_image_tokens"]


def write_clip(folder: Path) -> str:
    """A folder of the teacher's config; its name."""
    (folder / "teacher").mkdir(parents=True)
    sizes = {"model_type": "clip_vision_model", "image_size": 168, "patch_size": 14}
    (folder / "teacher" / "config.json").write_text(json.dumps(sizes))
    return "teacher"


# Where the teacher's sizes are stated -> what they and the grid of an image of 300 x 200 pixels are.
TEACHERS: dict[str, tuple[Callable[[Path], Config], list[int], tuple[int, int]]] = {
    "preprocessor": (
        lambda at: settings(at, v1_config(), {"image_size": 672, "image_size_clip": 168, "patch_stride_clip": 14}),
        [168, 14],
        (16, 24),
    ),
    "preprocessor and name": (lambda at: settings(at, v1_config(), {"image_size_clip": 168}), [168, 14], (16, 24)),
    "preprocessor and another name": (
        lambda at: settings(at, v1_config(clip="openai/clip-vit-large-patch14"), {"image_size_clip": 168}),
        [168, 14],
        (16, 24),
    ),
    "preprocessor's patch and name": (
        lambda at: settings(at, v1_config("eve-patch14-anypixel-896"), {"patch_stride_clip": 21}),
        [336, 21],
        (22, 32),
    ),
    "preprocessor and weights": (
        lambda at: settings(at, v1_config(clip=None), {"image_size_clip": 168}, ClipConfig(image_size=168)),
        [168, 14],
        (16, 24),
    ),
    "weights": (lambda at: settings(at, v1_config(), teacher=ClipConfig(image_size=168)), [168, 14], (16, 24)),
    "a folder beside": (lambda at: settings(at, v1_config(clip=write_clip(at))), [168, 14], (16, 24)),
    "name with a size": (
        lambda at: settings(at, v1_config("x/eve-patch14-anypixel-896", "x/clip-vit-large-patch14-448")),
        [448, 14],
        (22, 32),
    ),
    "name of 224/14": (
        lambda at: settings(at, v1_config("eve-patch14-anypixel-896", "openai/clip-vit-large-patch14")),
        [224, 14],
        (22, 32),
    ),
    "name of 224/32": (
        lambda at: settings(at, v1_config("eve-patch14-anypixel-392", "openai/clip-vit-base-patch32/")),
        [224, 32],
        (10, 14),
    ),
}


@pytest.mark.parametrize("where", TEACHERS)
def test_the_teacher_s_own_sizes(tmp_path, where):
    make, teacher, grid = TEACHERS[where]
    data = make(tmp_path / "folder")
    assert data["teacher"] == teacher
    rule = ImageRule.of(data)
    assert rule.grid(300, 200) == grid
    side, patch = teacher
    short = -(-side * 200 // (300 * patch)) * patch  # the original: whole patches of the teacher, scaled up
    assert rule.resized(300, 200) == (rule.size, short * rule.size // side)


def test_the_preprocessor_config_goes_before_names(tmp_path):
    found = {"max_size": 1600, "patch_stride": 16, "dense_stride": 2, "do_resize": False, "resample": 3}
    for tower in ("openai/eve-anyratio-res800-patch16", "somewhere/else", None):
        assert settings(tmp_path, v2_config(tower), found)["max_size"] == 1600
    nested = tmp_path / "openai" / "own-name"
    nested.mkdir(parents=True)
    (nested / "preprocessor_config.json").write_text(json.dumps(found | {"max_size": 640}))
    assert settings(tmp_path, v2_config("openai/own-name"))["max_size"] == 640
    absolute = settings(tmp_path / "other", v2_config(str(nested)))
    assert absolute["max_size"] == 640
    crop = ref.read_json("D1_config")["eve_preprocessor"]
    assert settings(tmp_path, v1_config("eve-tiny", "clip-tiny"), crop)["teacher"] == [56, 14]


def test_the_limit_of_tokens(tmp_path):
    limited = v1_config() | {"tokenizer_model_max_length": 2048}
    assert settings(tmp_path, limited)["token_limit"] == 2048
    assert "token_limit" not in settings(tmp_path, v1_config())


WRONG: list[tuple[Config, Config | None, str]] = [
    (v2_config("openai/clip-vit-large-patch14"), None, "'openai/clip-vit-large-patch14' is not of the form eve-anyr"),
    (v2_config("eve-anyratio-res800-patch14"), None, "form eve-anyratio-resSIZE-patch16.*preprocessor_config.json"),
    (v2_config("eve-anyratio-res0-patch16"), None, "is not of the form"),
    (v2_config(None), None, r"config\.json: no field 'mm_vision_tower'.*preprocessor_config.json with max_size"),
    (v2_config("x"), {"max_size": "800"}, "preprocessor_config.json: max_size is '800': expected a whole number"),
    (v2_config("x"), {"max_size": 800, "patch_stride": 14}, "patch_stride is 14, the model has 16"),
    (v2_config("x"), {"max_size": 800, "dense_stride": 4}, "dense_stride is 4, the model has 2"),
    (v2_config("x"), {"max_size": 800, "do_center_crop": True}, "do_center_crop is True"),
    (v2_config("x"), {"max_size": 800, "image_mean": [0.5, 0.5, 0.5]}, r"image_mean is \[0.5, 0.5, 0.5\]"),
    (v2_config("x"), {"max_size": 800, "rescale_factor": 1}, "rescale_factor is 1"),
    (
        v1_config("eve-tiny"),
        None,
        "mm_vision_tower 'eve-tiny' is not of the form eve-patch14-anypixel-SIZE.*image_size",
    ),
    (v1_config("openai/eve-patch16-anypixel-672"), None, "form eve-patch14-anypixel-SIZE"),
    (v1_config(clip="laion/CLIP-ViT-H-14"), None, "mm_vision_tower_clip 'laion/CLIP-ViT-H-14' states no sizes"),
    (v1_config(clip=None), None, "no field 'mm_vision_tower_clip'.*image_size_clip and patch_stride_clip"),
    (
        v1_config("eve-patch14-anypixel-700"),
        None,
        r"config\.json: mm_vision_tower .*-700': 700 pixels are not a multiple of the 24 patches",
    ),
    (v1_config(), {"conv_stride": 1}, "conv_stride is 1, the model has 2"),
    (v1_config(), {"image_size_clip": 170, "patch_stride_clip": 14}, "images are 170 pixels, no multiple of its patch"),
    (
        v1_config(),
        {"image_size_clip": 170},
        r"images are 170 pixels, no multiple of its patches of 14; correct image_s",
    ),
    (v1_config(), {"patch_stride_clip": 15}, "images are 336 pixels, no multiple of its patches of 15"),
    (v1_config(clip="clip-vit-large-patch0-336"), None, "'clip-vit-large-patch0-336' states no sizes"),
    (v1_config(clip="clip-vit-large-patch14-0"), None, "'clip-vit-large-patch14-0' states no sizes"),
    (v1_config(clip=None), {"image_size_clip": 168}, "no field 'mm_vision_tower_clip'.*image_size_clip and patch_st"),
    (v1_config(), {"image_size_clip": "168"}, "image_size_clip is '168': expected a whole number"),
    (v2_config("x"), {"max_size": 800, "resample": 2}, "preprocessor_config.json: resample is 2, the model has 3"),
    (v1_config(), {"resample": "bilinear"}, "resample is 'bilinear', the model has 3"),
    (v2_config("x"), {"max_size": 800, "do_pad": True}, "do_pad is True, the model has False"),
    (v2_config("eve-anyratio-res99999999-patch16"), None, r"config\.json: mm_vision_tower .*99999999 pix.* most 16384"),
    (v1_config("eve-patch14-anypixel-67200000"), None, "states images of 67200000 pixels; expected at most 16384"),
    (v2_config(f"eve-anyratio-res{'9' * 5000}-patch16"), None, "is not of the form eve-anyratio-resSIZE-patch16"),
    (v2_config("x"), {"max_size": 99999999}, "preprocessor_config.json: max_size is 99999999: expected at most 16384"),
    (v1_config(), {"image_size": 672 * 100}, "image_size is 67200: expected at most 16384"),
    (v1_config() | {"mm_patch_size": 16}, None, r"config\.json: mm_patch_size is 16, but the weights are for 14"),
    (v1_config() | {"tokenizer_model_max_length": "long"}, None, "tokenizer_model_max_length is 'long'"),
    (v2_config("x") | {"eve_jax": {"max_size": 800.5}}, None, r"eve_jax\.max_size is 800.5"),
    (v2_config("x") | {"eve_jax": {"image_first": 1}}, None, r"eve_jax\.image_first is 1"),
    (v2_config("x") | {"eve_jax": []}, None, "expected a section"),
]


def test_fields_of_the_preprocessor_that_are_not_understood(tmp_path, capsys):
    config, size = v2_config("x"), {"max_size": 640}
    known = {"resample": "BICUBIC", "do_pad": None, "size": {"height": 640}, "crop_size": 640, "do_convert_rgb": True}
    assert settings(tmp_path, config, size | known)["max_size"] == 640
    assert capsys.readouterr().err == ""
    settings(tmp_path, config, size | {"min_pixels": 3136, "max_sise": 800})
    assert (
        "preprocessor_config.json: fields that are not understood are ignored: max_sise, min_pi"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(("config", "preprocessor", "message"), WRONG)
def test_what_is_not_stated_is_refused(tmp_path, config, preprocessor, message):
    with pytest.raises(UserError, match=message) as caught:
        settings(tmp_path, config, preprocessor)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_width_of_patches_is_named_as_the_file_has_it():
    for value in (None, "64", 0):
        with pytest.raises(UserError, match=rf"^FOLDER/config\.json: mm_hidden_size is {value!r}: expected a whole"):
            model_config(v2_config("x") | {"mm_hidden_size": value}, Path("FOLDER"))
    with pytest.raises(UserError, match=r"^FOLDER/config\.json: mm_hidden_size=13: .*heads"):
        model_config(v1_config() | {"mm_hidden_size": 13}, Path("FOLDER"))


def test_a_teacher_that_is_another_one_than_its_weights(tmp_path):
    with pytest.raises(UserError, match="336 pixels in patches of 14, but its weights are for 168 in patches of 14"):
        settings(
            tmp_path,
            v1_config(),
            {"image_size_clip": 336, "patch_stride_clip": 14},
            ClipConfig(image_size=168),
        )


def test_plain_llms_and_our_training_have_our_settings(tmp_path):
    plain = folders.write_hf(tmp_path / "plain", *folders.plain("qwen2"))
    data = open_checkpoint(plain).data
    assert (data["image_first"], data["max_aspect"], data["fit"], data["template"]) == (False, 8.0, "shrink", "qwen2")
    eve = folders.write_hf(tmp_path / "eve", *folders.golden_llama())
    c = stage3.get_config(f"llm={eve}")
    assert (c.data.template, c.data.image_first, c.data.max_aspect) == ("llama3", False, 8.0)
    assert (c.model.hidden_size, c.init) == (64, str(eve))


@pytest.mark.parametrize("make", [folders.golden, folders.golden_llama, lambda: folders.plain("qwen2")])
def test_a_stage_takes_the_width_of_the_patches_of_an_eve_folder(tmp_path, make):
    tensors, config = make()
    hf = folders.write_hf(tmp_path / "hf", tensors, config)
    model = stage1.get_config(f"llm={hf}").model
    assert model.patch_hidden == config.get("mm_hidden_size", 1024)
    cfg = open_checkpoint(hf, patch_hidden=1024).cfg
    assert all(getattr(cfg, name) == model[name] for name in (*SIZES, *PATCH_FIELDS) if name in model)


@pytest.mark.parametrize("change", [{}, {"image_first": True, "max_aspect": 0.0, "fit": "fill", "max_size": 640}])
def test_exports_carry_our_settings(tmp_path, change):
    """A trained stage's, whatever the model came with; the name of the image preprocessing follows the size."""
    hf = folders.write_hf(tmp_path / "hf", *folders.golden())
    stage = import_checkpoint(str(hf), tmp_path / "stage", quiet=True)
    config = json.loads((stage / "config.json").read_text())
    config["data"] |= {"image_first": False, "max_aspect": 8.0} | change
    (stage / "config.json").write_text(json.dumps(config))
    out = export_checkpoint(stage, tmp_path / "out", quiet=True)
    again = import_checkpoint(str(out), tmp_path / "again", quiet=True)
    for folder in (out, again, export_checkpoint(out, tmp_path / "twice", quiet=True)):
        assert open_checkpoint(folder).data == config["data"]
    tower = json.loads((out / "config.json").read_text())["mm_vision_tower"]
    assert tower == f"openai/eve-anyratio-res{config['data']['max_size']}-patch16"


def test_exports_of_earlier_versions(tmp_path):
    """Without the newer fields the settings are ours, as they were, not the original's."""
    section = {"image_mode": "anyratio_hd", "max_size": 1600, "max_aspect": 4.0, "template": "qwen2"}
    assert settings(tmp_path, v2_config("x") | {"eve_jax": section}) == section
    assert ImageRule.of(section) == ImageRule("anyratio_hd", "shrink", 1600, 4.0)


def test_the_name_of_evev1_s_preprocessing_follows_the_size(tmp_path):
    tensors, config = folders_v1.golden("D1", aligning=False)
    config |= {"mm_vision_tower": "openai/eve-patch14-anypixel-672"}  # its section says 112
    hf = folders.write_hf(tmp_path / "hf", tensors, config)
    out = export_checkpoint(hf, tmp_path / "out", quiet=True)
    assert json.loads((out / "config.json").read_text())["mm_vision_tower"] == "openai/eve-patch14-anypixel-112"
    assert open_checkpoint(out).data == open_checkpoint(hf).data
