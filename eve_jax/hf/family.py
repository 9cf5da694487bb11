"""config.json of other members of the family, to our fields and back: NEO's (arXiv 2510.14979), SAIL's (2504.10462).

NEO's has the LLM's fields in a section of their own; the form of the hub and that of the training kit are read. SAIL's
is Mistral's with one field more. The $100 model, which has no folder of its makers' form, is here its base LLM's with a
section more.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eve_jax.data.image.size_rules import GEMMA, HUNDRED, NEO, NEO_AREA, SAIL
from eve_jax.data.text.load import load_tokenizer
from eve_jax.errors import UserError
from eve_jax.hf import gemma
from eve_jax.model.clip_config import LARGEST
from eve_jax.model.config import ModelConfig
from eve_jax.model.family_config import EVE_FIELDS, FamilyFields
from eve_jax.process.checks import known_names, number, whole

NEO_TYPE, NEO_TEMPLATE, LLM_PART, VISION_PART = "neo_chat", "neo1_0", "llm_config", "vision_config"
SAIL_BASE = "mistral"
SAIL_PATCH = "vision_patch_size"  # field that Mistral's config.json does not have
PATCHES = "eve_patches"  # section that a plain LLM's does not have, of the $100 model
# What the members fix of our fields.
SWITCHES: dict[str, dict[str, Any]] = {
    NEO: {"patch_embed": "conv_gelu_rope", "image_attention": "image", "rope": "thw", "index_rule": "thw"},
    SAIL: {"patch_embed": "linear", "image_attention": "prefix", "rope": "sections", "index_rule": "max+1"},
    HUNDRED: {"patch_embed": "ln_linear_pos", "image_attention": "causal", "rope": "1d", "index_rule": "token"},
    GEMMA: gemma.SWITCHES,
}
# Their further fields that the folder of a member states: its config.json, of SAIL's tokens its tokenizer.
STATED: dict[str, tuple[str, ...]] = {
    NEO: ("place_theta", "patch_theta", "extra_layers"),
    SAIL: ("patch_token", "close_token"),
    HUNDRED: ("patch_sides",),
    GEMMA: ("patch_sides", "wide_head_dim", "wide_kv_heads", "key_values", "logit_cap"),
}
MEMBERS = {NEO: "NEO", SAIL: "SAIL", HUNDRED: "the $100 model", GEMMA: "Gemma 4 Unified"}
TRAINED_BY = {NEO: "neo_pt, neo_mt and neo_sft", SAIL: "sail_sft", HUNDRED: "hundred", GEMMA: "gemma4_sft"}
TEMPLATE = {GEMMA: "gemma4"}  # of a member whose template has another name
HUNDRED_IMAGES = {"image_mode": "anyratio_ld", "max_size": 512, "max_aspect": 8.0}
EXTRA = "extra_num_layers"
# Of NEO's published models, whose config.json may not say it: layers of the LLM's own size -> those that are extra.
PUBLISHED = {(40, 2048): 12, (42, 4096): 6}
NEO_FIELDS = ("rope_theta_hw", "max_position_embeddings_hw", EXTRA)  # of the LLM's section, which Qwen3's has not
AREA = ("min_pixels", "max_pixels")  # of the section of the images


def member(hf: Mapping[str, Any]) -> str:
    """Return which member, of SWITCHES, a config.json is of; "" for another model."""
    if hf.get("model_type") == NEO_TYPE:
        return NEO
    if hf.get("model_type") == gemma.GEMMA_TYPE:
        return GEMMA
    if PATCHES in hf:
        return HUNDRED
    return SAIL if hf.get("model_type") == SAIL_BASE and hf.get(SAIL_PATCH) is not None else ""


def member_of(cfg: FamilyFields) -> str:
    """Return the member of SWITCHES whose patch embedding a model has, "" for none."""
    return next((kind for kind, switches in SWITCHES.items() if switches["patch_embed"] == cfg.patch_embed), "")


def plain_part(hf: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the LLM in a config.json, without those that a plain one has not."""
    return {name: value for name, value in llm_part(hf).items() if name not in NEO_FIELDS}


def llm_part(hf: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the LLM in a config.json."""
    if member(hf) == GEMMA:
        return gemma.text_part(hf)
    if member(hf) != NEO:
        return {name: value for name, value in hf.items() if name not in (SAIL_PATCH, PATCHES)}
    llm = hf.get(LLM_PART)
    if not isinstance(llm, dict):
        raise UserError(f"{LLM_PART} is {llm!r}: expected a section")
    return llm | {"tie_word_embeddings": bool(llm.get("tie_word_embeddings"))}


def own_fields(hf: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `ModelConfig` in which a member differs from its LLM; raise UserError for others."""
    kind = member(hf)
    if kind == SAIL:
        size = whole(SAIL_PATCH, hf[SAIL_PATCH], "an even number of pixels", 2, LARGEST)
        return SWITCHES[SAIL] | {"sub_patch": size // 2}
    if kind == HUNDRED:
        return SWITCHES[HUNDRED] | _own_patches(hf[PATCHES])
    llm, vision = llm_part(hf), hf.get(VISION_PART)
    if not isinstance(vision, dict):
        raise UserError(f"{VISION_PART} is {vision!r}: expected a section")
    for name, given, wanted in (
        ("num_channels", vision.get("num_channels", 3), 3),
        ("downsample_ratio", _alone(vision.get("downsample_ratio", 0.5)), 0.5),
        ("llm_hidden_size", _alone(vision.get("llm_hidden_size", llm.get("hidden_size"))), llm.get("hidden_size")),
    ):
        if given != wanted:
            raise UserError(f"{VISION_PART}.{name} is {given!r}: expected {wanted}")
    if hf.get("template", NEO_TEMPLATE) != NEO_TEMPLATE:
        raise UserError(f"template is {hf['template']!r}, which eve_jax does not have; known: {NEO_TEMPLATE}")
    layers = llm.get("num_hidden_layers")
    extra = llm.get(EXTRA)
    if extra is None and (extra := PUBLISHED.get((layers, llm.get("hidden_size")))) is None:  # type: ignore[arg-type]
        raise UserError(f"{LLM_PART}.{EXTRA} is missing: how many of the {layers} layers, the first ones, are new")
    return SWITCHES[NEO] | {
        "sub_patch": whole(f"{VISION_PART}.patch_size", vision.get("patch_size", 16), "a number of pixels", 1, LARGEST),
        "patch_hidden": whole(f"{VISION_PART}.hidden_size", vision.get("hidden_size", 1024), "a width", 1, LARGEST),
        "patch_theta": _theta(f"{VISION_PART}.rope_theta_vision", vision.get("rope_theta_vision", 1e4)),
        "place_theta": _theta("rope_theta_hw", llm.get("rope_theta_hw", 1e4)),
        "extra_layers": whole(EXTRA, extra, "a number of layers", 0, LARGEST),
    }


def _own_patches(section: Any) -> dict[str, Any]:
    """The fields of the patch embedding in the section PATCHES."""
    if not isinstance(section, dict):
        raise UserError(f"{PATCHES} is {section!r}: expected a section")
    known_names(section, ("patch_size", "hidden_size", "sides"), f"field in {PATCHES}")
    size, width, sides = (
        whole(f"{PATCHES}.{name}", section.get(name), f"a number of {what}", 1, LARGEST)
        for name, what in (("patch_size", "pixels"), ("hidden_size", "channels"), ("sides", "patches"))
    )
    if size % 2:
        raise UserError(f"{PATCHES}.patch_size is {size}: expected an even number of pixels")
    return {"sub_patch": size // 2, "patch_hidden": width, "patch_sides": sides}


def patches_section(cfg: ModelConfig) -> dict[str, Any]:
    """Return the section PATCHES of the $100 model `cfg`."""
    return {"patch_size": 2 * cfg.sub_patch, "hidden_size": cfg.patch_hidden, "sides": cfg.patch_sides}


def _theta(name: str, value: Any) -> float:
    return number(name, value, "a number above 0", 0)


def _alone(value: Any) -> Any:
    """A number that may be in a list of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def image_tokens(hf: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that the tokenizer in `folder` tells of SAIL; {} for other models."""
    if member(hf) != SAIL:
        return {}
    tokenizer = load_tokenizer(folder)
    return {"patch_token": tokenizer.token_id("<vpatch>"), "close_token": tokenizer.token_id("</vision>")}


def data_fields(hf: dict[str, Any], cfg: ModelConfig, file: Path) -> dict[str, Any]:
    """Return the settings of `config.data` that belong to a checkpoint of a member, whose config.json `file` has `hf`.

    Raise UserError, naming the file, for an area that is none.
    """
    kind = member(hf)
    data: dict[str, Any] = {
        "image_mode": kind,
        "template": TEMPLATE.get(kind, kind),
        "max_size": 0,
        "max_aspect": 0.0,
        "fit": "shrink",
    }
    data |= {"image_first": False, "patch": 2 * cfg.sub_patch} | (HUNDRED_IMAGES if kind == HUNDRED else {})
    if kind == GEMMA and (tokens := gemma.image_budget(file.parent)):
        data["image_tokens"] = tokens
    vision = hf.get(VISION_PART) or {}
    given = [vision.get(name) for name in AREA]
    if kind == NEO and given != [None, None]:
        data["area"] = [
            default if value is None else whole(f"{file}: {VISION_PART}.{name}", value, "a number of pixels", 1)
            for name, value, default in zip(AREA, given, NEO_AREA, strict=True)
        ]
        if data["area"][0] > data["area"][1]:
            said = f"{AREA[0]} is {data['area'][0]}, above {AREA[1]}, {data['area'][1]}"
            raise UserError(f"{file}: {VISION_PART}.{said}: expected the least area of an image, and the largest")
    return data


def exported_member(cfg: ModelConfig) -> str:
    """Return the member whose config.json describes a model `cfg`, "" for none."""
    for kind, switches in SWITCHES.items():
        if all(getattr(cfg, name) == value for name, value in switches.items()) and not cfg.parts:
            return kind
    return ""


def check_member(kind: str, cfg: ModelConfig) -> None:
    """Raise UserError, naming it, for a field of `cfg` that the folder of a member `kind` does not state."""
    kept = {*SWITCHES[kind], *STATED[kind], "longest_image"}
    for name, default in EVE_FIELDS.items():
        if name not in kept and getattr(cfg, name) != default:
            raise _unstated(kind, name, getattr(cfg, name))
    for name in ("patch_token", "close_token") if kind == SAIL else ():
        if getattr(cfg, name) < 0:
            raise _unstated(kind, name, getattr(cfg, name))


def _unstated(kind: str, name: str, value: Any) -> UserError:
    return UserError(
        f"model.{name}={value}: a Hugging Face folder of {kind} does not state it, so the export would be another "
        "model; chat, score and serve take the stage folder itself"
    )


def neo_config(cfg: ModelConfig, llm: dict[str, Any], data: dict[str, Any], carried: dict[str, Any]) -> dict[str, Any]:
    """Return config.json of NEO in the form of the hub.

    llm: that of the LLM alone, with all its layers. carried: that of the model which it was trained from.
    """
    before = carried if member(carried) == NEO else {}
    own = {
        "rope_theta_hw": cfg.place_theta,
        "max_position_embeddings_hw": 10_000,
        EXTRA: cfg.extra_layers,
        "head_dim": cfg.head_dim,
        "architectures": ["Qwen3ForCausalLM"],
    }
    least, most = data.get("area") or (0, 0)
    vision = {
        "model_type": "neo_vision",
        "architectures": ["NEOVisionModel"],
        "hidden_size": cfg.patch_hidden,
        "llm_hidden_size": cfg.hidden_size,
        "downsample_ratio": 0.5,
        "patch_size": cfg.sub_patch,
        "num_channels": 3,
        "rope_theta_vision": cfg.patch_theta,
        "max_position_embeddings_vision": 10_000,
    }
    areas = dict(zip(AREA, (least, most), strict=True)) if most else {}
    out = {
        "architectures": ["NEOChatModel"],
        "downsample_ratio": 0.5,
        "template": NEO_TEMPLATE,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "tie_word_embeddings": cfg.tie_embeddings,
    }
    return (
        out
        | before
        | {
            "model_type": NEO_TYPE,
            LLM_PART: llm | {n: v for n, v in before.get(LLM_PART, {}).items() if n not in llm} | own,
            VISION_PART: before.get(VISION_PART, {}) | vision | areas,
        }
    )
