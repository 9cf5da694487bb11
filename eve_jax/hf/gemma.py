"""config.json of Gemma 4 Unified (transformers' `gemma4_unified`), to our fields and back.

The sizes of its global layers are read as fields of their own (`global_head_dim`, `num_global_key_value_heads`) and by
layer (`per_layer_config`), as releases from 5.23 on save them; an export has both.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eve_jax.data.image.size_rules import BUDGETS
from eve_jax.errors import UserError, warn
from eve_jax.hf.families import GELU
from eve_jax.model.clip_config import LARGEST
from eve_jax.model.config import ModelConfig
from eve_jax.process.checks import number, whole
from eve_jax.process.files import read_json

GEMMA_TYPE, TEXT, VISION, AUDIO = "gemma4_unified", "text_config", "vision_config", "audio_config"
AUDIO_TENSOR = "model.embed_audio."
LOCAL, GLOBAL = "sliding_attention", "full_attention"
KINDS = {LOCAL: "local", GLOBAL: "full"}
# What the class fixes of our fields.
SWITCHES: dict[str, Any] = {
    "patch_embed": "ln_linear_pos_norm",
    "image_attention": "image",
    "rope": "1d",
    "index_rule": "token",
    "norms": "both",
    "norm_plus_one": False,
    "qk_norm": "head",
    "activation": "gelu_tanh",
    "scale_embeddings": True,
    "qkv_bias": False,
    "attention_size": 1.0,  # scores are not scaled
    "value_norm": True,
    "layer_scale": True,
    "image_reach": "all",
    "tie_embeddings": True,
    "in_turns": True,
}
# Sizes of the LLM: name there, ours, and what the class means where its section says nothing.
SIZES = {
    "vocab_size": ("vocab_size", 262_144),
    "hidden_size": ("hidden_size", 2304),
    "intermediate_size": ("intermediate_size", 9216),
    "num_hidden_layers": ("num_layers", 30),
    "num_attention_heads": ("num_heads", 8),
    "num_key_value_heads": ("num_kv_heads", 4),
    "head_dim": ("head_dim", 256),
    "sliding_window": ("window", 1024),
}
# What a section must say, where it says something.
FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    TEXT: {
        "hidden_activation": (GELU,),
        "attention_bias": (False,),
        "use_bidirectional_attention": ("vision",),
        "num_kv_shared_layers": (0,),
        "tie_word_embeddings": (True,),
    },
    VISION: {},
}
POSITIONS = {
    LOCAL: {"rope_type": "default", "rope_theta": 1e4},
    GLOBAL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
}
READ = {
    TEXT: {
        *(*SIZES, *FIXED[TEXT], "rms_norm_eps", "rope_parameters", "layer_types", "final_logit_softcapping"),
        *("attention_k_eq_v", "per_layer_config", "global_head_dim", "num_global_key_value_heads"),
        # Without effect on what is computed here.
        *("model_type", "attention_dropout", "initializer_range", "max_position_embeddings", "use_cache", "dtype"),
        *("pad_token_id", "bos_token_id", "eos_token_id", "torch_dtype", "use_double_wide_mlp", "architectures"),
    },
    VISION: {
        *("model_type", "patch_size", "pooling_kernel_size", "mm_embed_dim", "mm_posemb_size", "rms_norm_eps"),
        *("output_proj_dims", "initializer_range", "dtype", "torch_dtype"),
    },
}
PROCESSORS = ("processor_config.json", "preprocessor_config.json")


def text_part(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section of the LLM, with the sizes that the class means where it says none."""
    return {name: default for name, (_, default) in SIZES.items()} | _section(hf, TEXT)


def gemma_config(hf: Mapping[str, Any]) -> ModelConfig:
    """Return the sizes that config.json of Gemma 4 Unified states.

    Raise UserError, without the file's name, for what is missing, is no size, or asks for another model.
    """
    if not _section(hf, TEXT):
        raise UserError(f"{TEXT} is missing: the section with the sizes of the LLM")
    text, vision = text_part(hf), _section(hf, VISION)
    if not vision:
        raise UserError(f"{VISION} is missing: this is an LLM alone, under a name that eve_jax does not read")
    if not hf.get("tie_word_embeddings", True):
        raise UserError("tie_word_embeddings is False, which eve_jax does not have for this model")
    for name, section in ((TEXT, text), (VISION, vision)):
        for field, accepted in FIXED[name].items():
            if section.get(field) is not None and section[field] not in accepted:
                raise UserError(f"{name}.{field} is {section[field]!r}: expected {accepted[0]!r}")
    sizes: dict[str, Any] = {ours: _count(f"{TEXT}.{name}", text[name]) for name, (ours, _) in SIZES.items()}
    kinds = _layer_kinds(text, sizes["num_layers"])
    turn = _turn(kinds)
    cap = text.get("final_logit_softcapping")
    return ModelConfig(
        **{name: value for name, value in SWITCHES.items() if name != "in_turns"},
        **sizes,
        **_positions(text),
        **_wide(text, kinds),
        **_patches(vision, text),
        layer_kinds=turn,
        rms_norm_eps=_eps(text),
        logit_cap=0.0 if cap is None else number(f"{TEXT}.final_logit_softcapping", cap, "a number above 0", 0),
        parts=(),
    )


def _section(hf: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = {} if hf.get(name) is None else hf[name]
    if not isinstance(section, dict):
        raise UserError(f"{name} is {section!r}: expected a section")
    return section


def _count(name: str, value: Any) -> int:
    return whole(name, value, "a whole number above 0", 1, 2**31 - 1)


def _eps(section: Mapping[str, Any]) -> float:
    return number("rms_norm_eps", section.get("rms_norm_eps", 1e-6), "a number from 0 to 1", 0, 1)


def _layer_kinds(text: Mapping[str, Any], layers: int) -> list[str]:
    """The kind of each layer; without a list every sixth and the last one are global."""
    given = text.get("layer_types")
    if given is None:
        given = [LOCAL if (i + 1) % 6 and i + 1 < layers else GLOBAL for i in range(layers)]
    if not isinstance(given, list) or len(given) != layers or any(one not in KINDS for one in given):
        raise UserError(f"{TEXT}.layer_types is not a list of {LOCAL} or {GLOBAL} for each of {layers} layers")
    if given[-1] != GLOBAL:
        raise UserError(f"{TEXT}.layer_types ends with {given[-1]}, where the class has {GLOBAL} whatever is said")
    return [KINDS[one] for one in given]


def _turn(kinds: list[str]) -> tuple[str, ...]:
    """The turn that the layers repeat."""
    turn = tuple(kinds[: kinds.index("full") + 1])
    if list(turn) * (len(kinds) // len(turn)) != kinds:
        raise UserError(f"{TEXT}.layer_types: layers that do not take turns, some local ones and a global one")
    return turn


def _positions(text: Mapping[str, Any]) -> dict[str, Any]:
    """Theta of both kinds of layers, and the share of the pairs that turn in global ones."""
    given = text.get("rope_parameters") or POSITIONS
    if not isinstance(given, dict) or set(given) != set(POSITIONS):
        raise UserError(f"{TEXT}.rope_parameters is {given!r}: expected sections {LOCAL} and {GLOBAL}")
    for kind, known in POSITIONS.items():
        section = given[kind]
        if not isinstance(section, dict) or section.get("rope_type", "default") not in ("default", known["rope_type"]):
            raise UserError(f"{TEXT}.rope_parameters.{kind} is {section!r}: expected type {known['rope_type']}")
        if others := set(section) - {*known, "partial_rotary_factor"}:
            raise UserError(f"{TEXT}.rope_parameters.{kind}.{min(others)} is not understood")
    at, theta, share = f"{TEXT}.rope_parameters", "rope_theta", "partial_rotary_factor"
    local, wide = (
        number(f"{at}.{kind}.{theta}", given[kind].get(theta), "a number above 0", 0) for kind in (LOCAL, GLOBAL)
    )
    if given[LOCAL].get(share, 1.0) != 1.0:
        raise UserError(f"{at}.{LOCAL}.{share} is {given[LOCAL][share]!r}: expected 1")
    found: dict[str, Any] = {"rope_theta": wide, "local_rope_theta": local}
    if given[GLOBAL].get("rope_type") == "proportional":
        part = number(f"{at}.{GLOBAL}.{share}", given[GLOBAL].get(share, 1.0), "a share of the pairs", 0, 1)
        found |= {"rope_type": "proportional", "rope_scaling": (part,)}
    return found


def _wide(text: Mapping[str, Any], kinds: list[str]) -> dict[str, Any]:
    """Heads of global layers: in a list by layer, or in fields of their own."""
    shared = bool(text.get("attention_k_eq_v"))
    heads = text.get("num_global_key_value_heads") if shared else None
    stated = {"head_dim": text.get("global_head_dim", 512)}
    stated["num_key_value_heads"] = text["num_key_value_heads"] if heads is None else heads
    by_layer = text.get("per_layer_config")
    if by_layer is not None:
        each = [i for i, kind in enumerate(kinds) if kind == "full"]
        own = {str(key): value for key, value in by_layer.items()} if isinstance(by_layer, dict) else {}
        if sorted(map(str, each)) != sorted(own) or any(value != own[str(each[0])] for value in own.values()):
            raise UserError(f"{TEXT}.per_layer_config is not the same for each global layer, and no other")
        first = own[str(each[0])]
        if not isinstance(first, dict) or set(first) - set(stated):
            raise UserError(f"{TEXT}.per_layer_config: {first!r} has other fields than {' and '.join(stated)}")
        said = {"head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"}
        for name, value in first.items():
            if text.get(said[name]) not in (None, value):
                raise UserError(f"{TEXT}.{said[name]} is {text[said[name]]!r}, but {value!r} in per_layer_config")
        stated = {"head_dim": text["head_dim"], "num_key_value_heads": text["num_key_value_heads"]} | first
    return {
        "wide_head_dim": _count(f"{TEXT}.global_head_dim", stated["head_dim"]),
        "wide_kv_heads": _count(f"{TEXT}.num_global_key_value_heads", stated["num_key_value_heads"]),
        "key_values": "full" if shared else "none",
    }


def _patches(vision: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    side, pool = (
        whole(f"{VISION}.{name}", vision.get(name, default), "a number of pixels", 1, LARGEST)
        for name, default in (("patch_size", 16), ("pooling_kernel_size", 3))
    )
    if side * pool % 2:
        raise UserError(f"{VISION}: patches of {side} x {pool} pixels a side, which is not an even number")
    width = _count(f"{VISION}.mm_embed_dim", vision.get("mm_embed_dim", 3840))
    if vision.get("output_proj_dims", width) != width:
        raise UserError(f"{VISION}.output_proj_dims is {vision['output_proj_dims']!r}: expected mm_embed_dim, {width}")
    if _eps(vision) != _eps(text):
        raise UserError(f"{VISION}.rms_norm_eps is {_eps(vision)}: expected that of {TEXT}, {_eps(text)}")
    sides = _count(f"{VISION}.mm_posemb_size", vision.get("mm_posemb_size", 1120))
    return {"sub_patch": side * pool // 2, "patch_hidden": width, "patch_sides": sides}


def warn_unknown(hf: Mapping[str, Any], file: Path) -> None:
    """Print a line on stderr, once, that names the fields of both sections that are not known, and one about audio."""
    for section, read in READ.items():
        if unknown := sorted(n for n, v in _section(hf, section).items() if n not in read and v not in (None, {}, [])):
            warn(f"{file}: fields of {section} that are not understood are ignored: {', '.join(unknown)}")
    if hf.get(AUDIO):
        warn(f"{file}: {AUDIO}: audio is not read; its matrix is left out, of an export, too")


def without_audio(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return `tensors` without those of audio."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(AUDIO_TENSOR)}


def image_budget(folder: Path) -> int:
    """Return the most tokens of an image that the processor's files in `folder` state, 0: none. Raise UserError."""
    for file in (folder / name for name in PROCESSORS):
        found = read_json(file) if file.is_file() else {}
        images = found.get("image_processor") or found
        if not isinstance(images, dict):
            raise UserError(f"{file}: image_processor is {images!r}: expected a section")
        if (given := images.get("max_soft_tokens")) in BUDGETS:
            return int(given)
        if given is not None:
            raise UserError(f"{file}: max_soft_tokens is {given!r}: expected one of {', '.join(map(str, BUDGETS))}")
    return 0


def written_config(cfg: ModelConfig, carried: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Return config.json of an export; `carried`: that of the model which it was trained from, or {}."""
    before = dict(carried) if carried.get("model_type") == GEMMA_TYPE else {}
    kinds = {ours: theirs for theirs, ours in KINDS.items()}
    each = [kinds[cfg.kinds[number]] for number in cfg.kind_numbers]
    wide = {"head_dim": cfg.wide_head_dim, "num_key_value_heads": cfg.wide_kv_heads}
    positions = {LOCAL: {"rope_type": "default", "rope_theta": cfg.local_rope_theta}}
    positions[GLOBAL] = {"rope_type": "default", "rope_theta": cfg.rope_theta}
    if cfg.rope_scaling:
        positions[GLOBAL] |= {"rope_type": "proportional", "partial_rotary_factor": cfg.rope_scaling[0]}
    text = {name: getattr(cfg, ours) for name, (ours, _) in SIZES.items()}
    text |= {name: accepted[0] for name, accepted in FIXED[TEXT].items()}
    text |= {
        "model_type": f"{GEMMA_TYPE}_text",
        "rms_norm_eps": cfg.rms_norm_eps,
        "rope_parameters": positions,
        "layer_types": each,
        "final_logit_softcapping": cfg.logit_cap or None,
        "attention_k_eq_v": cfg.key_values == "full",
        "global_head_dim": cfg.wide_head_dim,
        "num_global_key_value_heads": cfg.wide_kv_heads,
        "per_layer_config": {str(i): wide for i, kind in enumerate(each) if kind == GLOBAL},
    }
    stated = _section(before, VISION)
    pool = stated.get("pooling_kernel_size", 3)
    side = stated.get("patch_size", 16)
    if side * pool != 2 * cfg.sub_patch:
        side, pool = 2 * cfg.sub_patch, 1
    vision = {
        "model_type": f"{GEMMA_TYPE}_vision",
        "patch_size": side,
        "pooling_kernel_size": pool,
        "mm_embed_dim": cfg.patch_hidden,
        "output_proj_dims": cfg.patch_hidden,
        "mm_posemb_size": cfg.patch_sides,
        "rms_norm_eps": cfg.rms_norm_eps,
    }
    dropped = ("transformers_version", "torch_dtype", "quantization_config")
    return {name: value for name, value in before.items() if name not in dropped} | {
        "model_type": GEMMA_TYPE,
        "architectures": ["Gemma4UnifiedForConditionalGeneration"],
        TEXT: _section(before, TEXT) | text,
        VISION: stated | vision,
        AUDIO: None,
        "tie_word_embeddings": True,
        "dtype": dtype,
    }
