"""Sizes of a model and the table of base LLMs."""

from dataclasses import dataclass, fields
from typing import Any

from eve_jax.errors import UserError

PATCH = 32  # side of an image patch in pixels: a stride-16 and a stride-2 convolution
SUB_PATCH = 16
PATCH_BYTES = PATCH * PATCH * 3

ROUTINGS = ("split", "masked")
REMATS = ("full", "attention", "none")
ATTENTIONS = ("auto", "chunked", "blocked", "splash", "flash")
# Parts of a layer that may exist once for text and once for vision (EVEv2 paper, Fig. 2); upstream's `moe_part`.
TWICE = ("layernorm", "self_attn", "mlp")
DELTA = "delta"  # gated deltas on the feed-forward's up and down weights, for all tokens (EVEv1.2, ReP)
VARIANTS: dict[str, tuple[str, ...]] = {"dense": (), "rep": (DELTA,), "moe": ("mlp",), "dac": TWICE}


def _llm(hidden: int, ffn: int, layers: int, heads: int, kv_heads: int, vocab: int, **other: Any) -> dict[str, Any]:
    """Sizes of an LLM; what `other` does not say is as in Qwen2.5."""
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": hidden // heads,
        "rope_theta": 1e6,
        "rope_scaling": (),
        "rms_norm_eps": 1e-6,
        "qkv_bias": True,
        "tie_embeddings": False,
        **other,
    }


_LLAMA3 = {"qkv_bias": False, "rms_norm_eps": 1e-5, "rope_theta": 5e5}


LLMS: dict[str, dict[str, Any]] = {
    "qwen2.5-7b": _llm(3584, 18944, 28, 28, 4, 152064),
    "qwen2.5-3b": _llm(2048, 11008, 36, 16, 2, 151936, tie_embeddings=True),
    "qwen2.5-1.5b": _llm(1536, 8960, 28, 12, 2, 151936, tie_embeddings=True),
    "qwen2.5-0.5b": _llm(896, 4864, 24, 14, 2, 151936, tie_embeddings=True),
    "llama3-8b": _llm(4096, 14336, 32, 32, 8, 128256, **_LLAMA3),
    "llama3.1-8b": _llm(4096, 14336, 32, 32, 8, 128256, **_LLAMA3, rope_scaling=(8.0, 1.0, 4.0, 8192)),
    "demo": _llm(192, 512, 6, 6, 2, 1024, tie_embeddings=True, rope_theta=1e4),
    "tiny": _llm(64, 160, 2, 4, 2, 1024, tie_embeddings=True),
}


def llm_sizes(name: str) -> dict[str, Any]:
    """Sizes of the base LLM `name`; UserError listing the known ones."""
    if name not in LLMS:
        raise UserError(f"unknown LLM {name!r}; known: {', '.join(LLMS)}, or the folder of a Hugging Face LLM")
    return LLMS[name]


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of one model; hashable, so that it may be closed over by compiled functions.

    Names follow SPEC section 1: D = hidden_size, F = intermediate_size, N = num_heads, K = num_kv_heads,
    H = head_dim, Q = vocab_size. `rope_scaling` is () or LLaMA-3.1's (factor, low_freq_factor, high_freq_factor,
    original_max_position_embeddings).
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float = 1e6
    rope_scaling: tuple[float, ...] = ()
    rms_norm_eps: float = 1e-6
    qkv_bias: bool = True
    tie_embeddings: bool = False
    parts: tuple[str, ...] = VARIANTS["dac"]
    routing: str = "split"
    patch_hidden: int = 1024
    dtype: str = "bfloat16"
    param_dtype: str = "float32"
    frozen_dtype: str = "bfloat16"
    remat: str = "full"
    attention: str = "auto"

    def __post_init__(self) -> None:
        if self.routing not in ROUTINGS:
            raise UserError(f"model.routing={self.routing!r}: expected one of {', '.join(ROUTINGS)}")
        unknown = set(self.parts) - {*TWICE, DELTA}
        if unknown:
            raise UserError(f"model.parts: unknown part {sorted(unknown)[0]!r}; known: {', '.join((*TWICE, DELTA))}")
        if DELTA in self.parts and len(self.parts) > 1:
            raise UserError(f"model.parts={self.parts}: {DELTA} goes with no other part")
        if self.rope_scaling and len(self.rope_scaling) != 4:
            raise UserError(f"model.rope_scaling={self.rope_scaling}: expected () or four numbers")
        if self.num_heads % self.num_kv_heads:
            raise UserError(f"model.num_heads={self.num_heads} is no multiple of num_kv_heads={self.num_kv_heads}")
        if self.remat not in REMATS:
            raise UserError(f"model.remat={self.remat!r}: expected one of {', '.join(REMATS)}")
        if self.attention not in ATTENTIONS:
            raise UserError(f"model.attention={self.attention!r}: expected one of {', '.join(ATTENTIONS)}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """From a `config.model` section; `variant` gives the parts, names unknown to the model are ignored."""
        known = {f.name for f in fields(cls)}
        kept = {k: v for k, v in values.items() if k in known}
        if "parts" not in kept:
            variant = values.get("variant", "dac")
            if variant not in VARIANTS:
                raise UserError(f"model.variant={variant!r}: expected one of {', '.join(VARIANTS)}")
            kept["parts"] = VARIANTS[variant]
        for name in ("parts", "rope_scaling"):
            kept[name] = tuple(kept.get(name, ()))
        return cls(**kept)
