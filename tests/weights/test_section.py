"""The section `eve_jax` of config.json: what is wrong in it is named with the file and the field."""

from dataclasses import asdict

import pytest

from eve_jax.errors import UserError
from eve_jax.model.clip_config import ClipConfig
from eve_jax.weights.open import open_checkpoint
from tests.weights import folders, folders_v1
from tests.weights.test_conventions import Config, settings, v2_config

WHOLE = {"image_mode": "anyratio_hd", "max_size": 1600, "max_aspect": 4.0, "template": "qwen2"}
SECTIONS: list[tuple[Config, str]] = [
    ({"max_sise": 800}, r"eve_jax has an unknown setting 'max_sise': expected one of .*; did you mean max_size\?"),
    (WHOLE | {"vision": 1}, "eve_jax has an unknown setting 'vision'"),
    (WHOLE | {"image_mode": "anyratio"}, r"eve_jax\.image_mode: 'anyratio' is not one of"),
    (WHOLE | {"image_mode": None}, r"eve_jax\.image_mode is None, which it cannot be"),
    (WHOLE | {"max_size": -1}, r"eve_jax\.max_size=-1: expected 0 or a number of pixels"),
    (WHOLE | {"max_size": 99999999}, r"eve_jax\.max_size=99999999: expected .* at most 16384"),
    (WHOLE | {"max_aspect": float("nan")}, r"eve_jax\.max_aspect=nan: expected"),
    (WHOLE | {"max_aspect": 0.5}, r"eve_jax\.max_aspect=0\.5: expected 0 or a number of at least 1"),
    (WHOLE | {"fit": "grow"}, r"eve_jax\.fit: 'grow' is not one of"),
    (WHOLE | {"template": "qwen"}, r"eve_jax\.template: 'qwen' is not one of"),
    (WHOLE | {"patch": 28}, r"eve_jax\.patch is 28, but the weights are for 32"),
    (WHOLE | {"token_limit": -1}, r"eve_jax\.token_limit=-1: expected a number of tokens"),
    (WHOLE | {"teacher": [336]}, r"eve_jax\.teacher is \[336\]: expected two whole numbers"),
]


@pytest.mark.parametrize(("section", "message"), SECTIONS)
def test_the_section_of_ours_is_named_with_its_file(tmp_path, section, message):
    for config in (v2_config("openai/eve-anyratio-res800-patch16"), folders.plain("qwen2")[1]):
        if "patch" in section and config["model_type"] == "qwen2":
            continue  # a plain LLM has no patches yet
        with pytest.raises(UserError, match=rf"config\.json: {message}"):
            settings(tmp_path, config | {"eve_jax": section})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"patch_sise": 14}, "there is no field patch_sise; did you mean patch_size"),
        ({"num_heads": "4"}, "num_heads='4': expected a whole number"),
        ({"image_size": 170, "patch_size": 14}, "image_size=170 is not a multiple of patch_size=14"),
        ([56, 14], r"is \[56, 14\]: expected the sizes of the teacher"),
    ],
)
def test_the_teacher_of_the_section_is_named_with_its_file(tmp_path, sizes, message):
    tensors, config = folders_v1.golden("D1")
    whole = asdict(ClipConfig())
    config["eve_jax"]["teacher_sizes"] = whole | sizes if isinstance(sizes, dict) else sizes
    hf = folders.write_hf(tmp_path / "hf", tensors, config)
    with pytest.raises(UserError, match=rf"config\.json: eve_jax\.teacher_sizes.*{message}"):
        open_checkpoint(hf)
