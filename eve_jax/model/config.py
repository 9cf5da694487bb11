"""Sizes of a model and the table of base LLMs."""

import math
from dataclasses import MISSING, dataclass, fields
from itertools import combinations
from typing import Any, TypeVar

from eve_jax.errors import UserError

# Patch embeddings: EVEv2's two convolutions, EVEv1's convolution with attention within windows and images.
PATCH_EMBEDS = ("v2", "v1")
ROUTINGS = ("split", "masked")
REMATS = ("full", "attention", "none")
ATTENTIONS = ("auto", "chunked", "blocked", "splash", "flash")
# Parts of a layer that may exist once for text and once for vision (EVEv2 paper, Fig. 2); upstream's `moe_part`.
TWICE = ("layernorm", "self_attn", "mlp")
ALIGN_EVERY = 4  # layers between those that EVEv1's patch aligning layer looks at
CLIP_ACTIVATIONS = ("quick_gelu", "gelu")
DELTA = "delta"  # gated deltas on the feed-forward's up and down weights, for all tokens (EVEv1.2, ReP)


@dataclass(frozen=True)
class Part:
    """A part of a layer with several sets of weights: `text` for text tokens, and for vision tokens those named here.

    of: which part, one of TWICE. patches, specials: the set for image patches and the one for the special tokens of an
    image; by default both have one set. A set is also a group (`eve_jax.model.weight.groups`) that trains or stays
    frozen, and starts as a copy of the text weights.
    """

    of: str
    patches: str = "vision"
    specials: str = "vision"

    def __post_init__(self) -> None:
        wrong = [name for name in self.sets if not name.isidentifier() or name == "text"]
        if self.of not in TWICE or wrong:
            raise ValueError(f"{self}: expected a part of {', '.join(TWICE)}, and sets with names other than text")

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the sets for vision tokens, each once."""
        return tuple(dict.fromkeys((self.patches, self.specials)))


# What `model.parts` may list, beside DELTA. An entry is all that another division of a part's weights takes.
PARTS: dict[str, Part] = {name: Part(name) for name in TWICE}
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


_LLAMA = {"qkv_bias": False, "rms_norm_eps": 1e-5, "rope_theta": 1e4}
_LLAMA3 = _LLAMA | {"rope_theta": 5e5}


LLMS: dict[str, dict[str, Any]] = {
    "qwen2.5-7b": _llm(3584, 18944, 28, 28, 4, 152064),
    "qwen2.5-3b": _llm(2048, 11008, 36, 16, 2, 151936, tie_embeddings=True),
    "qwen2.5-1.5b": _llm(1536, 8960, 28, 12, 2, 151936, tie_embeddings=True),
    "qwen2.5-0.5b": _llm(896, 4864, 24, 14, 2, 151936, tie_embeddings=True),
    "llama3-8b": _llm(4096, 14336, 32, 32, 8, 128256, **_LLAMA3),
    "llama3.1-8b": _llm(4096, 14336, 32, 32, 8, 128256, **_LLAMA3, rope_scaling=(8.0, 1.0, 4.0, 8192)),
    "demo": _llm(192, 512, 6, 6, 2, 1024, tie_embeddings=True, rope_theta=1e4),
    "vicuna-7b": _llm(4096, 11008, 32, 32, 32, 32000, **_LLAMA),
    "tiny": _llm(64, 160, 2, 4, 2, 1024, tie_embeddings=True),
    "demo-llama": _llm(192, 512, 6, 6, 6, 1024, tie_embeddings=True, **_LLAMA),
    "tiny-llama": _llm(64, 160, 4, 4, 4, 1024, tie_embeddings=True, **_LLAMA),
}


def llm_sizes(name: str) -> dict[str, Any]:
    """Sizes of the base LLM `name`; UserError listing the known ones."""
    if name not in LLMS:
        raise UserError(f"unknown LLM {name!r}; known: {', '.join(LLMS)}, or the folder of a Hugging Face LLM")
    return LLMS[name]


def parse_parts(text: str) -> tuple[str, ...]:
    """Return the parts that `text` lists, "layernorm,mlp" or "none", in the order of PARTS; unknown ones come last."""
    names = [name.strip() for name in text.split(",")]
    if names == ["none"]:
        return ()
    known = list(PARTS)
    return tuple(sorted(dict.fromkeys(names), key=lambda name: known.index(name) if name in PARTS else len(known)))


T = TypeVar("T", "ClipConfig", "ModelConfig")
DTYPES = ("float32", "bfloat16", "float16")
V1_HEADS = 8  # of every attention of EVEv1's own


def _check_types(sizes: "ClipConfig | ModelConfig", whose: str, may_be_zero: tuple[str, ...] = ()) -> None:
    """Raise UserError for a field of another type, a whole number below 1, another below 0 or not finite."""
    for field in fields(sizes):
        value = getattr(sizes, field.name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
        low = 0 if field.name in may_be_zero else 1
        if field.type is int and not (number and isinstance(value, int) and value >= low):
            raise UserError(f"{whose}.{field.name}={value!r}: expected a whole number above {low - 1}")
        if field.type is float and not number:
            raise UserError(f"{whose}.{field.name}={value!r}: expected a number of at least 0")
        if field.type in (bool, str) and not isinstance(value, field.type):
            raise UserError(
                f"{whose}.{field.name}={value!r}: expected {'a text' if field.type is str else 'True or False'}"
            )


def from_fields(kind: type[T], values: dict[str, Any], whose: str) -> T:
    """Return a `kind` of `values`; raise UserError for a field that is missing or unknown."""
    known: dict[str, bool] = {f.name: f.default is MISSING for f in fields(kind)}
    for name in (*known, *values):
        if name not in known or (known[name] and name not in values):
            raise UserError(f"{whose} has {'no' if name in known else 'an unknown'} field {name!r}")
    return kind(**values)


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of a CLIP vision tower, by default ViT-L/14-336's, the teacher of EVEv1."""

    image_size: int = 336
    patch_size: int = 14
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_layers: int = 24
    num_heads: int = 16
    layer_norm_eps: float = 1e-5
    hidden_act: str = "quick_gelu"

    def __post_init__(self) -> None:
        _check_types(self, "teacher")
        if self.image_size % self.patch_size or self.hidden_size % self.num_heads:
            raise UserError(f"the teacher's sizes do not fit each other: {self}")
        if self.hidden_act not in CLIP_ACTIVATIONS:
            raise UserError(f"the teacher's hidden_act is {self.hidden_act!r}: known are {', '.join(CLIP_ACTIVATIONS)}")

    @property
    def cells(self) -> int:
        """Patches along a side of its picture."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of one model; hashable, so that it may be closed over by compiled functions.

    Letters as in docs/model.md#notation: D = hidden_size, F = intermediate_size, N = num_heads, K = num_kv_heads,
    H = head_dim, Q = vocab_size. `rope_scaling` is () or LLaMA-3.1's (factor, low_freq_factor, high_freq_factor,
    original_max_position_embeddings). A patch is 2x2 blocks of `sub_patch` pixels a side, whatever the `patch_embed`.
    `align_width` > 0 is the width of the teacher that the patch aligning layer, which is then there, learns from;
    `teacher` the teacher itself, when the model carries it. Both matter in training alone, with `align_weight` > 0.
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
    patch_embed: str = "v2"
    patch_hidden: int = 1024
    sub_patch: int = 16
    align_weight: float = 0.0
    align_width: int = 0
    teacher: ClipConfig | None = None
    dtype: str = "bfloat16"
    param_dtype: str = "float32"
    frozen_dtype: str = "bfloat16"
    remat: str = "full"
    attention: str = "auto"

    def __post_init__(self) -> None:
        _check_types(self, "model", may_be_zero=("align_width",))
        for name in ("dtype", "param_dtype", "frozen_dtype"):
            if getattr(self, name) not in DTYPES:
                raise UserError(f"model.{name}={getattr(self, name)!r}: expected one of {', '.join(DTYPES)}")
        if self.routing not in ROUTINGS:
            raise UserError(f"model.routing={self.routing!r}: expected one of {', '.join(ROUTINGS)}")
        if self.patch_embed not in PATCH_EMBEDS:
            raise UserError(f"model.patch_embed={self.patch_embed!r}: expected one of {', '.join(PATCH_EMBEDS)}")
        if self.patch_embed == "v1" and self.patch_hidden % V1_HEADS:
            raise UserError(f"model.patch_hidden={self.patch_hidden} is no multiple of the {V1_HEADS} heads of v1")
        if not 0 <= self.align_weight < math.inf:
            raise UserError(f"model.align_weight={self.align_weight} is not a number of at least 0")
        if self.align_width % V1_HEADS:
            raise UserError(f"model.align_width={self.align_width} is no multiple of the {V1_HEADS} heads of v1")
        if self.align_width and self.num_layers < ALIGN_EVERY:
            raise UserError(f"the patch aligning layer wants at least {ALIGN_EVERY} layers, not {self.num_layers}")
        if self.aligns and (self.teacher is None or self.align_width != self.teacher.hidden_size):
            raise UserError("model.align_weight is above 0, but the model has no teacher, or another's aligning layer")
        unknown = set(self.parts) - {*PARTS, DELTA}
        if unknown:
            raise UserError(f"model.parts: unknown part {sorted(unknown)[0]!r}; known: {', '.join((*PARTS, DELTA))}")
        if DELTA in self.parts and len(self.parts) > 1:
            raise UserError(f"model.parts={self.parts}: {DELTA} goes with no other part")
        for one, other in combinations((name for name in self.parts if name in PARTS), 2):
            if PARTS[one].of == PARTS[other].of:
                raise UserError(f"model.parts: {one} and {other} both divide {PARTS[one].of}; choose one of them")
        if self.rope_scaling and len(self.rope_scaling) != 4:
            raise UserError(f"model.rope_scaling={self.rope_scaling}: expected () or four numbers")
        if self.num_heads % self.num_kv_heads:
            raise UserError(f"model.num_heads={self.num_heads} is no multiple of num_kv_heads={self.num_kv_heads}")
        if self.remat not in REMATS:
            raise UserError(f"model.remat={self.remat!r}: expected one of {', '.join(REMATS)}")
        if self.attention not in ATTENTIONS:
            raise UserError(f"model.attention={self.attention!r}: expected one of {', '.join(ATTENTIONS)}")

    def divided(self, of: str) -> Part | None:
        """Return how the part `of` (one of TWICE) is divided into sets of weights; None when it has a single one."""
        return next((PARTS[name] for name in self.parts if name in PARTS and PARTS[name].of == of), None)

    @property
    def aligns(self) -> bool:
        """True when training adds the aligning loss."""
        return self.align_weight > 0

    @property
    def align_levels(self) -> int:
        """How many layers' hidden states the patch aligning layer looks at: the last, and every fourth below it."""
        return self.num_layers // ALIGN_EVERY + 1 if self.align_width else 0

    @property
    def patch_bytes(self) -> int:
        """Bytes of a patch: 2x2 blocks of RGB pixels."""
        return 12 * self.sub_patch**2

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """From a `config.model` section; `variant` names the parts where `parts` is unset; other names are ignored."""
        known = {f.name for f in fields(cls)}
        kept = {k: v for k, v in values.items() if k in known}
        if isinstance(kept.get("parts"), str):
            kept["parts"] = parse_parts(kept["parts"])
        if kept.get("parts") is None:
            variant = values.get("variant", "dac")
            if variant not in VARIANTS:
                raise UserError(f"model.variant={variant!r}: expected one of {', '.join(VARIANTS)}")
            kept["parts"] = VARIANTS[variant]
        for name, kind in (("parts", str), ("rope_scaling", int | float)):
            several = kept.get(name, ())
            if not isinstance(several, list | tuple) or not all(isinstance(one, kind) for one in several):
                what = "texts" if kind is str else "numbers"
                raise UserError(f"model.{name}={several!r}: expected a list of {what}")
            kept[name] = tuple(several)
        teacher = kept.get("teacher")
        if isinstance(teacher, dict):
            kept["teacher"] = from_fields(ClipConfig, teacher, "model.teacher")
        elif teacher is not None and not isinstance(teacher, ClipConfig):
            raise UserError(f"model.teacher={teacher!r}: expected the sizes of the teacher")
        return from_fields(cls, kept, "the section `model`")
