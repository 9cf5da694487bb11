"""Hugging Face's config.json to our sizes and settings; `eve_jax.hf.export_config` is the way back."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from eve_jax.data.image.size_rules import GEMMA
from eve_jax.errors import UserError, name_fields
from eve_jax.hf.config_fields import check_fields, refuse_wrapper
from eve_jax.hf.families import FAMILIES, read_layers
from eve_jax.hf.family import member, own_fields, plain_part
from eve_jax.hf.gemma import gemma_config
from eve_jax.hf.llava import LLAVA, is_llava, text_section, vision_section
from eve_jax.hf.rope import read_rope
from eve_jax.model.clip_config import ClipConfig, EncoderConfig
from eve_jax.model.config import TWICE, VARIANTS, ModelConfig
from eve_jax.model.family_config import FamilyFields
from eve_jax.model.llms import SWITCHES
from eve_jax.model.v1_config import OF_PATCHES
from eve_jax.process.checks import known_names

CONFIG = "config.json"
# Fields of `ModelConfig` that an LLM decides.
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "rope_theta",
    "rms_norm_eps",
    "tie_embeddings",
    *SWITCHES,
)
# Fields of `ModelConfig` that a member of the family decides; a plain LLM has none.
PATCH_FIELDS = (
    *("patch_hidden", "sub_patch", "encoder", "codes", *OF_PATCHES),
    *(field.name for field in fields(FamilyFields) if field.name != "longest_image"),  # of training alone
)
OURS = "eve_jax"  # section of an exported config.json that holds settings of ours
V1 = "eve"  # model_type of EVEv1
SWITCHED = "eve-switched"  # model_type of EVEv2 on another base than the original's: ours, with its switches in OURS
EVE = {"eve-qwen2": True, "eve-llama3": False, V1: False, SWITCHED: False}  # and whether q, k and v have biases
LLM = "llm"  # in the section OURS: the switches of SWITCHED
# Those of the switches that other fields of config.json state.
STATED = ("rope_scaling", "rope_type", "qkv_bias")
INFERENCE_FIT = "inference_fit"  # in the section OURS: the fit of images in questions; `fit` there is of training
TEACHER_SIZES = "teacher_sizes"  # in the section OURS: of the teacher, whose config EVEv1's does not hold
CONFIGURATION, MODELLING = "configuration_eve", "modeling_eve"
COUNTS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
OPTIONAL_COUNTS = ("num_key_value_heads", "head_dim")
THEIR_NAMES = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "tie_embeddings": "tie_word_embeddings",
    "qkv_bias": "attention_bias",
    "patch_hidden": "mm_hidden_size",
    "sub_patch": "mm_patch_size",
}

# Settings of `config.data` that belong to a checkpoint; an export carries them in the section OURS.
DATA_FIELDS = (
    "image_mode",
    "max_size",
    "max_aspect",
    "fit",
    "template",
    "image_first",
    "special_text",
    "patch",
    "teacher",
    "area",
    "image_tokens",
    "token_limit",
)
# Names that the original gives its image preprocessing; the largest image size and a patch's side are in them.
TOWERS = {
    False: re.compile(r"eve-anyratio-res(?P<size>\d{1,9})-patch(?P<patch>\d{1,9})"),
    True: re.compile(r"eve-patch(?P<patch>\d{1,9})-anypixel-(?P<size>\d{1,9})"),
}
CLIP_DEFAULTS = {  # what CLIP's config.json means where it says nothing
    "image_size": 224,
    "patch_size": 32,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "layer_norm_eps": 1e-5,
    "hidden_act": "quick_gelu",
}


def is_plain(hf: dict[str, Any]) -> bool:
    """True for an LLM without patch embedding."""
    return str(hf.get("model_type")) in FAMILIES and not member(hf)


def model_config(hf: dict[str, Any], where: Path, **patch: Any) -> ModelConfig:
    """Sizes and parts of the model that config.json `hf` of the folder `where` describes.

    A plain LLM has `parts=()` and takes the fields `patch` (PATCH_FIELDS). Raises UserError naming the file and the
    field that is missing, is not understood, or asks for what this model does not do.
    """
    try:
        with name_fields(_their_name, f"{where / CONFIG}: "):
            return _model_config(hf, **patch)
    except KeyError as error:
        raise UserError(f"{where / CONFIG} has no field {error.args[0]!r}") from error


def _their_name(field: str) -> str:
    """Return the name that config.json has for the field `model.NAME`."""
    name = field.removeprefix("model.")
    if name.startswith("encoder."):
        name = name.removeprefix("encoder.")
        return f"vision_config.{THEIR_NAMES.get(name, name)}"
    return THEIR_NAMES.get(name, name)


def _model_config(hf: dict[str, Any], **patch: Any) -> ModelConfig:
    if is_llava(hf):
        return _model_config(_llm_of(hf), **_encoder(hf))
    if member(hf) == GEMMA:
        return gemma_config(hf)
    if member(hf):
        return replace(_model_config(plain_part(hf)), **own_fields(hf))
    refuse_wrapper(hf)
    kind = hf.get("model_type")
    known = (*FAMILIES, *EVE, LLAVA)
    if not isinstance(kind, str) or kind not in known:
        raise UserError(f"model_type {kind!r} is unknown; known: {', '.join(sorted(known))}")
    family = FAMILIES.get(kind)
    check_fields(hf, family, kind == V1)
    _check_numbers(hf)
    hf = {**(family.defaults if family else {}), **hf}
    positions = read_rope(hf, family)
    heads, hidden = hf["num_attention_heads"], hf["hidden_size"]
    if hf.get("head_dim") is None and hidden % heads:
        raise UserError(f"hidden_size {hidden} is no multiple of num_attention_heads {heads}, and there is no head_dim")
    head = hf.get("head_dim") or hidden // heads
    if head % 2:
        raise UserError(f"heads of size {head} cannot have rotary positions, which take pairs")
    own = _switches(hf) if family is None else family.fixed | read_layers(hf, kind)
    if "local" not in own.get("layer_kinds", ()):
        positions.pop("local_rope_theta", None)
    return ModelConfig(
        vocab_size=hf["vocab_size"],
        hidden_size=hidden,
        intermediate_size=hf["intermediate_size"],
        num_layers=hf["num_hidden_layers"] + patch.get("extra_layers", 0),
        num_heads=heads,
        num_kv_heads=hf.get("num_key_value_heads") or heads,
        head_dim=head,
        rms_norm_eps=float(_or(hf.get("rms_norm_eps"), 1e-6)),
        tie_embeddings=bool(hf.get("tie_word_embeddings")),
        parts=_parts(hf),
        **positions,
        **own,
        **(patch if family else _patch(hf)),
    )


def _switches(hf: dict[str, Any]) -> dict[str, Any]:
    """The switches of the base of an EVE model, which an export of ours has in its own section."""
    kind, ours = hf["model_type"], hf.get(OURS) or {}
    given = ours.get(LLM) or {}
    if kind != SWITCHED and given:
        raise UserError(f"{OURS}.{LLM} is not of {kind}: model_type has to be {SWITCHED}")
    if not isinstance(given, dict):
        raise UserError(f"{OURS}.{LLM} is {given!r}: expected a section")
    known_names(given, [name for name in SWITCHES if name not in STATED], f"switch in {OURS}.{LLM}")
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return {"qkv_bias": _or(hf.get("attention_bias"), EVE[kind])} | lists


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _check_numbers(hf: dict[str, Any]) -> None:
    """Raise UserError for a size that is none; null counts as nothing where `transformers` has a default."""
    for name in (*COUNTS, *OPTIONAL_COUNTS, *(() if is_plain(hf) else ("mm_hidden_size",))):
        value = hf.get(name)
        absent = name not in hf or (value is None and name in OPTIONAL_COUNTS)
        if not absent and (isinstance(value, bool) or not isinstance(value, int) or value <= 0):
            raise UserError(f"{name} is {value!r}: expected a whole number above 0")
    eps = _or(hf.get("rms_norm_eps"), 1e-6)
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 <= eps < 1:
        raise UserError(f"rms_norm_eps is {eps!r}: expected a number from 0 to 1")
    if not isinstance(_or(hf.get(OURS), {}), dict):
        raise UserError(f"{OURS} is {hf[OURS]!r}: expected an object")


def _patch(hf: dict[str, Any]) -> dict[str, Any]:
    v1 = hf["model_type"] == V1
    return {
        "patch_embed": "v1" if v1 else "v2",
        "patch_hidden": hf["mm_hidden_size"],
        "sub_patch": 14 if v1 else 16,
    }


def _llm_of(hf: dict[str, Any]) -> dict[str, Any]:
    text = text_section(hf)
    if not is_plain(text):
        raise UserError(f"text_config is of {text['model_type']!r}: expected one of {', '.join(FAMILIES)}")
    return text


def _encoder(hf: dict[str, Any]) -> dict[str, Any]:
    """The fields PATCH_FIELDS of a LLaVA."""
    vision: dict[str, Any] = {**CLIP_DEFAULTS, **vision_section(hf)}
    encoder = EncoderConfig(**{f.name: vision[THEIR_NAMES.get(f.name, f.name)] for f in fields(EncoderConfig)})
    return {"patch_embed": "clip", "sub_patch": encoder.patch_size // 2, "encoder": encoder}


def clip_config(hf: dict[str, Any]) -> ClipConfig:
    """Sizes of the vision tower that CLIP's config.json, or that of the tower alone, describes. Raises UserError."""
    vision = hf.get("vision_config") if hf.get("model_type") == "clip" or "vision_config" in hf else hf
    if not isinstance(vision, dict):
        raise UserError(f"vision_config is {vision!r}: expected the sizes of the vision tower")
    vision = CLIP_DEFAULTS | vision
    return ClipConfig(**{f.name: vision[THEIR_NAMES.get(f.name, f.name)] for f in fields(ClipConfig)})


def _parts(hf: dict[str, Any]) -> tuple[str, ...]:
    if not hf.get("add_moe"):
        return ()
    if hf["model_type"] == "eve-llama3" and not hf.get("moe_part"):
        return VARIANTS["rep"]  # the original's LLaMA-3 model calls its gated deltas "moe"
    parts = set(filter(None, str(hf.get("moe_part") or "").split("-")))
    unknown = sorted(parts - set(TWICE))
    if unknown or not parts:
        raise UserError(f"moe_part {hf.get('moe_part')!r}: expected some of {'-'.join(TWICE)}")
    return tuple(p for p in TWICE if p in parts)


def tower_size(tower: object, v1: bool) -> tuple[int, int] | None:
    """Largest image size and side of a patch, in pixels, that the name `mm_vision_tower` of EVE states; None if none.

    A path counts by its last part.
    """
    found = TOWERS[v1].fullmatch(str(tower or "").rstrip("/").rpartition("/")[2])
    return (int(found["size"]), int(found["patch"])) if found else None
