"""The plain LLMs of `transformers` that are taken as a base, by `model_type`: what their config.json means for us.

What a family's class fixes is in `switches`; what its config.json states is read by `read_layers` (kinds of layers) and
`eve_jax.hf.rope`. `plain_fields` is the way back.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from eve_jax.errors import UserError
from eve_jax.model.clip_config import DEEPEST
from eve_jax.model.config import ModelConfig, ModelFields
from eve_jax.process.checks import whole

# Fields of `ModelConfig` that a family's class fixes.
FIXED = ("norms", "norm_plus_one", "qk_norm", "activation", "scale_embeddings", "qkv_bias")
GELU = "gelu_pytorch_tanh"
MOST = 2**31 - 1  # tokens of a window, and the like: what an int32 holds


class Family(NamedTuple):
    """An LLM of `transformers`.

    switches: those of FIXED that are not Qwen2's without biases. kinds: of layers that it may have. theta: of rotary
    positions when config.json has none; local_theta: of local layers, 0 where they have none of their own. defaults: of
    other fields of config.json that are absent. template: the chat template that goes with it, "" where the vocabulary
    tells (LLaMA).
    """

    architecture: str
    switches: Mapping[str, Any] = {}
    kinds: tuple[str, ...] = ("full",)
    theta: float = 1e4
    local_theta: float = 0.0
    defaults: Mapping[str, Any] = {}
    template: str = "qwen2"

    @property
    def fixed(self) -> dict[str, Any]:
        """All of FIXED."""
        return {name: getattr(ModelFields, name) for name in FIXED} | {"qkv_bias": False} | dict(self.switches)


FAMILIES: dict[str, Family] = {
    "qwen2": Family("Qwen2ForCausalLM", {"qkv_bias": True}),
    "llama": Family("LlamaForCausalLM", template=""),
    "mistral": Family(
        "MistralForCausalLM",
        kinds=("full", "local"),
        defaults={"num_key_value_heads": 8, "sliding_window": 4096},
        template="v1",
    ),
    "qwen3": Family("Qwen3ForCausalLM", {"qk_norm": "head"}, defaults={"num_key_value_heads": 32, "head_dim": 128}),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        kinds=("full", "nope"),
        theta=2e6,
        defaults={"num_key_value_heads": 4, "tie_word_embeddings": True},
    ),
    "olmo2": Family("Olmo2ForCausalLM", {"qk_norm": "projection", "norms": "after"}, defaults={"rms_norm_eps": 1e-5}),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        {
            "qk_norm": "head",
            "norms": "both",
            "norm_plus_one": True,
            "activation": "gelu_tanh",
            "scale_embeddings": True,
        },
        kinds=("full", "local"),
        theta=1e6,
        local_theta=1e4,
        defaults={
            "num_key_value_heads": 4,
            "head_dim": 256,
            "sliding_window": 4096,
            "query_pre_attn_scalar": 256,
            "tie_word_embeddings": True,
        },
        template="gemma",
    ),
}
# Fields of config.json by which a family states what `ModelConfig` has switches for.
STATED = {
    "hidden_act",
    "hidden_activation",
    "layer_types",
    "sliding_window",
    "sliding_window_pattern",
    "use_sliding_window",
    "max_window_layers",
    "no_rope_layers",
    "no_rope_layer_interval",
    "query_pre_attn_scalar",
    "rope_local_base_freq",
    "cache_implementation",
}
_TYPES = {"full_attention": "full", "sliding_attention": "local"}


def read_layers(hf: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The fields `layer_kinds`, `window` and `attention_size` of `ModelConfig` in config.json `hf` of a family `kind`.

    Raises UserError, without the file's name, for a list that is not one of the layers, and a size that is none.
    """
    expected = f"a whole number from 1 to {DEEPEST:,}"
    own, layers = FAMILIES[kind], whole("num_hidden_layers", hf["num_hidden_layers"], expected, 1, DEEPEST)
    each = ["full"] * layers
    stated = dict(own.defaults) | dict(hf)
    if kind == "mistral":
        each = ["full" if stated["sliding_window"] is None else "local"] * layers
        if hf.get("layer_types") is not None and [_TYPES[name] for name in _layer_types(hf, layers)] != each:
            raise UserError("layer_types is not what sliding_window says of every layer of Mistral")
    elif kind == "smollm3":
        each = ["full" if turned else "nope" for turned in _turned(hf, layers)]
    elif kind == "gemma3_text":
        each = [_TYPES[name] for name in _layer_types(hf, layers)]
    out: dict[str, Any] = {"layer_kinds": _period(each)}
    if "local" in each:
        out["window"] = _count(stated["sliding_window"], "sliding_window")
    if kind == "gemma3_text":
        scalar = _count(stated["query_pre_attn_scalar"], "query_pre_attn_scalar")
        out["attention_size"] = 0.0 if scalar == stated["head_dim"] else float(scalar)
    return out


def _turned(hf: Mapping[str, Any], layers: int) -> list[Any]:
    """For each layer of SmolLM3's whether it has rotary positions."""
    given = hf.get("no_rope_layers")
    if given is None:
        every = _count(
            4 if hf.get("no_rope_layer_interval") is None else hf["no_rope_layer_interval"], "no_rope_layer_interval"
        )
        return [(i + 1) % every != 0 for i in range(layers)]
    if not isinstance(given, list) or len(given) < layers or any(one not in (0, 1) for one in given):
        raise UserError("no_rope_layers is not a list of 0 or 1 for each layer (num_hidden_layers)")
    return given[:layers]


def _layer_types(hf: Mapping[str, Any], layers: int) -> list[str]:
    given = hf.get("layer_types")
    if given is None:
        name = next((n for n in ("sliding_window_pattern", "_sliding_window_pattern") if hf.get(n) is not None), "")
        every = _count(hf[name] if name else 6, name)
        return ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(layers)]
    if not isinstance(given, list) or len(given) != layers:
        raise UserError("layer_types is not a list of one entry a layer (num_hidden_layers)")
    if others := [name for name in given if not isinstance(name, str) or name not in _TYPES]:
        raise UserError(f"asks for {others[0]!r} in layer_types, which eve_jax does not have")
    return given


def _count(value: Any, name: str) -> int:
    return whole(name, value, f"a whole number from 1 to {MOST:,}", 1, MOST)


def _period(each: list[str]) -> tuple[str, ...]:
    """The shortest beginning of `each` that it repeats."""
    sizes = (n for n in range(1, len(each)) if all(kind == each[i % n] for i, kind in enumerate(each)))
    return tuple(each[: next(sizes, len(each))])


def plain_family(cfg: ModelConfig, carried: Mapping[str, Any]) -> str:
    """The `model_type` of the plain LLM of `cfg`: that of the base's config.json `carried` where it can be.

    Raises UserError naming what no family has.
    """
    first = str(carried.get("model_type"))
    for kind in sorted(FAMILIES, key=lambda kind: kind != first):
        if not _lacks(FAMILIES[kind], kind, cfg):
            return kind
    lacking = min((_lacks(own, kind, cfg) for kind, own in FAMILIES.items()), key=len)
    raise UserError(
        f"no LLM of transformers that eve_jax writes has {' and '.join(lacking)} with the rest of this model; export "
        "it with --notext_only"
    )


def _lacks(own: Family, kind: str, cfg: ModelConfig) -> list[str]:
    """What a model `cfg` has that its family has not."""
    lacking = [f"{name}={getattr(cfg, name)}" for name, value in own.fixed.items() if getattr(cfg, name) != value]
    if not set(cfg.kinds) <= set(own.kinds) or (kind == "mistral" and len(cfg.kinds) > 1):
        lacking.append(f"layer_kinds={','.join(cfg.layer_kinds)}")
    if (cfg.local_rope_theta and not own.local_theta) or (own.local_theta and cfg.window and not cfg.local_rope_theta):
        lacking.append(f"local_rope_theta={cfg.local_rope_theta:g}")
    if cfg.attention_size and kind != "gemma3_text":
        lacking.append(f"attention_size={cfg.attention_size:g}")
    return lacking


def plain_fields(cfg: ModelConfig, kind: str) -> dict[str, Any]:
    """The fields of config.json that state the switches of `cfg` as the family `kind` has them."""
    each = [cfg.kinds[number] for number in cfg.kind_numbers]
    out: dict[str, Any] = {"model_type": kind, "architectures": [FAMILIES[kind].architecture]}
    if "head_dim" in FAMILIES[kind].defaults:
        out["head_dim"] = cfg.head_dim
    if kind == "mistral":
        return out | {"sliding_window": cfg.window or None}
    if kind == "smollm3":
        return out | {"no_rope_layers": [int(one != "nope") for one in each], "use_sliding_window": False}
    if kind != "gemma3_text":
        return out
    types = {ours: theirs for theirs, ours in _TYPES.items()}
    scalar = cfg.attention_size or cfg.head_dim
    return out | {
        "hidden_activation": GELU,
        "layer_types": [types[one] for one in each],
        "query_pre_attn_scalar": int(scalar) if scalar == int(scalar) else scalar,
        "rope_local_base_freq": cfg.local_rope_theta or FAMILIES[kind].local_theta,
        "sliding_window": cfg.window or FAMILIES[kind].defaults["sliding_window"],
    }
