"""LLaVA-1.5 as transformers has it (`LlavaForConditionalGeneration`): its config.json, and how its tensors are spelled.

The files of transformers 4, those of transformers 5 and a state in memory spell the names of tensors in different ways;
all are brought to the first one, which an export has:

    language_model.model.X  language_model.lm_head.weight  vision_tower.vision_model.X  multi_modal_projector.linear_N.X
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from eve_jax.errors import UserError, warn

T = TypeVar("T")
LLAVA = "llava"  # model_type
LANGUAGE, TOWER, PROJECTOR = "language_model.", "vision_tower.", "multi_modal_projector."
HEAD = f"{LANGUAGE}lm_head.weight"
POSITIONS = f"{TOWER}vision_model.embeddings.position_ids"  # 0, 1, 2 ... of older files
# field -> the value that it must have, also what transformers takes where it is absent
FIXED: dict[str, Any] = {
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "projector_hidden_act": "gelu",
    "multimodal_projector_bias": True,
}
# What transformers takes for fields that a section text_config lacks.
TEXT: dict[str, dict[str, Any]] = {
    "llama": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
    },
    "qwen2": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
    },
}
# The same for an absent section vision_config; one that is there lacks what CLIP's own class has.
VISION: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "intermediate_size": 4096,
    "hidden_size": 1024,
    "patch_size": 14,
    "image_size": 336,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
}
IMAGE_TOKEN, IMAGE_ID = "<image>", "image_token_index"
KNOWN = {
    *FIXED,
    IMAGE_ID,
    "image_token_id",
    "image_seq_length",
    "text_config",
    "vision_config",
    "model_type",
    "eve_jax",
}
KNOWN |= {"architectures", "torch_dtype", "dtype", "transformers_version", "tie_word_embeddings", "eve_jax_version"}
KNOWN |= {"pad_token_id", "bos_token_id", "eos_token_id", "ignore_index", "vocab_size", "_name_or_path"}


def is_llava(hf: Mapping[str, Any]) -> bool:
    """Return True for the config.json of a LLaVA-1.5."""
    return hf.get("model_type") == LLAVA


def text_section(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json of the LLM in the LLaVA `hf`, its defaults filled in; any other config.json itself.

    Raise UserError for a section that is none.
    """
    if not is_llava(hf):
        return dict(hf)
    text = _section(hf, "text_config")
    kind = text.get("model_type", "llama")
    tied = bool(hf.get("tie_word_embeddings") or text.get("tie_word_embeddings"))
    return {"model_type": kind, **TEXT.get(str(kind), {}), **text, "tie_word_embeddings": tied}


def vision_section(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes of the vision encoder in the LLaVA `hf`.

    Raise UserError for another encoder than CLIP's, and for a LLaVA that uses it in another way than LLaVA-1.5.
    """
    for name, value in FIXED.items():
        if hf.get(name, value) != value:
            raise UserError(f"{name} is {hf[name]!r}: eve_jax has LLaVA-1.5's form, {name}={value!r}")
    vision = _section(hf, "vision_config") or VISION
    if vision.get("model_type") != VISION["model_type"]:
        raise UserError(f"vision_config is of {vision.get('model_type')!r}: expected {VISION['model_type']}")
    return vision


def _section(hf: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = {} if hf.get(name) is None else hf[name]
    if not isinstance(section, dict):
        raise UserError(f"{name} is {section!r}: expected a section")
    return section


def warn_unknown_of_llava(hf: Mapping[str, Any], file: Path) -> None:
    """Print a line on stderr, once, that names the fields of config.json `hf` that are not known."""
    if unknown := sorted(name for name, value in hf.items() if name not in KNOWN and value not in (None, {}, [])):
        warn(f"{file}: fields that are not understood are ignored: {', '.join(unknown)}")


def spelled(name: str) -> str:
    """Return the name that an export has for the tensor `name` of a LLaVA."""
    if name.startswith((f"model.{LANGUAGE}", f"model.{TOWER}", f"model.{PROJECTOR}")):
        name = name.removeprefix("model.")
    if name == "lm_head.weight":
        return HEAD
    for prefix, inner in ((LANGUAGE, ("model.", "lm_head.")), (TOWER, ("vision_model.",))):
        if name.startswith(prefix) and not name.startswith(tuple(prefix + one for one in inner)):
            return prefix + inner[0] + name.removeprefix(prefix)
    return name


def respelled(tensors: Mapping[str, T], folder: Path) -> dict[str, T]:
    """Return `tensors` under the names that an export has. Raise UserError where two get the same."""
    out: dict[str, T] = {}
    first: dict[str, str] = {}
    for name, tensor in tensors.items():
        if (ours := spelled(name)) in out:
            raise UserError(f"{folder}: tensors {first[ours]} and {name} are the same weight; keep one of them")
        out[ours], first[ours] = tensor, name
    out.pop(POSITIONS, None)
    return out
