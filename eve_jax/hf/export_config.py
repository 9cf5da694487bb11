"""Our sizes and settings to Hugging Face's config.json: of an EVE model, or of the plain LLM in it."""

from dataclasses import asdict, replace
from typing import Any

from eve_jax.data.image.size_rules import GEMMA, HUNDRED, SAIL
from eve_jax.errors import UserError
from eve_jax.hf.config import (
    CONFIGURATION,
    DATA_FIELDS,
    INFERENCE_FIT,
    LLM,
    MODELLING,
    OURS,
    PATCH_FIELDS,
    STATED,
    SWITCHED,
    TEACHER_SIZES,
    THEIR_NAMES,
    V1,
    tower_size,
)
from eve_jax.hf.families import STATED as FAMILY_FIELDS
from eve_jax.hf.families import plain_family, plain_fields
from eve_jax.hf.family import (
    PATCHES,
    SAIL_BASE,
    SAIL_PATCH,
    check_member,
    exported_member,
    llm_part,
    neo_config,
    patches_section,
)
from eve_jax.hf.gemma import written_config
from eve_jax.hf.generation import IDS
from eve_jax.hf.llava import FIXED, IMAGE_ID, LLAVA, text_section
from eve_jax.hf.rope import rope_fields
from eve_jax.model.config import TWICE, VARIANTS, ModelConfig, ModelFields
from eve_jax.model.family_config import EVE_FIELDS
from eve_jax.model.llms import SWITCHES
from eve_jax.model.v1_config import OF_PATCHES, V1_SWITCHES

LAYER_TYPES = "layer_types"  # one entry a layer, whose kinds follow from other fields but in Gemma 3
# What is written for a model that began with random weights; others have the fields of the config they came from.
DEFAULTS = {
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "attention_dropout": 0.0,
    "max_position_embeddings": 32768,
    "use_cache": True,
}


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
    carried = text_section(carried)
    if cfg.encoder is not None and not text_only:
        return _llava_config(cfg, data, carried, dtype)
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
    if len(out.get(LAYER_TYPES) or ()) != cfg.num_layers:  # of a base with other layers; the family means its own
        out.pop(LAYER_TYPES, None)
    if cfg.head_dim * cfg.num_heads != cfg.hidden_size:
        out["head_dim"] = cfg.head_dim
    out |= rope_fields(cfg)
    if text_only:
        kind = plain_family(cfg, carried)
        gone = {"add_moe", "moe_part", "init_moe", "auto_map"}
        if kind not in ("qwen2", "llama", carried.get("model_type")):
            gone |= FAMILY_FIELDS
        out = {name: value for name, value in out.items() if not name.startswith("mm_") and name not in gone}
        return out | plain_fields(cfg, kind)
    if kind := exported_member(cfg):
        return _member_config(kind, cfg, data, carried, dtype)
    out[OURS] = _settings(data, *DATA_FIELDS, INFERENCE_FIT)
    if not cfg.qkv_bias:
        out["attention_bias"] = False
    if cfg.patch_embed == "v1":
        return out | _v1_fields(cfg, data, carried)
    if own := switched(cfg):
        out = {name: value for name, value in out.items() if name not in FAMILY_FIELDS}
        out[OURS][LLM] = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
    return out | _v2_fields(cfg, data, carried)


def _llava_config(cfg: ModelConfig, data: dict[str, Any], carried: dict[str, Any], dtype: str) -> dict[str, Any]:
    """config.json in LLaVA's layout; the caller enters the number of the image's token as IMAGE_ID."""
    assert cfg.encoder is not None
    vision = {THEIR_NAMES.get(name, name): value for name, value in asdict(cfg.encoder).items()}
    return {
        "model_type": LLAVA,
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": hf_config(cfg, data, carried, dtype, text_only=True),
        "vision_config": {"model_type": "clip_vision_model", "projection_dim": vision["hidden_size"], **vision},
        **FIXED,
        IMAGE_ID: cfg.vocab_size - 1,
        "image_seq_length": cfg.encoder.cells**2,
        "tie_word_embeddings": cfg.tie_embeddings,
        "torch_dtype": dtype,
        OURS: {k: data[k] for k in DATA_FIELDS if k in data},
    }


def _member_config(
    kind: str, cfg: ModelConfig, data: dict[str, Any], carried: dict[str, Any], dtype: str
) -> dict[str, Any]:
    """config.json of another member of the family, with the settings that eve_jax reads in a section of its own."""
    if kind == GEMMA:
        return written_config(cfg, carried, dtype) | {OURS: _settings(data, *DATA_FIELDS)}
    plain = replace(cfg, parts=(), **EVE_FIELDS)
    base = llm_part(carried) if carried else {}
    base |= {"model_type": SAIL_BASE} if kind == SAIL else {}
    llm = hf_config(plain, {}, base, dtype, text_only=True)
    ours = {OURS: _settings(data, *DATA_FIELDS)}
    if kind == SAIL:
        if llm["model_type"] != SAIL_BASE:
            raise UserError(f"this base is no {SAIL_BASE}, which a folder of SAIL is: export the LLM with --text_only")
        return llm | {SAIL_PATCH: 2 * cfg.sub_patch} | ours
    if kind == HUNDRED:
        return llm | {PATCHES: patches_section(cfg)} | ours
    tokens = {name: llm[name] for name in ("torch_dtype", *IDS) if name in llm}
    return neo_config(cfg, llm, data, carried) | tokens | ours


def _settings(data: dict[str, Any], *names: str) -> dict[str, Any]:
    """Those of `names` that the settings of a model have; an area and a number of tokens that are the mode's own are
    left out."""
    own: dict[str, Any] = {"area": ([0, 0], (0, 0)), "image_tokens": (0,)}
    return {name: data[name] for name in names if name in data and data[name] not in own.get(name, ())}


def switched(cfg: ModelConfig) -> dict[str, Any]:
    """The switches of the base of `cfg` that the original's models do not have, and what they are."""
    names = (name for name in SWITCHES if name not in STATED)
    return {name: getattr(cfg, name) for name in names if getattr(cfg, name) != getattr(ModelFields, name)}


def has_deltas(cfg: ModelConfig) -> bool:
    """Whether the original has names for gated deltas on the base of `cfg`: on LLaMA-3 alone, without an encoder."""
    return not cfg.qkv_bias and not switched(cfg) and cfg.encoder is None


OWN_FORMS = (("patch_embed", "v1"), ("patch_embed", "clip"))  # EVEv1's modeling file, LLaVA's layout


def check_exported(cfg: ModelConfig) -> None:
    """Raise UserError, naming it, for what neither the modeling file of an export nor another member's has."""
    if kind := exported_member(cfg):
        check_member(kind, cfg)
        return
    for name, default in EVE_FIELDS.items():
        value = getattr(cfg, name)
        if name in PATCH_FIELDS and value != default and (name, value) not in OWN_FORMS:
            raise UserError(
                f"model.{name}={value}: no program but eve_jax has a model with it and the rest of this one; "
                "export the LLM alone with --text_only"
            )
    for name in OF_PATCHES:
        if (value := getattr(cfg, name)) != V1_SWITCHES[name]:
            raise UserError(
                f"model.{name}={value}: EVEv1's layout has the attention that this model is without; export the LLM "
                "alone with --text_only"
            )
    if cfg.patch_embed == "v1" and (own := switched(cfg)):
        name, value = next(iter(own.items()))
        raise UserError(
            f"model.{name}={value}: the modeling file of EVEv1 (model.patch_embed=v1) does not have it; export the LLM "
            "alone with --text_only"
        )
    if cfg.encoder is not None and cfg.parts:
        raise UserError(
            f"model.parts={','.join(cfg.parts)}: LLaVA's layout, that of a model with a vision encoder, has single "
            "weights; export the LLM alone with --text_only"
        )


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
    if switched(cfg):
        kind, stem = SWITCHED, "EveSwitched"
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
    ours = _settings(data, *DATA_FIELDS)
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
