"""Sizes of images that places of an EVE folder state differently: one rule, and a warning that names both."""

import re
from typing import Any

import pytest

from eve_jax.errors import UserError
from tests.weights.test_conventions import Config, settings, v1_config, v2_config

NAME_672, NAME_CLIP = "openai/eve-patch14-anypixel-672", "openai/clip-vit-large-patch14-336"
CONTRADICTIONS: list[tuple[Config, Config, str, str, dict[str, Any]]] = [
    (
        v2_config("openai/eve-anyratio-res800-patch16"),
        {"max_size": 1600},
        r"config\.json: mm_vision_tower 'openai/eve-anyratio-res800-patch16' \(800 pixels\)",
        r"preprocessor_config\.json: max_size \(1600 pixels\)",
        {"max_size": 1600, "image_mode": "anyratio_hd"},
    ),
    (
        v2_config("eve-anyratio-res1600-patch16"),
        {"max_size": 800},
        r"mm_vision_tower 'eve-anyratio-res1600-patch16' \(1600 pixels\)",
        r"max_size \(800 pixels\)",
        {"max_size": 800, "image_mode": "anyratio_ld"},
    ),
    (
        v1_config(NAME_672),
        {"image_size": 1344},
        rf"mm_vision_tower '{NAME_672}' \(672 pixels\)",
        r"preprocessor_config\.json: image_size \(1344 pixels\)",
        {"max_size": 1344, "teacher": [336, 14]},
    ),
    (
        v1_config(NAME_672, NAME_CLIP),
        {"image_size_clip": 168},
        rf"config\.json: mm_vision_tower_clip '{NAME_CLIP}' \(336 pixels\)",
        r"preprocessor_config\.json: image_size_clip \(168 pixels\)",
        {"max_size": 672, "teacher": [168, 14]},
    ),
    (
        v1_config("eve-patch14-anypixel-896", NAME_CLIP),
        {"patch_stride_clip": 21},
        r"mm_vision_tower_clip .* \(14 pixels\)",
        r"patch_stride_clip \(21 pixels\)",
        {"teacher": [336, 21]},
    ),
]


@pytest.mark.parametrize(("config", "preprocessor", "left", "taken", "expected"), CONTRADICTIONS)
def test_sizes_that_contradict_are_named(tmp_path, config, preprocessor, left, taken, expected, capsys):
    """The rule: what preprocessor_config.json states goes before what names in config.json do."""
    data = settings(tmp_path, config, preprocessor)
    assert {name: data[name] for name in expected} == expected
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"^warning: .*{left} contradicts .*{taken}, which is taken \(see docs/data\.md#imported", line)


@pytest.mark.parametrize(
    ("config", "preprocessor"),
    [
        (v2_config("openai/eve-anyratio-res800-patch16"), {"max_size": 800}),
        (v1_config(), {"image_size": 672, "image_size_clip": 336, "patch_stride_clip": 14}),
        (v1_config(clip="openai/clip-vit-large-patch14"), {"image_size_clip": 336}),  # a name without a size
        (v2_config("somewhere/else"), {"max_size": 640}),
    ],
)
def test_sizes_that_agree_are_not_warned_about(tmp_path, config, preprocessor, capsys):
    settings(tmp_path, config, preprocessor)
    assert capsys.readouterr().err == ""


def test_patches_of_another_width_than_the_weights(tmp_path, capsys):
    assert settings(tmp_path, v2_config("eve-anyratio-res800-patch14"), {"max_size": 640})["max_size"] == 640
    assert "has patches of 14 pixels, but the weights are for 16, which is taken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "preprocessor", "where"),
    [
        (v1_config("x/eve-patch14-anypixel-700"), None, r"/config\.json: mm_vision_tower 'x/eve-patch14-anypixel-700'"),
        (v1_config(), {"image_size": 700}, r"/preprocessor_config\.json: image_size"),
        (v1_config() | {"eve_jax": {"max_size": 700}}, None, r"/config\.json: eve_jax\.max_size"),
    ],
)
def test_a_size_that_the_teacher_does_not_divide(tmp_path, config, preprocessor, where):
    with pytest.raises(UserError, match=f"{where}: 700 pixels are not a multiple of the 24 patches along a side of"):
        settings(tmp_path, config, preprocessor)
