"""The conventions that an EVE checkpoint was trained with: sizes of its images, their order, its chat template.

The weights do not tell them, and with others the model is another one. Each is taken from the first of these that says
it; what none of them says is refused by name, and what one contradicts is warned about (docs/data.md has the table):

    section `eve_jax` of config.json (an export of ours) -> preprocessor_config.json -> the teacher's own sizes (EVEv1)
    -> the names that config.json gives (`mm_vision_tower`, `mm_vision_tower_clip`), see `image_sizes`
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from eve_jax.data.image.rule import PAD, ImageRule
from eve_jax.errors import UserError
from eve_jax.hf.config import CONFIG, PATCH_FIELDS, SIZES, V1, is_plain, model_config
from eve_jax.hf.families import FAMILIES
from eve_jax.hf.family import TEMPLATE, data_fields, image_tokens, member
from eve_jax.hf.image_sizes import image_settings
from eve_jax.hf.llava import is_llava, text_section
from eve_jax.hf.preprocessor import PREPROCESSOR, WINDOW
from eve_jax.hf.section import REQUIRED, located, read_section
from eve_jax.model.clip_config import EncoderConfig
from eve_jax.model.config import ModelConfig
from eve_jax.process.files import read_json

# The original puts an image first in its turn, learns by the training rule and has no cap on an image's aspect ratio.
ORIGINAL = {"fit": "shrink", "max_aspect": 0.0, "image_first": True}
OUR_OWN: dict[str, Any] = {
    "image_mode": "anyratio_ld",
    "max_size": 800,
    "max_aspect": 8.0,
    "fit": "shrink",
    "image_first": False,
}


def describe(folder: Path) -> tuple[dict[str, Any], str]:
    """Sizes of the LLM in a Hugging Face folder, under the names of `config.model`, and its chat template.

    Of an EVE folder the width of its patch embedding is among them: training starts from it. Raises UserError when its
    config.json is not that of a model we know.
    """
    hf = read_json(folder / CONFIG)
    cfg = replace(model_config(hf, folder), **image_tokens(hf, folder))
    bare = is_plain(hf) or is_llava(hf)
    names = (*SIZES, *PATCH_FIELDS) if member(hf) else SIZES if bare else (*SIZES, "patch_hidden")
    own = TEMPLATE.get(member(hf), member(hf))
    template = read_section(hf, folder).get("template") or own or chat_template(hf)
    return {name: getattr(cfg, name) for name in names}, template


def describe_encoder(folder: Path) -> EncoderConfig | None:
    """Sizes of the vision encoder in the Hugging Face folder of a LLaVA, None of another; UserError as `describe`."""
    return model_config(read_json(folder / CONFIG), folder).encoder


def chat_template(hf: dict[str, Any]) -> str:
    """The chat template that goes with the LLM: of LLaMA's models the size of the vocabulary tells the generation."""
    hf = text_section(hf)
    if hf.get("model_type") == V1:
        return "v1"
    family = FAMILIES.get(str(hf.get("model_type")))
    if family and family.template:
        return family.template
    if hf.get("model_type") not in ("llama", "eve-llama3"):
        return "qwen2"
    vocab = hf.get("vocab_size", 0)
    if 32_000 <= vocab <= 32_100:  # LLaMA-2 and Vicuna, perhaps with a few tokens added
        return "v1"
    return "llama3" if vocab >= 128_000 or hf["model_type"] == "eve-llama3" else "qwen2"


def data_settings(hf: dict[str, Any], where: Path, cfg: ModelConfig) -> dict[str, Any]:
    """Image and chat settings of the model in the folder `where`, under the names of `config.data` (DATA_FIELDS).

    `hf` is its config.json, `cfg` its sizes, with what the tensors tell of EVEv1's patches and teacher. An EVE model
    has the original's conventions, an export of ours those that it was trained with, a plain LLM our defaults. Raises
    UserError naming the file and the field that is missing, unknown or contradicts the weights.
    """
    ours = read_section(hf, where)
    if is_plain(hf):
        data = OUR_OWN | {"template": chat_template(hf)} | ours
    elif member(hf):
        data = data_fields(hf, cfg, where / CONFIG) | ours
    elif ours.keys() >= REQUIRED:
        data = ours  # of an earlier version without fit and image_first, which mean the training rule and False
    elif cfg.encoder is not None:
        square = {"image_mode": PAD, "max_size": cfg.encoder.image_size, "patch": cfg.encoder.patch_size}
        data = ORIGINAL | {"template": chat_template(hf)} | square | ours
    else:
        data = ORIGINAL | {"template": chat_template(hf)} | image_settings(hf, where, cfg, ours) | ours
    with located(ours, where):
        rule = ImageRule.of(data)
    stated = {
        "eve_jax.patch": (rule.patch, WINDOW * cfg.sub_patch),
        "mm_patch_size": (hf.get("mm_patch_size"), cfg.sub_patch),
    }
    for name, (given, patch) in stated.items():
        if not is_plain(hf) and given not in (None, patch):
            raise UserError(f"{where / CONFIG}: {name} is {given!r}, but the weights are for {patch}")
    if cfg.teacher and rule.teacher != (cfg.teacher.image_size, cfg.teacher.patch_size):
        raise UserError(
            f"{where}: the teacher's images are {rule.teacher[0]} pixels in patches of {rule.teacher[1]}, but "
            f"its weights are for {cfg.teacher.image_size} in patches of {cfg.teacher.patch_size}; "
            f"correct {f'eve_jax.teacher in {CONFIG}' if 'teacher' in ours else PREPROCESSOR}"
        )
    return data
