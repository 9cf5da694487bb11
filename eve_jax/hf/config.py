"""Hugging Face's config.json to our sizes and settings, and back."""

import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from eve_jax.errors import UserError, name_fields
from eve_jax.hf.config_fields import check_fields, refuse_wrapper
from eve_jax.hf.rope import LLAMA3, read_rope
from eve_jax.model.config import TWICE, VARIANTS, ClipConfig, ModelConfig

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
    "rope_scaling",
    "rms_norm_eps",
    "qkv_bias",
    "tie_embeddings",
)
# Fields of `ModelConfig` that a patch embedding decides; a plain LLM has none.
PATCH_FIELDS = ("patch_embed", "patch_hidden", "sub_patch")
OURS = "eve_jax"  # section of an exported config.json that holds settings of ours
PLAIN = {"qwen2": True, "llama": False}  # model_type of plain LLMs: whether q, k and v have biases
V1 = "eve"  # model_type of EVEv1
EVE = {"eve-qwen2": True, "eve-llama3": False, V1: False}
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
    "token_limit",
)
# Names that the original gives its image preprocessing; the largest image size and a patch's side are in them.
TOWERS = {
    False: re.compile(r"eve-anyratio-res(?P<size>\d{1,9})-patch(?P<patch>\d{1,9})"),
    True: re.compile(r"eve-patch(?P<patch>\d{1,9})-anypixel-(?P<size>\d{1,9})"),
}
# What is written for a model that began with random weights; others have the fields of the config they came from.
DEFAULTS = {
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "attention_dropout": 0.0,
    "max_position_embeddings": 32768,
    "use_cache": True,
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
    return hf.get("model_type") in PLAIN


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
    return THEIR_NAMES.get(name, name)


def _model_config(hf: dict[str, Any], **patch: Any) -> ModelConfig:
    refuse_wrapper(hf)
    kind = hf.get("model_type")
    known = PLAIN | EVE
    if not isinstance(kind, str) or kind not in known:
        raise UserError(f"model_type {kind!r} is unknown; known: {', '.join(sorted(known))}")
    check_fields(hf, is_plain(hf), kind == V1)
    theta, scaling = read_rope(hf)
    _check_numbers(hf)
    heads, hidden = hf["num_attention_heads"], hf["hidden_size"]
    if hf.get("head_dim") is None and hidden % heads:
        raise UserError(f"hidden_size {hidden} is no multiple of num_attention_heads {heads}, and there is no head_dim")
    head = hf.get("head_dim") or hidden // heads
    if head % 2:
        raise UserError(f"heads of size {head} cannot have rotary positions, which take pairs")
    return ModelConfig(
        vocab_size=hf["vocab_size"],
        hidden_size=hidden,
        intermediate_size=hf["intermediate_size"],
        num_layers=hf["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=hf.get("num_key_value_heads") or heads,
        head_dim=head,
        rope_theta=theta,
        rope_scaling=scaling,
        rms_norm_eps=float(_or(hf.get("rms_norm_eps"), 1e-6)),
        qkv_bias=_or(hf.get("attention_bias"), known[kind]) if kind in EVE else known[kind],
        tie_embeddings=bool(hf.get("tie_word_embeddings")),
        parts=_parts(hf),
        **(patch if kind in PLAIN else _patch(hf)),
    )


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


def our_config(cfg: ModelConfig, data: dict[str, Any]) -> dict[str, Any]:
    """config.json of a checkpoint folder of ours."""
    variant = next((v for v, parts in VARIANTS.items() if parts == cfg.parts), "")
    return {"name": "imported", "model": {**asdict(cfg), "variant": variant}, "data": data}


def hf_config(
    cfg: ModelConfig, data: dict[str, Any], carried: dict[str, Any], dtype: str, text_only: bool = False
) -> dict[str, Any]:
    """config.json of an export: EVE's with the modeling file, or with `text_only` that of the plain LLM.

    `carried` is the config.json that the model was imported with, or {}; fields that eve_jax does not have stay.
    """
    dropped = {
        "rope_parameters",
        "rope_scaling",
        "dtype",
        "head_dim",
        "transformers_version",
        "quantization_config",
        OURS,
    }
    out: dict[str, Any] = {} if carried else dict(DEFAULTS)
    out |= {k: v for k, v in carried.items() if k not in dropped and not k.startswith("_")}
    out |= {
        "vocab_size": cfg.vocab_size,
        "hidden_size": cfg.hidden_size,
        "intermediate_size": cfg.intermediate_size,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_heads,
        "num_key_value_heads": cfg.num_kv_heads,
        "rope_theta": cfg.rope_theta,
        "rms_norm_eps": cfg.rms_norm_eps,
        "tie_word_embeddings": cfg.tie_embeddings,
        "torch_dtype": dtype,
    }
    if cfg.head_dim * cfg.num_heads != cfg.hidden_size:
        out["head_dim"] = cfg.head_dim
    if cfg.rope_scaling:
        out["rope_scaling"] = {"rope_type": "llama3", **dict(zip(LLAMA3, cfg.rope_scaling, strict=True))}
    if text_only:
        for name in [n for n in out if n.startswith("mm_") or n in ("add_moe", "moe_part", "init_moe", "auto_map")]:
            del out[name]
        kind, architecture = ("qwen2", "Qwen2ForCausalLM") if cfg.qkv_bias else ("llama", "LlamaForCausalLM")
        return out | {"model_type": kind, "architectures": [architecture]}
    out[OURS] = {k: data[k] for k in (*DATA_FIELDS, INFERENCE_FIT) if k in data}
    if not cfg.qkv_bias:
        out["attention_bias"] = False
    return out | (_v1_fields if cfg.patch_embed == "v1" else _v2_fields)(cfg, data, carried)


def _auto(kind: str, stem: str) -> dict[str, Any]:
    """How `transformers` finds the modeling file."""
    return {
        "model_type": kind,
        "architectures": [f"{stem}ForCausalLM"],
        "auto_map": {
            "AutoConfig": f"{CONFIGURATION}.{stem}Config",
            "AutoModelForCausalLM": f"{MODELLING}.{stem}ForCausalLM",
        },
    }


def _tower(carried: dict[str, Any], made: str, size: int, v1: bool) -> str:
    """The name `mm_vision_tower` that the model came with, or `made` where that states another size than `size`."""
    name = carried.get("mm_vision_tower")
    stated = tower_size(name, v1)
    return name if name and (stated is None or stated[0] == size) else made


def _v2_fields(cfg: ModelConfig, data: dict[str, Any], carried: dict[str, Any]) -> dict[str, Any]:
    size = data.get("max_size") or (1600 if data.get("image_mode") == "anyratio_hd" else 800)
    qwen2 = cfg.qkv_bias or bool(set(cfg.parts) & set(TWICE))
    kind, stem = ("eve-qwen2", "Eve") if qwen2 else ("eve-llama3", "EveLlama")
    return _auto(kind, stem) | {
        "add_moe": bool(cfg.parts),
        "moe_part": "-".join(p for p in TWICE if p in cfg.parts) or None,
        "mm_hidden_size": cfg.patch_hidden,
        "mm_vision_tower": _tower(carried, f"openai/eve-anyratio-res{size}-patch16", size, v1=False),
    }


def _v1_fields(cfg: ModelConfig, data: dict[str, Any], carried: dict[str, Any]) -> dict[str, Any]:
    size = data.get("max_size") or 672
    named = {
        "mm_vision_tower_clip": "openai/clip-vit-large-patch14-336",
        "mm_projector_type": "mlp2x_gelu",
    }
    ours = {k: data[k] for k in DATA_FIELDS if k in data}
    if cfg.teacher:
        ours[TEACHER_SIZES] = asdict(cfg.teacher)
    return _auto(V1, "EveV1") | {
        **{name: carried.get(name) or value for name, value in named.items()},
        "mm_vision_tower": _tower(carried, f"openai/eve-patch{cfg.sub_patch}-anypixel-{size}", size, v1=True),
        "mm_hidden_size": cfg.patch_hidden,
        "mm_patch_size": cfg.sub_patch,
        "requires_cliploss": bool(cfg.align_width and cfg.teacher),
        OURS: ours,
    }
